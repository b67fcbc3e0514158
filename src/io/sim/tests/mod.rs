//! What the simulated machine promises, over many seeds.

mod disk;
mod faults;
mod machine;
mod mapping;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use super::{FaultKind, Faults, JUNK, Sim};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::limits::UNIT;
use crate::io::{File, Harden, Io, IoBuf, OpenMode};

const SEEDS: u64 = 200;
const UNIT_64: u64 = UNIT as u64;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn units(byte: u8, count: usize) -> IoBuf {
    let mut buf = IoBuf::zeroed(count * UNIT);
    buf.fill(byte);
    buf
}

fn create(sim: &Sim, name: &str) -> File {
    sim.block_on(sim.open(path(name), OpenMode::CreateNew)).unwrap()
}

fn open(sim: &Sim, name: &str) -> File {
    sim.block_on(sim.open(path(name), OpenMode::ReadWrite)).unwrap()
}

/// A new file whose name is durable.
fn create_durably(sim: &Sim, name: &str) -> File {
    let file = create(sim, name);
    sync_dir(sim, "");
    file
}

fn sync_dir(sim: &Sim, dir: &str) {
    sim.block_on(sim.sync_dir(path(dir))).unwrap();
}

fn sync(sim: &Sim, file: &File) {
    sim.block_on(sim.sync(file)).unwrap();
}

fn write(sim: &Sim, file: &File, unit: u64, buf: IoBuf, harden: Harden) -> Result<()> {
    sim.block_on(sim.write(file, unit * UNIT_64, buf.into(), harden)).1
}

fn put(sim: &Sim, file: &File, unit: u64, byte: u8, harden: Harden) {
    write(sim, file, unit, units(byte, 1), harden).unwrap();
}

/// The different bytes among those of one unit of a file.
fn bytes_of(sim: &Sim, name: &str, unit: usize) -> BTreeSet<u8> {
    let bytes = sim.file_bytes(path(name)).expect("the file exists");
    bytes.into_iter().skip(unit * UNIT).take(UNIT).collect()
}

fn names(sim: &Sim) -> Vec<String> {
    sim.paths().iter().map(|path| path.display().to_string()).collect()
}

fn kind(result: Result<()>) -> ErrorKind {
    result.map_err(|error| error.kind()).unwrap_err()
}

/// Runs a script on a machine of each seed and collects what came out.
fn outcomes<T: Ord>(script: impl Fn(&Sim) -> T) -> BTreeSet<T> {
    (0..SEEDS).map(|seed| script(&Sim::new(seed))).collect()
}

fn set<const N: usize>(bytes: [u8; N]) -> BTreeSet<u8> {
    bytes.into()
}
