mod common;
use common::tiny;
use ourodb::sim::Sim;
use ourodb::Db;

#[test]
fn creation() {
    let mut bad = Vec::new();
    for cut in [false, true] {
        for n in 0..60 {
            let sim = Sim::new(n);
            sim.crash_after(n, cut);
            let mut db = None;
            drop(sim.until_crash(|| db = Some(Db::open("/db", tiny(&sim).shards(3).owners(2)))));
            drop(db);
            sim.power_cut();
            match Db::open("/db", tiny(&sim).shards(3).owners(2)) {
                Ok(db) => drop(db),
                Err(e) => bad.push((n, cut, e.to_string())),
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn sessions() {
    let sim = Sim::new(1);
    for i in 0..60u32 {
        let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).expect("open");
        db.put(&i.to_le_bytes(), b"v").wait().expect("put");
        db.close().expect("close");
    }
    let n = sim.paths().iter().filter(|p| p.extension().is_some_and(|e| e == "wal")).count();
    println!("segments {n}");
    assert!(n < 40, "{n}");
}

#[test]
fn root_grows() {
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1).wal_segment_bytes(8 << 10)).expect("open");
    for i in 0..3000u32 {
        db.put(&(i % 7).to_le_bytes(), &[7; 3000]).wait().expect("put");
    }
    for p in sim.paths() {
        let len = sim.file_bytes(&p).map(|b| b.len()).unwrap_or(0);
        if p.to_string_lossy().contains("MANIFEST") { println!("{} {len}", p.display()); assert!(len < 2 << 20, "{}", p.display()); }
    }
}
