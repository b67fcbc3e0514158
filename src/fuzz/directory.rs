//! A whole database, damaged, on the simulated machine. It is verified, opened,
//! read, written to, and opened again.
//!
//! There are two kinds of damage. Where all checksums stay as they were, what is
//! read is what was written once, or an error. Where what is under a checksum is
//! changed together with it, the engine believes what it reads, and only has to
//! survive it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::seals::{self, Files, Sealed};
use super::within;
use crate::base::durability::Durability;
use crate::base::fault::{Finding, Verified};
use crate::base::limits::UNIT;
use crate::db::{Db, IoBackend, Options};
use crate::format::block::Compression;
use crate::format::header::{ByteReader, DecodeError};
use crate::io::Io;
use crate::io::sim::{DiskImage, Sim};

const DIR: &str = "/db";

/// How many databases there are to damage.
const LAYOUTS: usize = 3;

/// Damages of one input.
const DAMAGES_MAX: usize = 8;

/// What an opening takes beside the files: the memory budget, and more.
const MEMORY_BYTES: usize = 48 << 20;

/// A sound database.
struct Layout {
    image: DiskImage,
    files: Files,
    sealed: Vec<Sealed>,
    /// The values that each key ever had.
    written: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

fn options(sim: &Sim, layout: usize) -> Options {
    let options = Options::default()
        .io(IoBackend::Sim(sim.clone()))
        .shards(2)
        .owners(1)
        .memory(4 << 20)
        .memtable_bytes(4096)
        .wal_segment_bytes(16 << 10)
        .wal_map_bytes(32 << 10)
        .cache_bytes(48 << 10)
        .lock_wait(Duration::ZERO);
    match layout {
        0 => options,
        1 => options.compression(Compression::Lz4).durability(Durability::ProcessSafe),
        _ => options.pinned_bytes(0).compression(match cfg!(feature = "zstd") {
            true => Compression::Zstd,
            false => Compression::Lz4,
        }),
    }
}

fn layout(number: usize) -> &'static Layout {
    static LAYOUT: [OnceLock<Layout>; LAYOUTS] = [const { OnceLock::new() }; LAYOUTS];
    LAYOUT[number].get_or_init(|| Layout::make(number))
}

impl Layout {
    fn make(number: usize) -> Self {
        let sim = Sim::new(7);
        let db = Db::open(DIR, options(&sim, number)).expect("a new database");
        let mut written = BTreeMap::<_, BTreeSet<_>>::new();
        let mut put = |i: usize, round: usize| {
            let key = format!("key {i:02}").into_bytes();
            let len = if (i, round) == (5, 1) { 70_000 } else { 7 + i * 11 % 90 };
            let value: Vec<u8> = format!("value {round} of {i}, ")
                .into_bytes()
                .into_iter()
                .cycle()
                .take(len)
                .collect();
            db.put(&key, &value).wait().expect("a put");
            written.entry(key).or_default().insert(value);
        };
        (0..40).for_each(|i| put(i, 0));
        db.flush().wait().expect("a flush");
        (0..40).step_by(3).for_each(|i| put(i, 1));
        (0..40)
            .step_by(5)
            .for_each(|i| db.delete(format!("key {i:02}").as_bytes()).wait().expect("a delete"));
        db.delete_range("key 20".."key 25").wait().expect("a range delete");
        (0..40).step_by(4).for_each(|i| put(i + 1, 1));
        db.flush().wait().expect("a flush");
        (0..40).step_by(7).for_each(|i| put(i, 2));
        sim.run_for(100_000_000);
        (0..40).step_by(6).for_each(|i| put(i, 3));
        if number == 1 {
            sim.kill();
            drop(db);
            stay_in_boot(&sim);
        } else {
            db.close().expect("a close");
        }
        let files = files(&sim);
        Self { image: sim.snapshot(), sealed: seals::find(&files), files, written }
    }
}

fn files(sim: &Sim) -> Files {
    let paths = sim.paths().into_iter().filter(|path| !path.ends_with("LOCK"));
    paths.map(|path| (path.clone(), sim.file_bytes(&path).expect("it is listed"))).collect()
}

/// A machine with this disk.
fn machine(image: &DiskImage) -> Sim {
    let sim = Sim::new(1);
    sim.restore(image);
    sim
}

