//! Regions: frames beyond those that are there to stay, which a cache has while
//! memory is lent to it.
//!
//! They lie behind the lasting frames, by the same number each, and come and go in
//! order: those up to a *limit* are in use like all others. When the limit falls, the
//! frames above it are *parked* once nobody has them: not given out, and collected by
//! region. A region of which all are parked gives its pages back to the kernel. A
//! region is as long as a huge page and aligned like one, so that none is torn.
//!
//! One job raises and lowers the limit; threads only take and free frames.

use std::ops::Range;

use crate::base::limits::UNIT;

use super::frames::{Frames, Pool};

/// Frames of a region, unless the cache has no huge pages.
const FRAMES: u32 = 512;

/// A cache has huge pages if it has so many of them for good: the last one, which may
/// be used in part, would be wasted memory.
const HUGE_PAGES_MIN: u32 = 8;

/// Regions of which blocks are evicted at one time.
const VACATED_AT_ONCE: usize = 4;

/// A smaller cache has so many regions, or fewer.
const REGIONS_SMALL: u32 = 16;

/// The regions of a cache; behind the lock of its pool.
pub(super) struct Regions {
    lasting: u32,
    /// Frames of each.
    frames: u32,
    all: Box<[Region]>,
    /// Those in use: the first ones.
    in_use: u32,
    /// Those that have memory: those in use, and those that are leaving.
    with_memory: u32,
    /// Which of those that are leaving is next to have its blocks evicted.
    turn: u32,
}

#[derive(Default)]
struct Region {
    has_memory: bool,
    /// Only above the limit.
    parked: Vec<u32>,
}

/// Whether a cache with so many lasting frames has huge pages.
pub(super) fn has_huge_pages(lasting: u32) -> bool {
    lasting >= HUGE_PAGES_MIN * FRAMES
}

impl Regions {
    /// Regions of so many frames altogether, or somewhat fewer, behind the lasting ones.
    pub(super) fn new(lasting: u32, frames: u32) -> Self {
        let each = match has_huge_pages(lasting) {
            true => FRAMES,
            false => frames.div_ceil(REGIONS_SMALL).max(1),
        };
        // They come and go by whole pages of the kernel's.
        let is_whole = (each as usize * UNIT).is_multiple_of(rustix::param::page_size());
        let count = if is_whole { frames / each } else { 0 };
        let all = (0..count).map(|_| Region::default()).collect();
        Self { lasting, frames: each, all, in_use: 0, with_memory: 0, turn: 0 }
    }

    /// Of how many lasting frames a cache has that may have so many: a number that
    /// regions are aligned behind.
    pub(super) fn lasting(frames: u32) -> u32 {
        if has_huge_pages(frames) { frames / FRAMES * FRAMES } else { frames }
    }

    /// Frames of all regions.
    pub(super) fn frames(&self) -> u32 {
        self.frames * self.all.len() as u32
    }

    fn limit(&self) -> u32 {
        self.first(self.in_use) - 1
    }

    /// The first frame of a region.
    fn first(&self, region: u32) -> u32 {
        self.lasting + region * self.frames + 1
    }

    /// Takes frames back that nobody has any more: those above the limit are parked.
    pub(super) fn sort_out(&mut self, numbers: impl Iterator<Item = u32>, free: &mut Vec<u32>) {
        let limit = self.limit();
        for number in numbers {
            if number <= limit {
                free.push(number);
            } else {
                let region = (number - self.lasting - 1) / self.frames;
                self.all[region as usize].parked.push(number);
            }
        }
    }

    /// Of the region that would be in use next: its first frame, and whether it still
    /// has memory.
    fn next(&self) -> Option<(u32, bool)> {
        let next = self.all.get(self.in_use as usize)?;
        Some((self.first(self.in_use), next.has_memory))
    }

    /// The next region is in use: its frames that nobody has are free.
    fn raise(&mut self, free: &mut Vec<u32>) {
        let (first, frames) = (self.first(self.in_use), self.frames);
        let next = &mut self.all[self.in_use as usize];
        if next.has_memory {
            free.append(&mut next.parked);
        } else {
            // Low numbers are given out first, as everywhere.
            free.extend((first..first + frames).rev());
            next.has_memory = true;
            self.with_memory += 1;
        }
        self.in_use += 1;
    }

