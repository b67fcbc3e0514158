//! Files that are read as a whole, on a simulated disk: the identity, and a
//! manifest.

use std::ops::ControlFlow;
use std::path::Path;

use super::log::{Log, log_seeds};
use super::{DB, EPOCH, padded, parts};
use crate::base::dumped::{DumpDetail, Dumped};
use crate::base::error::ErrorKind;
use crate::base::ids::FileId;
use crate::base::limits::{SHARDS_MAX, UNIT, UNIT_U64};
use crate::db::{IoBackend, Options};
use crate::format::header::{self, FileType, Header};
use crate::io::sim::Sim;
use crate::io::{Harden, Io, IoBuf, OpenMode};
use crate::manifest::{self, IDENTITY, Identity};

/// A machine with this file on its disk.
fn with_file(path: &Path, bytes: &[u8]) -> Sim {
    let sim = Sim::new(1);
    sim.block_on(async {
        let file = sim.open(path, OpenMode::CreateNew).await.expect("a new file");
        let mut buf = IoBuf::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        let (_, written) = sim.write(&file, 0, buf.into(), Harden::Later).await;
        written.expect("the disk is empty");
    });
    sim
}

/// Tells what is in the file; whether nothing is damaged.
fn dump(sim: &Sim, path: &Path) -> bool {
    let options = Options::default().io(IoBackend::Sim(sim.clone()));
    let mut is_sound = true;
    let dumped = crate::db::dump(path, &options, DumpDetail::Entries, |part| {
        is_sound &= !matches!(part, Dumped::Damage(_));
        ControlFlow::Continue(())
    });
    dumped.expect("a file of a database");
    is_sound
}

/// Two header units. An odd first byte leaves out the second one: it is then as
/// the first.
pub(super) fn identity(data: &[u8]) {
    let Some((&[control], data)) = data.split_first_chunk::<1>() else { return };
    let (first, second) = data.split_at(data.len().min(128));
    let second = if control & 1 == 0 { second } else { first };
    let mut bytes: Vec<u8> = [first, second]
        .into_iter()
        .flat_map(|copy| {
            let mut unit = padded(&copy[..copy.len().min(UNIT)]);
            header::seal(&mut unit);
            unit
        })
        .collect();
    if control & 2 != 0 {
        bytes.truncate(UNIT);
    }
    let path = Path::new("/").join(IDENTITY);
    let sim = with_file(&path, &bytes);
    let loaded = sim.block_on(Identity::load(&sim, Path::new("/")));
    let is_sound = dump(&sim, &path);
    match loaded {
        Ok(identity) => {
            assert!((1..=SHARDS_MAX).contains(&identity.shards));
            assert!(is_sound, "it was loaded");
            let copy = Sim::new(2);
            copy.block_on(identity.create(&copy, Path::new("/"))).expect("an identity");
            assert!(copy.file_bytes(&path).as_deref() == Some(&bytes), "another encoding");
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported));
        }
    }
}

pub(super) fn identity_seeds() -> Vec<Vec<u8>> {
    let headers = parts::header_seeds();
    let mut copy = vec![0; UNIT];
    let mut extra = 4u32.to_le_bytes().to_vec();
    extra.extend([7; 16]);
    Header::new(FileType::Identity, DB, FileId::from_u64(0), extra).encode(&mut copy);
    let copy = &copy[..128];
    vec![[&[1], copy].concat(), [&[0], copy, copy].concat(), [&[0], copy, &headers[3]].concat()]
}

/// The end of the snapshot in units, and records.
pub(super) fn manifest(data: &[u8]) {
    let Some((&[snapshot_units], data)) = data.split_first_chunk::<1>() else { return };
    let id = FileId::new(EPOCH, 4);
    let log = Log::make(data, manifest::seed(DB, id), EPOCH, UNIT_U64);
    let snapshot_end = UNIT_U64 * u64::from(snapshot_units);
    let mut bytes = vec![0; UNIT];
    let extra = snapshot_end.to_le_bytes().to_vec();
    Header::new(FileType::Manifest, DB, id, extra).encode(&mut bytes);
    bytes.extend_from_slice(&log.bytes);
    let path = Path::new("/").join(format!("MANIFEST-{id}"));
    let sim = with_file(&path, &bytes);
    let loaded = sim.block_on(manifest::load(&sim, DB, id, &path));
    // Also a sound one may have records where none are written.
    let is_sound = dump(&sim, &path);
    match loaded {
        Ok(loaded) => assert!(loaded.edits.len() <= bytes.len()),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported));
            assert!(!is_sound, "{error}");
        }
    }
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    let edits = parts::edit_seeds();
    let logs = edits[..4].iter().flat_map(|edits| log_seeds(edits));
    logs.map(|log| [&[1], &log[..]].concat()).collect()
}
