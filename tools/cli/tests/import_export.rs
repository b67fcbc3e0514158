//! Import and export on the real binary: order, escapes, bad lines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, acknowledged, counts, last_line, output, stderr, succeeded};
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};

/// `count` lines of plain text, each with a key of its own, in no order.
fn plain_lines(count: u32, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lines: Vec<String> = (0..count)
        .map(|number| {
            let value: String = (0..random.usize(0..120)).map(|_| random.alphanumeric()).collect();
            format!("{:x}-{number} größe\t{value}\n", random.u32(..))
        })
        .collect();
    random.shuffle(&mut lines);
    lines.concat().into_bytes()
}

#[test]
fn a_hundred_thousand_lines_come_out_sorted() {
    let place = Place::new();
    let input = plain_lines(100_000, 1);
    let file = place.file("input.tsv", &input);
    let said = place.ok(&["import", "--format", "tsv", file.to_str().unwrap()]);
    assert_eq!(last_line(&said), counts(100_000, 100_000, 0));

    let mut sort = Command::new("sort");
    sort.env("LC_ALL", "C").args(["-t", "\t", "-k1,1"]).arg(&file);
    let sorted = succeeded(output(sort, b""));
    let exported = place.ok(&["export", "--format", "tsv"]);
    assert!(exported == sorted, "the export differs from the sorted input");

    let lines = place.ok(&["export", "--format", "jsonl"]);
    let other = Place::new();
    assert_eq!(last_line(&other.import("jsonl", &lines)), counts(100_000, 100_000, 0));
    assert!(other.ok(&["export"]) == sorted, "the rows differ after a way through JSON lines");
}

#[test]
fn acknowledgements_rise_to_the_number_of_lines() {
    let place = Place::new();
    let said = String::from_utf8(place.import("tsv", &plain_lines(50_000, 2))).unwrap();
    let mut lines: Vec<&str> = said.split_inclusive('\n').collect();
    assert_eq!(lines.pop(), Some(&*(counts(50_000, 50_000, 0) + "\n")));
    let numbers: Vec<u64> = lines.iter().map(|line| acknowledged(line).unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&50_000));
}

/// Random bytes, with many of those that are escaped.
fn bytes(random: &mut fastrand::Rng, length_max: usize) -> Vec<u8> {
    let special = b"\t\n\r\0\\x\x1b\x7f\xff\"";
    (0..random.usize(0..=length_max))
        .map(|_| if random.bool() { special[random.usize(..special.len())] } else { random.u8(..) })
        .collect()
}