/// Has the root manifest name the boot of the machine that the disk will be put
/// into: so mappings count, as after a kill.
fn stay_in_boot(sim: &Sim) {
    let boot = sim.boot_id().expect("a boot");
    let later = machine(&sim.snapshot()).boot_id().expect("a boot");
    let files = files(sim);
    let mut renamed = 0;
    for sealed in seals::find(&files) {
        let mut bytes = files[&sealed.path].clone();
        let at = bytes[sealed.range.clone()].windows(16).position(|window| window == boot);
        if let Some(at) = at {
            let at = sealed.range.start + at;
            bytes[at..at + 16].copy_from_slice(&later);
            sealed.seal(&mut bytes);
            sim.overwrite(&sealed.path, sealed.range.start as u64, &bytes[sealed.range.clone()]);
            renamed += 1;
        }
    }
    assert!(renamed > 0, "there is a mapping");
}

/// A disk that is being damaged.
struct Damage<'a> {
    sim: &'a Sim,
    layout: &'a Layout,
    other: &'a Layout,
    /// Checksums were made right for what was changed.
    is_sealed: bool,
}

impl Damage<'_> {
    fn one(&mut self, reader: &mut ByteReader<'_>) -> Result<(), DecodeError> {
        let [kind, file] = reader.array()?;
        let (at, more) = (reader.u32()? as usize, reader.u16()?);
        let paths = self.sim.paths();
        let Some(path) = paths.get(usize::from(file) % paths.len().max(1)) else { return Ok(()) };
        let mut bytes = self.sim.file_bytes(path).expect("it is listed");
        let len = bytes.len();
        let unit = |number: usize| number % len.div_ceil(UNIT).max(1) * UNIT;
        match kind % 8 {
            // Bytes that cannot be chosen, lest a fuzzer finds those with a
            // right checksum.
            0 if len > 0 => bytes[at % len] ^= mixed(more) | 1,
            1 if len > 0 => {
                let start = at % len;
                let end = len.min(start + usize::from(more) + 1);
                let pattern =
                    |i: usize| [0, 0xff, mixed(more ^ i as u16)][usize::from(kind / 8) % 3];
                (start..end).for_each(|i| bytes[i] = pattern(i));
            }
            2 => bytes.resize(at % (len + 2 * UNIT), 0),
            3 => {
                self.sim.remove_file(path);
                return Ok(());
            }
            // A unit in another place, in the same file or in another.
            4 if len >= UNIT => {
                let source = &paths[usize::from(more) % paths.len()];
                let source = self.sim.file_bytes(source).expect("it is listed");
                let from = at / 256 % (source.len() / UNIT).max(1) * UNIT;
                if let Some(moved) = source.get(from..from + UNIT) {
                    let to = unit(at % 256).min(len - UNIT);
                    bytes[to..to + UNIT].copy_from_slice(moved);
                }
            }
            5 if len >= UNIT => {
                let (a, b) = (unit(at).min(len - UNIT), unit(more.into()).min(len - UNIT));
                let kept = bytes[a..a + UNIT].to_vec();
                bytes.copy_within(b..b + UNIT, a);
                bytes[b..b + UNIT].copy_from_slice(&kept);
            }
            // A file of another database.
            6 => {
                let number = usize::from(more) % self.other.files.len();
                bytes = self.other.files.values().nth(number).cloned().unwrap_or_default();
            }
            7 => return self.sealed(at, more, reader),
            _ => {}
        }
        self.write(path, &bytes);
        Ok(())
    }

    /// Changes what is under a checksum, and the checksum.
    fn sealed(
        &mut self,
        at: usize,
        number: u16,
        reader: &mut ByteReader<'_>,
    ) -> Result<(), DecodeError> {
        let [len] = reader.array()?;
        let new = reader.take(usize::from(len % 16) + 1)?;
        let sealed = &self.layout.sealed[usize::from(number) % self.layout.sealed.len()];
        let Some(mut bytes) = self.sim.file_bytes(&sealed.path) else { return Ok(()) };
        if bytes.len() != self.layout.files[&sealed.path].len() {
            return Ok(());
        }
        let start = sealed.range.start + at % sealed.range.len();
        let end = sealed.range.end.min(start + new.len());
        bytes[start..end].copy_from_slice(&new[..end - start]);
        sealed.seal(&mut bytes);
        self.write(&sealed.path, &bytes);
        self.is_sealed = true;
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        self.sim.truncate(path, bytes.len() as u64);
        self.sim.overwrite(path, 0, bytes);
    }
}

