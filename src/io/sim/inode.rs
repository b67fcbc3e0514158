//! One simulated file: what survives, what may survive, what the process sees.
//!
//! Owns the three of them: the durable content, the completed writes that are
//! not durable yet, in order, and the current content, which is what reads
//! return. Tearing happens between sectors of [`SECTOR`] bytes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::rng::Rng;
use crate::base::limits::UNIT;
use crate::io::mapping::SimMemory;

/// The bytes a device writes wholly or not at all.
pub(super) const SECTOR: usize = 512;

const _: () = assert!(UNIT.is_multiple_of(SECTOR));

/// Bytes of a file in pages that clones share until one of them writes. A page
/// nobody wrote reads as zeroes.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<[u8; UNIT]>>>,
    len: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Copies from `offset` on, up to the end of the file; how many bytes.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let readable = self.len.saturating_sub(offset).min(out.len() as u64) as usize;
        for (page, within, part) in pieces(offset, readable) {
            let out = &mut out[part];
            match self.pages.get(page) {
                Some(Some(bytes)) => out.copy_from_slice(&bytes[within..within + out.len()]),
                _ => out.fill(0),
            }
        }
        readable
    }

    /// Puts the bytes there. The length stays: see [`Content::set_len`].
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let pages = (offset + bytes.len() as u64).div_ceil(UNIT as u64) as usize;
        if self.pages.len() < pages {
            self.pages.resize(pages, None);
        }
        for (page, within, part) in pieces(offset, bytes.len()) {
            let bytes = &bytes[part];
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; UNIT]));
            Arc::make_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Cuts the file, or extends it by what was written beyond its end, and
    /// zeroes.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        let pages = len.div_ceil(UNIT as u64) as usize;
        self.pages.truncate(pages);
        let tail = (len % UNIT as u64) as usize;
        if tail > 0
            && let Some(Some(page)) = self.pages.get_mut(pages - 1)
        {
            Arc::make_mut(page)[tail..].fill(0);
        }
    }

    pub(super) fn extend_to(&mut self, len: u64) {
        if len > self.len {
            self.set_len(len);
        }
    }
}

/// Splits `len` bytes from `offset` at pages: page, offset within it, and the
/// part of the whole.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % UNIT as u64) as usize;
        let part = done..len.min(done + UNIT - within);
        done = part.end;
        Some(((at / UNIT as u64) as usize, within, part))
    })
}

/// Which sectors of a write reach the disk.
#[derive(Clone)]
pub(super) enum Reach {
    All,
    /// Sector by sector.
    Some(Vec<bool>),
}

impl Reach {
    /// A random part of a write of `len` bytes: none, all, the first or the
    /// last sectors, or any of them.
    pub(super) fn random(rng: &mut Rng, len: usize) -> Self {
        let sectors = len.div_ceil(SECTOR);
        match rng.below(3) {
            0 => Self::Some(vec![false; sectors]),
            1 => Self::All,
            _ => {
                let border = rng.index(sectors + 1);
                let shape = rng.below(3);
                let reaches = |sector| match shape {
                    0 => sector < border,
                    1 => sector >= border,
                    _ => rng.flip(),
                };
                Self::Some((0..sectors).map(reaches).collect())
            }
        }
    }

    fn reaches(&self, sector: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(sectors) => sectors[sector],
        }
    }
}

/// A completed write, or what reached the disk of one that failed.
#[derive(Clone)]
pub(super) struct Written {
    /// Its place in the order of everything that completed.
    pub(super) seq: u64,
    pub(super) offset: u64,
    pub(super) data: Arc<[u8]>,
    pub(super) reach: Reach,
}

impl Written {
    /// The parts that reach the disk, as offsets within the data. The whole at
    /// once, if it is whole.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let len = self.data.len();
        let step = if matches!(self.reach, Reach::All) { len } else { SECTOR };
        (0..len)
            .step_by(step.max(1))
            .filter(|start| self.reach.reaches(start / SECTOR))
            .map(move |start| start..len.min(start + step))
    }

    fn apply(&self, content: &mut Content) {
        for part in self.parts() {
            content.write(self.offset + part.start as u64, &self.data[part]);
        }
    }

    /// The end of the last part that reaches the disk.
    fn end(&self) -> Option<u64> {
        self.parts().last().map(|part| self.offset + part.end as u64)
    }

    /// Forgets the sectors that `newer` has written since.
    fn lose_to(&mut self, newer: &Self) {
        let sectors = self.data.len().div_ceil(SECTOR);
        for part in newer.parts() {
            let start = newer.offset + part.start as u64;
            let end = newer.offset + part.end as u64;
            if end <= self.offset || start >= self.offset + self.data.len() as u64 {
                continue;
            }
            let first = (start.saturating_sub(self.offset) / SECTOR as u64) as usize;
            let last = ((end - self.offset).div_ceil(SECTOR as u64) as usize).min(sectors);
            if matches!(self.reach, Reach::All) {
                self.reach = Reach::Some(vec![true; sectors]);
            }
            if let Reach::Some(reach) = &mut self.reach {
                reach[first..last].fill(false);
            }
        }
    }
}

