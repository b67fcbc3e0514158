use super::*;

fn suite(scale: f64, interrupt: &AtomicBool) -> (AllArgs, Vec<Contestant>, &AtomicBool) {
    let args = AllArgs {
        dir: "d".into(),
        rounds: 2,
        seconds: Duration::from_millis(1500),
        warm_up: WarmUp::Time(Duration::from_secs(3)),
        contestants: None,
        groups: None,
        scale,
        output: ReportArgs::default(),
    };
    (args, vec![Contestant::OuroDb, Contestant::Fjall, Contestant::Redb], interrupt)
}

fn flags(scale: f64, step: &str, contestant: Contestant) -> String {
    let interrupt = AtomicBool::new(false);
    let (args, contestants, interrupt) = suite(scale, &interrupt);
    let suite = Suite { args: &args, interrupt, contestants, samples: Vec::new() };
    let groups = groups();
    let all = groups.iter().flat_map(|group| group.steps.iter().map(move |of| (group, of)));
    let (group, step) = all.into_iter().find(|(_, of)| of.name == step).unwrap();
    let flags = suite.flags(group, step, contestant);
    flags.join(" ".as_ref()).into_string().unwrap()
}

#[test]
fn each_engine_is_asked_for_the_same() {
    assert_eq!(
        flags(1.0, "load 1", Contestant::OuroDb),
        "load --engine ourodb --dir d/ourodb --json - --clients 1 --memory 1073741824 --records \
         1000000 --overwrite"
    );
    assert_eq!(
        flags(0.5, "load beyond", Contestant::Redb),
        "load --engine redb --dir d/redb --json - --clients 1 --memory 226492416 --records 2000000 \
         --load-batch 1000 --overwrite"
    );
    assert_eq!(
        flags(1.0, "beyond a", Contestant::RocksDbDirect),
        "run --engine rocksdb --direct --dir d/rocksdb-direct --json - --clients 8 --memory 452984832 \
         --workload a --client-kind thread --depth 1 --seconds 1.5 --warm-up 3"
    );
    assert_eq!(
        flags(1.0, "a 2", Contestant::Fjall),
        "run --engine fjall --dir d/fjall --json - --clients 2 --memory 2147483648 --workload a \
         --client-kind thread --depth 1 --seconds 1.5 --warm-up 3 --read-first"
    );
    assert_eq!(
        flags(0.001, "durable 16", Contestant::Fjall),
        "run --engine fjall --dir d/fjall --json - --clients 16 --memory 67108864 --workload \
         insert-only --client-kind thread --depth 1 --seconds 1.5 --durability durable --fresh 1"
    );
}

#[test]
fn who_cannot_is_left_out() {
    let groups = groups();
    let step = |name: &str| {
        let all = groups.iter().flat_map(|group| group.steps.iter().map(move |of| (group, of)));
        all.into_iter().find(|(_, of)| of.name == name).unwrap()
    };
    use Contestant::{Fio, Fjall, OuroDb, RocksDbDirect};
    for (name, contestant, has) in [
        ("load 1", OuroDb, true),
        ("load 1", Fjall, true),
        ("load 1", RocksDbDirect, false),
        ("load 1", Fio, false),
        ("uniform 1", RocksDbDirect, true),
        ("uniform owner 16", OuroDb, true),
        ("uniform owner 16", Fjall, false),
        ("fio ring 16", Fio, true),
        ("fio ring 16", OuroDb, false),
    ] {
        let (group, step) = step(name);
        assert_eq!(group.has(step, contestant), has, "{name}: {}", contestant.title());
    }
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new");
    make_dir(&new).unwrap();
    fs::write(new.join("more"), "").unwrap();
    make_dir(&new).unwrap();
    let elsewhere = dir.path().join("ourodb");
    fs::create_dir(&elsewhere).unwrap();
    assert_eq!(make_dir(dir.path()).unwrap_err().exit_code(), 2);
}