/// Every escape, written in a form that the reader takes.
fn escape(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in bytes {
        match byte {
            _ if random.u8(..4) == 0 => text.extend_from_slice(format!("\\x{byte:02X}").as_bytes()),
            b'\t' => text.extend_from_slice(b"\\t"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'\r' if random.bool() => text.extend_from_slice(b"\\r"),
            b'\0' if random.bool() => text.extend_from_slice(b"\\0"),
            _ => text.push(byte),
        }
    }
    text
}

#[test]
fn any_bytes_survive_and_the_last_duplicate_wins() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut rows = BTreeMap::new();
    let mut input = Vec::new();
    for _ in 0..20_000 {
        let (key, value) = (bytes(&mut random, 3), bytes(&mut random, 40));
        for (field, end) in [(&key, b'\t'), (&value, b'\n')] {
            input.extend(escape(field, &mut random));
            input.push(end);
        }
        rows.insert(key, value);
    }
    assert!(rows.len() < 15_000, "too few duplicates");
    let place = Place::new();
    let imported = place.run_with(&["import", "--owners", "2", "-"], &input);
    assert_eq!(last_line(&succeeded(imported)), counts(20_000, 20_000, 0));

    let exported = place.ok(&["export"]);
    let mut lines = exported.split_inclusive(|byte| *byte == b'\n');
    for (key, value) in &rows {
        let mut expected = Vec::new();
        for (field, end) in [(key, b'\t'), (value, b'\n')] {
            for &byte in field {
                match byte {
                    b'\t' => expected.extend_from_slice(b"\\t"),
                    b'\n' => expected.extend_from_slice(b"\\n"),
                    b'\r' => expected.extend_from_slice(b"\\r"),
                    b'\0' => expected.extend_from_slice(b"\\0"),
                    b'\\' => expected.extend_from_slice(b"\\\\"),
                    1..=31 | 127 => expected.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
                    _ => expected.push(byte),
                }
            }
            expected.push(end);
        }
        let line = lines.next().unwrap_or_default();
        assert_eq!(line.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
    assert_eq!(lines.next(), None);

    let other = Place::new();
    other.import("tsv", &exported);
    assert!(other.ok(&["export"]) == exported);
    let third = Place::new();
    third.import("jsonl", &place.ok(&["export", "--format", "jsonl"]));
    assert!(third.ok(&["export"]) == exported);
}

#[test]
fn long_values_go_out_and_in_again() {
    let place = Place::new();
    let value = |len: usize| (0..len).map(|i| (i * 31 + i / 255) as u8).collect::<Vec<u8>>();
    let lens = [65_536, 65_537, 300_000, 2_000_000];
    for (i, len) in lens.into_iter().enumerate() {
        succeeded(place.run_with(&["put", &i.to_string(), "-"], &value(len)));
    }
    for format in ["tsv", "jsonl"] {
        let exported = place.ok(&["export", "--format", format]);
        let other = Place::new();
        other.import(format, &exported);
        assert!(other.ok(&["export", "--format", format]) == exported);
        for (i, len) in lens.into_iter().enumerate() {
            assert!(other.ok(&["get", &i.to_string(), "--raw"]) == value(len));
        }
    }
}

/// With this budget values have 1 MiB at most.
const SMALL: [&str; 2] = ["--memory", "4MiB"];

/// Each kind of bad line, and what is said of it, with a small budget.
fn bad_tsv_lines() -> Vec<(Vec<u8>, &'static str)> {
    let long = |length: usize| vec![b'x'; length];
    vec![
        (b"".to_vec(), "no tab"),
        (b"no tab".to_vec(), "no tab"),
        (b"a\tb\tc".to_vec(), "second tab"),
        (b"a\\q\tb".to_vec(), "unknown escape \\q"),
        (b"a\tb\\x4".to_vec(), "ends within an escape"),
        (b"a\tb\\xzz".to_vec(), "hexadecimal"),
        ([long(ourodb::KEY_BYTES_MAX + 1), b"\tv".to_vec()].concat(), "a key of 65536 bytes"),
        ([b"k\t".to_vec(), long((1 << 20) + 1)].concat(), "a value of"),
        (long(8 << 20), "a line above the limit of"),
    ]
}

#[test]
fn bad_lines_stop_the_import_after_the_lines_before_them() {
    for (bad, reason) in bad_tsv_lines() {
        let place = Place::new();
        let input = [b"a\t1\nb\t2\n", &bad[..], b"\nc\t3\n"].concat();
        let run = place.run_with(&["import", "-", SMALL[0], SMALL[1]], &input);
        assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
        assert!(stderr(&run).starts_with("ouro: stdin: line 3: "), "{}", stderr(&run));
        assert!(stderr(&run).contains(reason), "{}", stderr(&run));
        let said = format!("acknowledged 2\n{}\n", counts(2, 2, 1));
        assert_eq!(String::from_utf8(run.stdout).unwrap(), said);
        assert_eq!(place.ok(&["export"]), b"a\t1\nb\t2\n");
    }
}

#[test]
fn bad_lines_are_skipped_by_number_when_asked() {
    let place = Place::new();
    let mut input = b"a\t1\n".to_vec();
    for (bad, _) in bad_tsv_lines() {
        input.extend(bad);
        input.push(b'\n');
    }
    input.extend_from_slice(b"b\t2\n\nc\t3");
    let run =
        place.run_with(&["import", "--on-error", "continue", "-", SMALL[0], SMALL[1]], &input);
    assert_eq!(run.status.code(), Some(1));
    let errors = stderr(&run);
    let mut errors = errors.lines();
    for (number, (_, reason)) in (2..).zip(bad_tsv_lines()) {
        let error = errors.next().unwrap();
        assert!(error.starts_with(&format!("ouro: stdin: line {number}: ")), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    assert!(errors.next().unwrap().starts_with("ouro: stdin: line 12: "));
    assert_eq!(errors.next(), Some("ouro: 10 bad lines were skipped"));
    assert_eq!(errors.next(), None);
    assert_eq!(last_line(&run.stdout), counts(13, 3, 10));
    assert_eq!(place.ok(&["export"]), b"a\t1\nb\t2\nc\t3\n");
}

#[test]
fn bad_json_lines() {
    let place = Place::new();
    let input = b"{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\"}\n\nnonsense\n\
        {\"key\":\"c\",\"value_b64\":\"?\"}\n{\"key_b64\":\"ZA==\",\"value\":\"4\"}";
    let run =
        place.run_with(&["import", "--format", "jsonl", "--on-error", "continue", "-"], input);
    assert_eq!(run.status.code(), Some(1));
    let errors = stderr(&run);
    let numbers: Vec<_> = errors.lines().filter_map(|line| line.split(':').nth(2)).collect();
    assert_eq!(numbers[..4], [" line 2", " line 3", " line 4", " line 5"], "{errors}");
    assert_eq!(place.ok(&["export"]), b"a\t1\nd\t4\n");
}

#[test]
fn bad_lines_name_their_file() {
    let place = Place::new();
    let file = place.file("words.tsv", b"a\t1\nb");
    let run = place.run(&["import", file.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    let begin = format!("ouro: {}: line 2: no tab", file.display());
    assert!(stderr(&run).starts_with(&begin), "{}", stderr(&run));
    assert_eq!(last_line(&run.stdout), "1 line acknowledged, 1 row imported, 1 bad line");
}

#[test]
fn raw_carriage_returns_and_control_bytes_are_data() {
    let place = Place::new();
    place.import("tsv", b"k\tv\r\n\xff\t\xfe\0\n");
    assert_eq!(place.ok(&["get", "k", "--raw"]), b"v\r");
    assert_eq!(place.ok(&["export"]), b"k\tv\\r\n\xff\t\xfe\\0\n");
}

#[test]
fn a_reader_that_goes_away_ends_an_export_quietly() {
    let place = Place::new();
    place.import("tsv", &plain_lines(20_000, 4));
    for arguments in [&["export"][..], &["scan", "--reverse"]] {
        let mut export =
            place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        export.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ended = export.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), stderr(&ended)), (Some(0), String::new()));
    }
}

#[test]
fn an_import_goes_on_when_nobody_listens() {
    let place = Place::new();
    let input = plain_lines(20_000, 5);
    let file = place.file("input.tsv", &input);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut import = place.command(&["import", file.to_str().unwrap()]);
    assert_eq!(import.stdout(writer).status().unwrap().code(), Some(0));
    assert_eq!(place.ok(&["export"]).len(), input.len());
}