/// How much of what is pending a power cut keeps.
#[derive(Clone, Copy)]
pub(super) enum Survival {
    /// The device had written everything anyway.
    Everything,
    /// Nothing but what was made durable.
    Nothing,
    /// Each piece on its own.
    Mixed,
}

impl Survival {
    pub(super) fn random(rng: &mut Rng) -> Self {
        match rng.below(8) {
            0 => Self::Everything,
            1 => Self::Nothing,
            _ => Self::Mixed,
        }
    }

    /// Whether something that cannot be torn survives.
    pub(super) fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::Mixed => rng.flip(),
        }
    }

    fn narrow(self, write: &mut Written, rng: &mut Rng) {
        let drawn = match self {
            Self::Everything => return,
            Self::Nothing => Reach::Some(vec![false; write.data.len().div_ceil(SECTOR)]),
            Self::Mixed => Reach::random(rng, write.data.len()),
        };
        match (&mut write.reach, drawn) {
            (_, Reach::All) => {}
            (reach @ Reach::All, drawn) => *reach = drawn,
            (Reach::Some(reach), Reach::Some(drawn)) => {
                for (reach, drawn) in reach.iter_mut().zip(drawn) {
                    *reach &= drawn;
                }
            }
        }
    }
}

/// A write, or a cut, that is not durable.
#[derive(Clone)]
struct Pending {
    /// Of nothing, for a cut.
    write: Written,
    /// Metadata of its own, kept or lost apart from the bytes.
    length: Option<Length>,
    /// Kept or lost as a whole, as pages of a mapping are.
    whole: bool,
}

/// What became of the length of a file.
#[derive(Clone, Copy)]
enum Length {
    ExtendedTo(u64),
    CutTo(u64),
}

impl Length {
    fn apply(self, content: &mut Content) {
        match self {
            Self::ExtendedTo(len) => content.extend_to(len),
            Self::CutTo(len) => content.set_len(content.len().min(len)),
        }
    }
}

/// A file of the simulated disk.
#[derive(Clone, Default)]
pub(super) struct Inode {
    current: Content,
    durable: Content,
    /// In the order of `seq`.
    pending: Vec<Pending>,
    /// Pages that were given back and not written since.
    holes: BTreeSet<u64>,
}

impl Inode {
    /// What the process sees.
    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    /// Bytes that the file takes on the disk.
    pub(super) fn bytes_used(&self) -> u64 {
        self.current.len().saturating_sub(self.holes.len() as u64 * UNIT as u64)
    }

    /// Bytes of the disk that a write takes: behind the end of the file, and
    /// where there are holes.
    pub(super) fn bytes_needed(&self, offset: u64, bytes: usize) -> u64 {
        let end = offset + bytes as u64;
        let pages = offset / UNIT as u64..end.div_ceil(UNIT as u64);
        let holes = self.holes.range(pages).count();
        holes as u64 * UNIT as u64 + end.saturating_sub(offset.max(self.current.len()))
    }

    /// Gives pages back. It may or may not be durable, page by page, as if
    /// zeroes had been written.
    pub(super) fn punch(&mut self, seq: u64, offset: u64, bytes: u64) {
        let end = (offset + bytes).min(self.current.len());
        if offset >= end {
            return;
        }
        let data = vec![0; (end - offset) as usize].into();
        self.write(Written { seq, offset, data, reach: Reach::All });
        self.holes.extend(offset / UNIT as u64..end / UNIT as u64);
    }

    /// Cuts the file.
    pub(super) fn cut(&mut self, seq: u64, bytes: u64) {
        assert!(bytes <= self.current.len(), "a cut does not extend a file");
        self.current.set_len(bytes);
        self.holes.split_off(&bytes.div_ceil(UNIT as u64));
        let write = Written { seq, offset: bytes, data: Arc::new([]), reach: Reach::All };
        let length = Some(Length::CutTo(bytes));
        self.pending.push(Pending { write, length, whole: false });
    }

    /// Before a write: it fills holes, and leaves one behind the end if it starts
    /// beyond that.
    fn fill_holes(&mut self, offset: u64, bytes: usize) {
        self.holes.extend(self.current.len().div_ceil(UNIT as u64)..offset / UNIT as u64);
        if !self.holes.is_empty() {
            let pages = offset / UNIT as u64..(offset + bytes as u64).div_ceil(UNIT as u64);
            self.holes.retain(|page| !pages.contains(page));
        }
    }

    /// A write completes and stays pending.
    pub(super) fn write(&mut self, write: Written) {
        self.fill_holes(write.offset, write.data.len());
        write.apply(&mut self.current);
        let end = write.end();
        let extended = end.filter(|&end| end > self.current.len());
        let length = extended.map(Length::ExtendedTo);
        if let Some(length) = length {
            length.apply(&mut self.current);
        }
        if end.is_some() {
            self.pending.push(Pending { write, length, whole: false });
        }
    }

