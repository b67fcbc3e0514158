//! Small databases to damage, which differ in what is in their files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ourodb::sim::{DiskImage, Sim};
use ourodb::{Compaction, Compression, Db, Durability, Finding, IoBackend, Options};

use super::blocks::{Blocks, blocks};
use super::extents::{Extents, extents};
use crate::fail::{DIR, Play, Played, Stop, Variant};

/// The seed of the machines that make images, and of those they are put into.
const SEED: u64 = 1;

/// Keys of each, some of which are never there.
pub(crate) const KEYS: usize = 14;
const LONG: usize = 66_000;

/// All keys and values.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// How the process that made it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    /// The machine went on: what is in mappings only counts.
    Killed,
    PowerCut,
}

pub(crate) struct Layout {
    pub(crate) name: &'static str,
    options: fn() -> Options,
    make: fn(&mut Play) -> Played,
    end: End,
}

pub(crate) const LAYOUTS: [Layout; 10] = [
    Layout { name: "killed", options: tiny, make: sessions, end: End::Killed },
    Layout { name: "closed", options: tiny, make: tables, end: End::Closed },
    Layout { name: "power-cut", options: tiny, make: sessions, end: End::PowerCut },
    Layout { name: "compressed", options: compressed, make: tables, end: End::Closed },
    Layout { name: "partitioned", options: partitioned, make: tables, end: End::Closed },
    Layout { name: "ranges", options: tiny, make: ranges, end: End::Killed },
    Layout { name: "values", options: tiny, make: values, end: End::Closed },
    Layout { name: "many-tables", options: tiered, make: many_tables, end: End::Closed },
    Layout { name: "shards", options: shards, make: sessions, end: End::Killed },
    Layout { name: "recycled", options: tiny, make: recycled, end: End::PowerCut },
];

/// One shard, and segments of 8 KiB.
fn tiny() -> Options {
    Options::default()
        .shards(1)
        .memory(4 << 20)
        .memtable_bytes(16 << 10)
        .wal_segment_bytes(8 << 10)
        .cache_bytes(48 << 10)
}

fn compressed() -> Options {
    tiny().compression(Compression::Lz4)
}

fn partitioned() -> Options {
    tiny().pinned_bytes(0).cache_bytes(0)
}

fn tiered() -> Options {
    tiny().compaction(Compaction::Tiered)
}

/// Two logs, their mappings in a directory of their own.
fn shards() -> Options {
    tiny().shards(2).map_dir("/")
}

/// A session that was closed, whose log is still needed, and another one.
fn sessions(play: &mut Play) -> Played {
    tables(play)?;
    play.put(8, 200)?;
    play.put(13, LONG)?;
    play.close()?;
    play.open(2)?;
    play.put(9, 150)?;
    play.durability = Durability::ProcessSafe;
    for key in 0..KEYS {
        play.put(key, 20)?;
    }
    // Then there is a mapping of each log.
    play.rest(50_000_000);
    play.put(10, 300)?;
    play.put(11, 120)
}

/// Two tables, one of several blocks, and a little log.
fn tables(play: &mut Play) -> Played {
    play.open(1)?;
    for key in 0..8 {
        play.put(key, 700 + key * 60)?;
    }
    play.flush()?;
    play.put(3, 300)?;
    play.delete(5)?;
    play.put(12, 40)?;
    play.flush()?;
    play.put(6, 80)?;
    play.write(&[(1, Some(30)), (2, None)])
}

fn ranges(play: &mut Play) -> Played {
    play.open(1)?;
    for key in 0..10 {
        play.put(key, 500)?;
    }
    play.delete_range(2..4)?;
    play.flush()?;
    play.put(3, 100)?;
    play.delete_range(5..8)?;
    play.put(6, 100)?;
    play.flush()?;
    play.delete_range(8..9)
}

fn values(play: &mut Play) -> Played {
    play.open(1)?;
    for key in 0..5 {
        play.put(key, 300)?;
    }
    play.put(5, LONG)?;
    play.flush()?;
    play.put(6, LONG + 100)
}

fn many_tables(play: &mut Play) -> Played {
    play.open(1)?;
    for key in 0..7 {
        play.put(key, 200)?;
        play.put(key + 6, 100)?;
        play.flush()?;
    }
    play.put(13, 60)
}

/// Segments that were used again.
fn recycled(play: &mut Play) -> Played {
    play.open(1)?;
    for i in 0..18 {
        play.put(i % KEYS, 1200)?;
        if i % 6 == 5 {
            play.flush()?;
            play.rest(100_000_000);
        }
    }
    play.put(1, 500)
}

/// A database on a disk, and what it holds.
pub(crate) struct Image {
    pub(crate) options: Options,
    disk: DiskImage,
    /// It is in the machine that it was made on.
    is_same_boot: bool,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What stood in files at an earlier moment.
    older: BTreeMap<PathBuf, Vec<u8>>,
    /// What may be found where nothing tells of damage; the last one is all there is.
    pub(crate) states: Vec<Rows>,
    /// What may be found where a mapping has lost its watermark: that is less, as nothing
    /// else tells of what it held.
    pub(crate) without_mapping: Vec<Rows>,
    /// Files that nothing needs.
    pub(crate) unneeded: BTreeSet<PathBuf>,
    pub(crate) blocks: Blocks,
    pub(crate) extents: Extents,
}

