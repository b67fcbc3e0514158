//! Manifests whose checksums are right, and that say what cannot be.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::base::fault::Finding;
use crate::base::ids::FileId;
use crate::db::{Db, IoBackend, Options};
use crate::format::edit::{Edit, StreamKey, TableMeta};
use crate::format::value::Extent;
use crate::io::sim::Sim;
use crate::manifest::{Identity, Manifest, find, load};

fn options(sim: &Sim) -> Options {
    let sim = IoBackend::Sim(sim.clone());
    Options::default().io(sim).shards(1).owners(1).lock_wait(Duration::ZERO)
}

fn table(counter: u32, level: u8, keys: [&[u8]; 2], seqs: [u64; 2]) -> Edit {
    let meta = TableMeta {
        id: FileId::new(1, counter),
        table_id: [7; 16],
        file_bytes: 1 << 16,
        entries: 9,
        seq_min: seqs[0],
        seq_max: seqs[1],
        smallest: keys[0].into(),
        largest: keys[1].into(),
    };
    Edit::Table { level, meta }
}

/// The faults of an empty database in which this is the manifest of `dir`.
fn faults(dir: &str, edits: &[Edit]) -> Vec<String> {
    let sim = Sim::new(3);
    Db::open("/db", options(&sim)).expect("open").close().expect("close");
    sim.block_on(async {
        let identity = Identity::load(&sim, Path::new("/db")).await.expect("an identity");
        let id = FileId::new(1, 1000);
        let made = Manifest::create(&sim, Path::new(dir), identity.db, id, edits).await;
        made.expect("a manifest");
    });
    let mut faults = Vec::new();
    crate::db::verify("/db", &options(&sim), |finding| {
        if let Finding::Fault(fault) = finding {
            faults.push(fault.to_string());
        }
        ControlFlow::Continue(())
    })
    .expect("a verdict");
    faults
}

fn says(dir: &str, edits: &[Edit], reason: &str) {
    let faults = faults(dir, edits);
    assert!(faults.iter().any(|fault| fault.contains(reason)), "{reason}: {faults:?}");
}

#[test]
fn tables_that_cannot_be_there() {
    let shard = "/db/shard-000";
    let flushed = Edit::Flushed { seq: 100 };
    assert_eq!(faults(shard, &[Edit::Flushed { seq: 0 }]), Vec::<String>::new());
    let a = table(50, 1, [b"a", b"m"], [1, 9]);
    let b = table(51, 1, [b"m", b"z"], [1, 9]);
    says(shard, &[a.clone(), b, flushed.clone()], "of level 1 share keys");
    let newer = table(52, 0, [b"a", b"d"], [9, 20]);
    let older = table(53, 0, [b"c", b"e"], [1, 9]);
    says(shard, &[newer.clone(), older, flushed.clone()], "is the newer one");
    let older = table(53, 0, [b"c", b"e"], [1, 8]);
    let of_one_run = table(54, 0, [b"x", b"z"], [1, 20]);
    let sound = faults(shard, &[older, newer.clone(), of_one_run, flushed.clone()]);
    assert!(sound.iter().all(|fault| fault.contains("the table is missing")), "{sound:?}");
    assert_eq!(sound.len(), 3);
    says(shard, &[newer, Edit::Flushed { seq: 19 }], "has write 20, and those in tables end at 19");
    says(shard, &[a.clone(), a.clone(), flushed.clone()], "is added twice");
    says(
        shard,
        &[table(54, 7, [b"a", b"b"], [1, 2]), flushed.clone()],
        "is on level 7, and there is none",
    );
    let lost = Edit::TableRemoved { level: 2, id: FileId::new(1, 50) };
    says(shard, &[a, lost, flushed.clone()], "and is not there");
    says(shard, &[table(55, 1, [b"b", b"a"], [1, 2]), flushed], "contradicts itself");
    says(shard, &[Edit::Clean], "holds an edit of the root's");
}