    /// The pages of the file's mapping that are not what the process last saw.
    pub(super) fn changed_pages(&self, memory: &SimMemory) -> Vec<(u64, Arc<[u8; UNIT]>)> {
        assert_eq!(self.current.len(), memory.len() as u64, "a mapped file keeps its length");
        let pages = memory.len() / UNIT;
        let (mut stored, mut seen) = ([0; UNIT], [0; UNIT]);
        let mut changed = Vec::new();
        for page in 0..pages {
            memory.read(page * UNIT, &mut stored);
            self.current.read((page * UNIT) as u64, &mut seen);
            if stored != seen {
                changed.push((page as u64, Arc::new(stored)));
            }
        }
        changed
    }

    /// A page of the file's mapping was stored into.
    pub(super) fn store_page(&mut self, seq: u64, page: u64, data: Arc<[u8; UNIT]>) {
        let write = Written { seq, offset: page * UNIT as u64, data, reach: Reach::All };
        write.apply(&mut self.current);
        self.pending.push(Pending { write, length: None, whole: true });
    }

    /// A write completes and is durable: its own bytes, and a length that
    /// covers them, but nothing that was pending before.
    pub(super) fn write_through(&mut self, write: &Written) {
        let end = write.end().unwrap_or_default();
        self.fill_holes(write.offset, write.data.len());
        write.apply(&mut self.current);
        self.current.extend_to(end);
        self.harden(write, Some(Length::ExtendedTo(end)));
    }

    fn harden(&mut self, write: &Written, length: Option<Length>) {
        // The device has the newer bytes: it never writes the older over them.
        for older in &mut self.pending {
            if older.write.seq < write.seq {
                older.write.lose_to(write);
            }
        }
        if let Some(length) = length {
            length.apply(&mut self.durable);
        }
        write.apply(&mut self.durable);
    }

    /// A sync completes that was submitted when `stamp` was the newest
    /// sequence number.
    pub(super) fn sync(&mut self, stamp: u64) {
        for older in self.take_up_to(stamp) {
            if let Some(length) = older.length {
                length.apply(&mut self.durable);
            }
            older.write.apply(&mut self.durable);
        }
    }

    /// A sync fails. Each write it covered is durable by now, or still
    /// pending, or lost for good although the process still sees it: a second
    /// sync would succeed and make nothing of it durable.
    pub(super) fn fail_sync(&mut self, stamp: u64, rng: &mut Rng) {
        let newer = self.pending.split_off(self.covered(stamp));
        for older in std::mem::take(&mut self.pending) {
            match rng.below(3) {
                0 => self.harden(&older.write, older.length),
                1 => self.pending.push(older),
                _ => {}
            }
        }
        self.pending.extend(newer);
    }

    fn covered(&self, stamp: u64) -> usize {
        self.pending.partition_point(|p| p.write.seq <= stamp)
    }

    fn take_up_to(&mut self, stamp: u64) -> Vec<Pending> {
        let newer = self.pending.split_off(self.covered(stamp));
        std::mem::replace(&mut self.pending, newer)
    }

    /// The power goes: any subset of what is pending becomes durable.
    pub(super) fn power_cut(&mut self, survival: Survival, rng: &mut Rng) {
        self.holes.clear();
        let mut len = self.durable.len();
        for mut pending in std::mem::take(&mut self.pending) {
            if !pending.whole {
                survival.narrow(&mut pending.write, rng);
            } else if !survival.keeps(rng) {
                continue;
            }
            pending.write.apply(&mut self.durable);
            match pending.length {
                Some(Length::ExtendedTo(extended)) if survival.keeps(rng) => {
                    len = len.max(extended);
                }
                Some(Length::CutTo(cut)) if survival.keeps(rng) => {
                    len = len.min(cut);
                    self.durable.set_len(len);
                }
                _ => {}
            }
        }
        self.durable.set_len(len);
        self.current = self.durable.clone();
    }

    /// Damage: puts bytes there behind everybody's back, durably.
    pub(super) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        self.sync(u64::MAX);
        self.current.write(offset, bytes);
        self.durable = self.current.clone();
    }

    /// Damage: flips bits of a byte, if there is one there.
    pub(super) fn rot(&mut self, offset: u64, bits: u8) {
        for content in [&mut self.current, &mut self.durable] {
            if offset < content.len() {
                let mut byte = [0];
                content.read(offset, &mut byte);
                content.write(offset, &[byte[0] ^ bits]);
            }
        }
    }

    /// Damage: cuts or extends the file, durably.
    pub(super) fn damage_len(&mut self, len: u64) {
        self.sync(u64::MAX);
        self.current.set_len(len);
        self.durable = self.current.clone();
    }
}