/// A byte that depends on `number` in no simple way.
fn mixed(number: u16) -> u8 {
    let z = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

/// Which database, and what happens to it.
pub(super) fn run(data: &[u8]) {
    let Some((&[number], damages)) = data.split_first_chunk::<1>() else { return };
    let number = usize::from(number) % LAYOUTS;
    let (layout, other) = (layout(number), layout((number + 1) % LAYOUTS));
    let sim = machine(&layout.image);
    let mut damage = Damage { sim: &sim, layout, other, is_sealed: false };
    let mut reader = ByteReader::new(damages);
    for _ in 0..DAMAGES_MAX {
        if damage.one(&mut reader).is_err() {
            break;
        }
    }
    let is_sealed = damage.is_sealed;
    let bytes = files(&sim).values().map(Vec::len).sum();
    within(bytes, 8, MEMORY_BYTES, || use_it(&sim, number, is_sealed));
}

fn use_it(sim: &Sim, number: usize, is_sealed: bool) {
    let written = &layout(number).written;
    let verified = verify(sim, number);
    let db = match Db::open(DIR, options(sim, number)) {
        Ok(db) => db,
        Err(error) => {
            let is_clean = verified.is_ok_and(|verified| verified.faults == 0);
            assert!(is_sealed || !is_clean, "verification finds nothing: {error}");
            return;
        }
    };
    let is_written = |key: &[u8], value: &[u8]| {
        is_sealed || written.get(key).is_some_and(|values| values.contains(value))
    };
    read(&db, written.keys(), &is_written);
    let put = db.put(b"key 07", b"put later").wait();
    let is_written = |key: &[u8], value: &[u8]| is_written(key, value) || value == b"put later";
    let _ = db.flush().wait();
    let _ = db.compact(..).wait();
    read(&db, written.keys(), &is_written);
    let closed = db.close();
    drop(db);
    if let Ok(db) = Db::open(DIR, options(sim, number)) {
        read(&db, written.keys(), &is_written);
        if put.is_ok() && !is_sealed {
            let found = db.get(b"key 07").wait();
            assert!(found.is_err() || found.is_ok_and(|v| v.as_deref() == Some(b"put later")));
        }
        let _ = db.close();
    } else {
        assert!(is_sealed || closed.is_err() || put.is_err(), "a database that was closed");
    }
}

/// Gets each of the keys, and scans both ways.
fn read<'a>(
    db: &Db,
    keys: impl Iterator<Item = &'a Vec<u8>>,
    is_written: &dyn Fn(&[u8], &[u8]) -> bool,
) {
    for key in keys {
        if let Ok(Some(value)) = db.get(key).wait() {
            assert!(is_written(key, &value), "{} never had this", key.escape_ascii());
        }
    }
    for is_reverse in [false, true] {
        let scan = if is_reverse { db.scan(..).reverse() } else { db.scan(..) };
        let mut last: Option<Box<[u8]>> = None;
        for (key, value) in scan.iter().map_while(Result::ok) {
            assert!(is_written(&key, &value), "{} never had this", key.escape_ascii());
            let in_order = |last: &[u8]| if is_reverse { *key < *last } else { *last < *key };
            assert!(last.is_none_or(|last| in_order(&last)), "{}", key.escape_ascii());
            last = Some(key.into_vec().into());
        }
    }
}

fn verify(sim: &Sim, number: usize) -> crate::base::error::Result<Verified> {
    crate::db::verify(DIR, &options(sim, number), |finding| {
        if let Finding::Fault(fault) = finding {
            assert!(!fault.reason().is_empty());
        }
        ControlFlow::Continue(())
    })
}

/// Each database as it is, and one damage of each kind.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let sound = (0..LAYOUTS as u8).map(|number| vec![number]);
    let damaged = (0..8u8).flat_map(|kind| {
        (0..LAYOUTS as u8).map(move |number| {
            let file = kind * 5 + number;
            [&[number, kind, file, 70, 17, 0, 0, file, 0, 3][..], &[1, 0, 2, 0]].concat()
        })
    });
    sound.chain(damaged).collect()
}
