//! The text for Prometheus has the grammar of its format, and the numbers of the statistics.

use std::collections::{BTreeMap, BTreeSet};

use ourodb::{Db, Operation, Options};

fn is_name(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.chars().next().is_some_and(is_first)
        && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

/// A sample: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
        None => (series, ""),
    };
    assert!(is_name(name), "{line}");
    let labels = labels.split_terminator(',').map(|label| {
        let (name, value) = label.split_once('=').expect("a label's value");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.expect("quotes");
        assert!(is_name(name) && !value.contains(['"', '\\']), "{line}");
        (name.to_owned(), value.to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().expect("a number"))
}

/// All samples by the name of their family, which is held against the grammar.
fn parse(text: &str) -> BTreeMap<String, Vec<Sample>> {
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let mut families = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").expect("a family begins with its help");
        let (family, help) = help.split_once(' ').expect("a help text");
        assert!(is_name(family) && family.starts_with("ourodb_") && !help.is_empty(), "{line}");
        let line = lines.next().expect("its type");
        let kind = line.strip_prefix(&format!("# TYPE {family} ")).expect("its type");
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let sample = sample(line);
            let suffix = sample.0.strip_prefix(family).expect("a sample of the family");
            let suffixes: &[&str] = match kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            samples.push(sample);
        }
        assert!(!samples.is_empty(), "{family}");
        let series: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
        assert_eq!(series.len(), samples.len(), "a series of {family} comes twice");
        let former = families.insert(family.to_owned(), samples);
        assert!(former.is_none(), "{family} comes twice");
    }
    families
}

/// Buckets are cumulative, and the last one is the count.
fn assert_histograms(family: &str, samples: &[Sample]) {
    let mut buckets: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    let (mut sums, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for (name, labels, value) in samples {
        let mut labels = labels.clone();
        match name.strip_prefix(family) {
            Some("_bucket") => {
                let le = labels.remove("le").expect("a bound");
                buckets.entry(labels).or_default().push((le.parse().expect("a number"), *value));
            }
            Some("_sum") => drop(sums.insert(labels, *value)),
            _ => drop(counts.insert(labels, *value)),
        }
    }
    assert_eq!(buckets.len(), counts.len());
    assert_eq!(buckets.len(), sums.len());
    for (labels, buckets) in buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{labels:?}");
        let last = buckets.last().expect("a bucket");
        assert_eq!((last.0, last.1), (f64::INFINITY, counts[&labels]));
        assert_eq!(sums[&labels] > 0.0, last.1 > 0.0);
    }
}

#[test]
fn the_text_is_well_formed_and_right() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default().shards(2)).unwrap();
    parse(&db.prometheus());
    for i in 0..100u8 {
        db.put(&[i], &[i; 300]).wait().unwrap();
    }
    db.flush().wait().unwrap();
    assert_eq!(db.scan(..).iter().count(), 100);
    let families = parse(&db.prometheus());
    let stats = db.stats();
    let value = |name: &str| families[name][0].2;
    assert_eq!(value("ourodb_puts_total"), stats.puts as f64);
    assert_eq!(value("ourodb_table_bytes"), stats.table_bytes as f64);
    assert_eq!(value("ourodb_flushed_bytes_total"), stats.flushed_bytes as f64);
    let levels = &families["ourodb_level_entries"];
    assert_eq!(levels.len(), stats.levels.len());
    assert_eq!(levels.iter().map(|(_, _, value)| value).sum::<f64>(), 100.0);
    // All that the statistics count is there, by a name that says its unit.
    let others =
        ["write_delay_ns", "owner_slice_ns_max", "shard_hold_ns_max", "memtable_bytes_max"];
    for (name, _) in stats.fields() {
        let is_own = !name.starts_with("level_") && !name.starts_with("slow_writes_");
        if is_own && !others.contains(&name) {
            let (gauge, counter) = (format!("ourodb_{name}"), format!("ourodb_{name}_total"));
            assert!(families.contains_key(&gauge) || families.contains_key(&counter), "{name}");
        }
    }
    let whole = &families["ourodb_operation_duration_seconds"];
    for operation in Operation::ALL {
        let is_of = |labels: &BTreeMap<_, _>| labels["op"] == operation.name();
        assert!(whole.iter().any(|(_, labels, _)| is_of(labels)));
    }
    let is_count = |(name, labels, _): &&Sample| name.ends_with("_count") && labels["op"] == "put";
    assert_eq!(whole.iter().find(is_count).expect("it is there").2, 100.0);
    for family in ["ourodb_operation_duration_seconds", "ourodb_operation_part_duration_seconds"] {
        assert_histograms(family, &families[family]);
    }
}

#[test]
fn a_database_without_work_to_do_has_all_series() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default().shards(2)).unwrap();
    let names = |text: &str| {
        let families = parse(text).into_values().flatten();
        families.map(|(name, labels, _)| (name, labels)).collect::<BTreeSet<_>>()
    };
    let before = names(&db.prometheus());
    db.put(b"key", b"value").wait().unwrap();
    db.flush().wait().unwrap();
    assert_eq!(names(&db.prometheus()), before);
}
