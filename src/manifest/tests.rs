//! Manifests on the simulated disk.

use super::*;
use crate::io::sim::{FaultKind, Faults, Sim};

const DB: DbId = DbId([3; 16]);

fn dir() -> &'static Path {
    Path::new("/shard")
}

fn flushed(seq: u64) -> Edit {
    Edit::Flushed { seq }
}

/// The edits of the manifest that counts.
fn current(sim: &Sim) -> Vec<Edit> {
    sim.block_on(async {
        let found = find(sim, dir()).await.expect("a directory");
        let (id, path) = found.current.expect("a manifest");
        load(sim, DB, id, &path).await.expect("a sound manifest").edits
    })
}

/// Whichever request of a replacement fails: an edit that is appended after it
/// is found again, or was refused.
#[test]
fn no_edit_is_lost_to_a_failed_replacement() {
    for kind in [FaultKind::Io, FaultKind::NoSpace, FaultKind::SyncNoSpace] {
        for k in 1.. {
            let sim = Sim::new(k);
            let mut manifest = sim.block_on(async {
                sim.create_dir(dir()).await.expect("a directory");
                sim.sync_dir(Path::new("/")).await.expect("a durable directory");
                let id = FileId::new(1, 1);
                Manifest::create(&sim, dir(), DB, id, &[flushed(1)]).await.expect("a manifest")
            });
            sim.set_faults(Faults::default().fail_kth(k, kind, false));
            let id = FileId::new(1, 2);
            let replaced = sim.block_on(manifest.replace(&sim, dir(), DB, id, &[flushed(1)]));
            let injected = sim.injected();
            sim.set_faults(Faults::default());
            if replaced.is_err() && kind == FaultKind::NoSpace {
                assert!(manifest.poisoned().is_none(), "a full disk poisons nothing");
            }
            let appended = sim.block_on(manifest.append(&sim, &[flushed(2)]));
            sim.power_cut();
            let expected = if appended.is_ok() { 2 } else { 1 };
            assert_eq!(current(&sim).last(), Some(&flushed(expected)), "{kind:?} {k}");
            if injected.is_empty() {
                assert!(appended.is_ok());
                break;
            }
        }
    }
}

/// Whichever request fails: an edit that is to be witnessed has its witness, or
/// was not appended; unless nobody may append any more.
#[test]
fn an_edit_with_a_witness_is_not_appended_without_it() {
    // At the end of the room that there is, and before.
    for (before, k) in (0..5).flat_map(|before| (1..7).map(move |k| (before, k))) {
        let sim = Sim::new(k);
        let (mut manifest, at) = sim.block_on(async {
            sim.create_dir(dir()).await.expect("a directory");
            sim.sync_dir(Path::new("/")).await.expect("a durable directory");
            let id = FileId::new(1, 1);
            let created = Manifest::create(&sim, dir(), DB, id, &[flushed(1)]).await;
            let mut manifest = created.expect("a manifest");
            for seq in 2..2 + before {
                manifest.append(&sim, &[flushed(seq)]).await.expect("an edit");
            }
            let at = round_up_u64(manifest.end);
            (manifest, at)
        });
        sim.set_faults(Faults::default().fail_kth(k, FaultKind::NoSpace, false));
        let appended = sim.block_on(manifest.append_witnessed(&sim, &[flushed(50)]));
        sim.set_faults(Faults::default());
        sim.power_cut();
        let place = format!("{before} edits before, request {k}");
        match (appended, manifest.poisoned()) {
            (Ok(()), _) => {
                assert_eq!(current(&sim).last(), Some(&flushed(50)), "{place}");
                let path = manifest.path();
                let byte = sim.file_bytes(path).expect("a file")[at as usize + 5];
                sim.overwrite(path, at + 5, &[byte ^ 1]);
                let loaded = sim.block_on(load(&sim, DB, FileId::new(1, 1), path));
                assert!(loaded.is_err(), "{place}: the edit is missed");
            }
            (Err(_), None) => {
                assert_eq!(current(&sim).last(), Some(&flushed(1 + before)), "{place}");
            }
            (Err(_), Some(_)) => {}
        }
    }
}

/// What is said to be missing is where it was, and not what fills up the record before.
#[test]
fn a_damaged_record_is_named() {
    let sim = Sim::new(1);
    let path = sim.block_on(async {
        sim.create_dir(dir()).await.expect("a directory");
        let id = FileId::new(1, 1);
        let mut manifest = Manifest::create(&sim, dir(), DB, id, &[flushed(1)]).await.expect("one");
        for seq in 2..5 {
            manifest.append(&sim, &[flushed(seq)]).await.expect("an edit");
        }
        manifest.path().to_owned()
    });
    let bytes = sim.file_bytes(&path).expect("a file");
    for at in [2 * UNIT, 3 * UNIT] {
        sim.overwrite(&path, at as u64, &[bytes[at] ^ 1]);
        let loaded = sim.block_on(load(&sim, DB, FileId::new(1, 1), &path));
        let error = loaded.err().expect("a record is missing");
        assert_eq!(error.place().map(|place| place.offset), Some(at as u64), "{error}");
        sim.overwrite(&path, at as u64, &[bytes[at]]);
    }
}