impl Image {
    pub(crate) fn make(layout: &Layout) -> Result<Self, String> {
        let sim = Sim::new(SEED);
        let names = (0..KEYS).map(name).collect();
        let mut play = Play::new(sim.clone(), names, (layout.options)(), Variant::default());
        let mut make = || {
            (layout.make)(&mut play)?;
            let older = files(&sim);
            let mut states = vec![rows(&play)?];
            match layout.end {
                End::Closed => play.close()?,
                End::Killed | End::PowerCut => {
                    // An idle log has a mark: all up to here is known to be durable.
                    play.rest(2_000_000_000);
                    play.durability = match layout.end {
                        End::Killed => Durability::ProcessSafe,
                        _ => Durability::Durable,
                    };
                    for key in 0..3 {
                        play.put(key * 4, 90)?;
                        states.push(rows(&play)?);
                    }
                }
            }
            Ok::<_, Stop>((older, states))
        };
        let (older, mut states) = make().map_err(|stop| match stop {
            Stop::Wrong(wrong) => wrong,
            Stop::Refused => "it does not open".to_owned(),
        })?;
        match layout.end {
            End::Closed => {}
            End::Killed => play.kill(),
            End::PowerCut => play.power_cut(),
        }
        // Each record says what was durable before it, so that only the last one may count
        // as torn; and of a mapping the watermark tells.
        let kept = if layout.end == End::PowerCut { 2 } else { 1 };
        let without_mapping: Vec<Rows> = states.drain(..states.len() - kept).collect();
        let mut image = Self {
            options: (layout.options)(),
            disk: sim.snapshot(),
            is_same_boot: layout.end == End::Killed,
            files: files(&sim),
            older,
            states,
            without_mapping,
            unneeded: BTreeSet::new(),
            blocks: Blocks::default(),
            extents: Extents::default(),
        };
        drop(play);
        sim.kill();
        image.look()?;
        Ok(image)
    }

    /// Sees to it that the image is sound, and learns what is where.
    fn look(&mut self) -> Result<(), String> {
        let sim = self.machine();
        let options = self.options_on(&sim);
        let mut faults = Vec::new();
        let verified = ourodb::verify(DIR, &options, |finding| {
            match finding {
                Finding::Fault(fault) => faults.push(fault.to_string()),
                Finding::Orphan(path) => drop(self.unneeded.insert(path.to_owned())),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        verified.map_err(|error| error.to_string())?;
        if let Some(fault) = faults.first() {
            return Err(format!("it is not sound: {fault}"));
        }
        self.blocks = blocks(&options, self.files.keys())?;
        self.extents = extents(&options, &self.files, &self.blocks)?;
        sim.kill();
        Ok(())
    }

    /// A machine with the image on its disk.
    pub(crate) fn machine(&self) -> Sim {
        let sim = Sim::new(SEED);
        match self.is_same_boot {
            true => sim.rewind(&self.disk),
            false => sim.restore(&self.disk),
        }
        sim
    }

    pub(crate) fn options_on(&self, sim: &Sim) -> Options {
        self.options.clone().owners(1).io(IoBackend::Sim(sim.clone()))
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }

    pub(crate) fn bytes(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path).map(|bytes| &bytes[..])
    }

    /// How many mappings of the log there are.
    pub(crate) fn mappings(&self) -> usize {
        self.paths().filter(|path| kind(path) == "map").count()
    }

    /// Other files of the same kind.
    pub(crate) fn alike(&self, path: &Path) -> Vec<&Path> {
        let others = self.files.keys().filter(|other| *other != path);
        others.filter(|other| kind(other) == kind(path)).map(PathBuf::as_path).collect()
    }

    /// What may stand in a file that was not written: what it held earlier, or else
    /// what another one of its kind holds, or else what it holds one unit further.
    pub(crate) fn stale(&self, path: &Path) -> Vec<u8> {
        let sound = self.bytes(path).unwrap_or_default();
        let older = self.older.get(path).filter(|older| older[..] != *sound);
        let other = || self.alike(path).first().and_then(|other| self.bytes(other));
        let shifted = || sound.get(super::harm::UNIT..).unwrap_or_default();
        match older {
            Some(older) => older.clone(),
            None => other().unwrap_or_else(shifted).to_vec(),
        }
    }

    pub(crate) fn newest(&self) -> &Rows {
        self.states.last().expect("an image holds something")
    }
}

pub(crate) fn name(key: usize) -> Vec<u8> {
    format!("key-{key:02}").into_bytes()
}

/// What a file is: what its name begins or ends with.
pub(crate) fn kind(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.rsplit_once('.') {
        Some((_, suffix)) => suffix,
        None => name.split('-').next().unwrap_or(name),
    }
}

fn files(sim: &Sim) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = sim.paths().into_iter();
    paths.filter_map(|path| sim.file_bytes(&path).map(|bytes| (path, bytes))).collect()
}

fn rows(play: &Play) -> Result<Rows, String> {
    play.db.as_ref().map_or_else(|| Err("it is closed".to_owned()), read)
}

/// All rows of a database that is sound.
fn read(db: &Db) -> Result<Rows, String> {
    let rows = db.scan(..).iter().map(|row| row.map(|(k, v)| (k.into_vec(), v.into_vec())));
    rows.collect::<Result<Rows, _>>().map_err(|error| error.to_string())
}