    /// So many of the last regions that are in use are not any more, or all that are;
    /// how many.
    fn lower(&mut self, count: u32, free: &mut Vec<u32>) -> u32 {
        let count = count.min(self.in_use);
        self.in_use -= count;
        let (limit, lasting, frames) = (self.limit(), self.lasting, self.frames);
        for region in self.all.iter_mut().skip(self.in_use as usize).take(count as usize) {
            // Frames come back where a panic unwinds, too: no allocation then.
            region.parked.reserve_exact(frames as usize);
        }
        let all = &mut self.all;
        free.retain(|&number| {
            if number > limit {
                all[((number - lasting - 1) / frames) as usize].parked.push(number);
            }
            number <= limit
        });
        count
    }

    /// Whether some that are not in use have memory.
    fn are_leaving(&self) -> bool {
        self.with_memory > self.in_use
    }

    /// Those that are leaving.
    fn leaving(&self) -> impl Iterator<Item = u32> + '_ {
        let all = self.in_use..self.all.len() as u32;
        let all = all.take_while(|_| self.are_leaving());
        all.filter(|&region| self.all[region as usize].has_memory)
    }

    /// The frames of some of those that are leaving and have not all of them parked;
    /// others at each call.
    fn next_to_vacate(&mut self) -> Vec<Range<u32>> {
        let turn = self.turn;
        let frames = self.frames as usize;
        let is_used = |&region: &u32| self.all[region as usize].parked.len() < frames;
        let (before, mut regions): (Vec<u32>, Vec<u32>) =
            self.leaving().filter(is_used).partition(|&region| region < turn);
        regions.extend(before);
        regions.truncate(VACATED_AT_ONCE);
        self.turn = regions.last().map_or(0, |last| last + 1);
        regions.into_iter().map(|region| self.first(region)..self.first(region + 1)).collect()
    }
}

impl Frames {
    /// Frames of a region.
    pub(super) fn region_frames(&self) -> u32 {
        self.pool().regions.frames
    }

    /// Frames of all regions.
    pub(super) fn regions_frames(&self) -> u32 {
        self.pool().regions.frames()
    }

    /// Frames that are in use: those that stay, and those of regions.
    pub(super) fn limit(&self) -> u32 {
        self.pool().regions.limit()
    }

    /// Frames of regions that have memory.
    pub(super) fn lent(&self) -> u32 {
        let pool = self.pool();
        pool.regions.frames * pool.regions.with_memory
    }

    /// One region more is in use, with its memory; nothing, if all are.
    ///
    /// This and the functions below are for one caller at a time.
    pub(super) fn raise(&self) -> bool {
        let (next, frames) = {
            let pool = self.pool();
            (pool.regions.next(), pool.regions.frames)
        };
        let Some((first, has_memory)) = next else { return false };
        if !has_memory {
            // Before anybody has to wait for it, and not under the lock.
            self.populate(first, frames as usize);
        }
        let Pool { free, regions, .. } = &mut *self.pool();
        regions.raise(free);
        true
    }

    /// So many regions less are in use, or none is; how many. Their frames go on being
    /// used by whoever has them.
    pub(super) fn lower(&self, count: u32) -> u32 {
        let Pool { free, regions, .. } = &mut *self.pool();
        regions.lower(count, free)
    }

    /// Frames of some of the regions that are not in use any more, which somebody
    /// still has.
    pub(super) fn next_to_vacate(&self) -> Vec<Range<u32>> {
        self.pool().regions.next_to_vacate()
    }

    /// Gives the memory of regions back whose frames are all parked.
    pub(super) fn give_back(&self) {
        self.reclaim_now();
        let parked: Vec<(u32, u32)> = {
            let regions = &self.pool().regions;
            let is_parked =
                |region: u32| regions.all[region as usize].parked.len() == regions.frames as usize;
            let parked = regions.leaving().filter(|&region| is_parked(region));
            parked.map(|region| (region, regions.first(region))).collect()
        };
        let frames = self.region_frames();
        for (region, first) in parked {
            if let Err(error) = self.strip(first, frames as usize) {
                // As where all memory of the process is locked, also what it does
                // not use.
                tracing::info!(%error, "memory of the block cache stays with the process");
            }
            let regions = &mut self.pool().regions;
            regions.all[region as usize] = Region::default();
            regions.with_memory -= 1;
        }
    }

    /// Whether regions that are not in use have memory.
    pub(super) fn are_leaving(&self) -> bool {
        self.pool().regions.are_leaving()
    }
}