#[test]
fn streams_that_cannot_be_there() {
    let stream = StreamKey { epoch: 1, stream: 9 };
    let start = Edit::StreamStart { stream, start: 0, flushed: vec![(0, 5)] };
    says("/db", std::slice::from_ref(&start), "the segments of stream 9 of opening 1 are missing");
    let faults = faults("/db", &[start]);
    let lacks = |fault: &&String| fault.contains("tables were written up to 5");
    let fault = faults.iter().find(lacks).expect("the shard's manifest does not know them");
    assert!(!fault.contains("offset 0:"), "what is missing would be at its end: {fault}");
    // It may have been freed: nothing tells.
    let says_of = |fault: &String| fault.contains("the manifest's last edits may be missing");
    assert!(faults.iter().any(says_of), "{faults:?}");
    says("/db", &[Edit::Flushed { seq: 1 }], "a root manifest holds a shard's edit");
    let keyspace = Edit::Keyspace { id: 4, name: "more".to_owned() };
    says("/db", &[keyspace], "keyspace more (4)");
}

#[test]
fn values_that_cannot_be_there() {
    let shard = "/db/shard-000";
    let id = FileId::new(1, 70);
    let file = Edit::ValueFile { id, bytes: 3 * 4096 };
    let stated = faults(shard, &[Edit::Flushed { seq: 0 }, file.clone()]);
    let unknown = format!("tables refer to 0 bytes of value file {id}, and the manifest says");
    assert!(stated.iter().any(|fault| fault.contains(&unknown)), "{stated:?}");
    assert!(stated.iter().any(|fault| fault.contains("the value file is missing")), "{stated:?}");
    let drop = |bytes| Edit::ValuesDropped {
        first: 0,
        extents: vec![Extent { file: id, offset: 4096, bytes }],
    };
    says(shard, &[file.clone(), drop(4 * 4096)], "is dropped than was there");
    says(shard, &[file.clone(), drop(4096), drop(4096)], "have numbers of earlier ones");
    // What is dropped may be gone already.
    assert_eq!(faults(shard, &[file, drop(3 * 4096)]), Vec::<String>::new());
    says("/db", &[drop(4096)], "a root manifest holds a shard's edit");
}

/// A place that counts as dropped would be given back by the next opening.
#[test]
fn a_dropped_value_that_a_table_refers_to() {
    let sim = Sim::new(3);
    let db = Db::open("/db", options(&sim)).expect("open");
    db.put(b"key", &[7; 100_000]).wait().expect("put");
    db.flush().wait().expect("flush");
    db.close().expect("close");
    let dropped = |offset| {
        sim.block_on(async {
            let shard = Path::new("/db/shard-000");
            let identity = Identity::load(&sim, Path::new("/db")).await.expect("an identity");
            let (id, path) = find(&sim, shard).await.expect("a list").current.expect("a manifest");
            let loaded = load(&sim, identity.db, id, &path).await.expect("a sound manifest");
            let is_table = |edit: &Edit| !matches!(edit, Edit::ValuesDropped { .. });
            let mut edits: Vec<Edit> = loaded.edits.into_iter().filter(is_table).collect();
            let of = edits.iter().find_map(|edit| match edit {
                Edit::ValueFile { id, .. } => Some(*id),
                _ => None,
            });
            let file = of.expect("a value file");
            edits.retain(|edit| !matches!(edit, Edit::ValueFile { bytes: 4096, .. }));
            edits.push(Edit::ValueFile { id: file, bytes: 4096 });
            let extents = vec![Extent { file, offset, bytes: 4096 }];
            edits.push(Edit::ValuesDropped { first: 0, extents });
            let id = FileId::new(id.epoch(), id.to_u64() as u32 + 1000);
            Manifest::create(&sim, shard, identity.db, id, &edits).await.expect("a manifest");
        });
        let mut faults = Vec::new();
        crate::db::verify("/db", &options(&sim), |finding| {
            if let Finding::Fault(fault) = finding {
                faults.push(fault.to_string());
            }
            ControlFlow::Continue(())
        })
        .expect("a verdict");
        faults
    };
    let end = 4096 * (1 + 25);
    assert_eq!(dropped(end), Vec::<String>::new(), "behind it");
    for offset in [4096, end - 4096] {
        let faults = dropped(offset);
        assert!(
            matches!(&faults[..], [fault] if fault.contains("counts as dropped")),
            "{faults:?}"
        );
    }
}
