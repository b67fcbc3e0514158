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
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
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
            let injected = sim.faults_injected();
            sim.set_faults(Faults::default());
            if replaced.is_err() && kind == FaultKind::NoSpace {
                assert!(manifest.poisoned().is_none(), "a full disk poisons nothing");
            }
            let appended = sim.block_on(manifest.append(&sim, &[flushed(2)]));
            sim.power_cut();
            let expected = if appended.is_ok() { 2 } else { 1 };
            assert_eq!(current(&sim).last(), Some(&flushed(expected)), "{kind:?} {k}");
            if injected == 0 {
                assert!(appended.is_ok());
                break;
            }
        }
    }
}
