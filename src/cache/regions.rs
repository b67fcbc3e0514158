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

use super::frames::{Frames, Pool};

/// Frames of a region, unless the cache is so small that it has no huge pages.
const FRAMES: u32 = 512;

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
}

#[derive(Default)]
struct Region {
    has_memory: bool,
    /// Only above the limit.
    parked: Vec<u32>,
}

impl Regions {
    /// Regions of so many frames altogether, or somewhat fewer, behind the lasting ones.
    pub(super) fn new(lasting: u32, frames: u32) -> Self {
        let is_small = !lasting.is_multiple_of(FRAMES);
        let each = if is_small { frames.div_ceil(REGIONS_SMALL).max(1) } else { FRAMES };
        let all = (0..frames / each).map(|_| Region::default()).collect();
        Self { lasting, frames: each, all, in_use: 0 }
    }

    /// Of how many lasting frames a cache has that may have so many: a number that
    /// regions are aligned behind.
    pub(super) fn lasting(frames: u32) -> u32 {
        if frames < 8 * FRAMES { frames } else { frames / FRAMES * FRAMES }
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
        }
        self.in_use += 1;
    }

    /// The last region that is in use is not any more; nothing, if there is none.
    fn lower(&mut self, free: &mut Vec<u32>) -> bool {
        let Some(region) = self.in_use.checked_sub(1) else { return false };
        self.in_use = region;
        let limit = self.limit();
        let parked = &mut self.all[region as usize].parked;
        // Frames come back where a panic unwinds, too: no allocation then.
        parked.reserve_exact(self.frames as usize);
        free.retain(|&number| {
            let stays = number <= limit;
            if !stays {
                parked.push(number);
            }
            stays
        });
        true
    }

    /// Regions above the limit that have memory, and whether all of their frames are
    /// parked.
    fn leaving(&self) -> impl Iterator<Item = (u32, bool)> + '_ {
        let above = self.all.iter().enumerate().skip(self.in_use as usize);
        above
            .filter(|(_, region)| region.has_memory)
            .map(|(number, region)| (number as u32, region.parked.len() == self.frames as usize))
    }
}

impl Frames {
    /// Bytes of a region.
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
        let count = pool.regions.all.iter().filter(|region| region.has_memory).count();
        pool.regions.frames * count as u32
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

    /// One region less is in use; nothing, if none is. Its frames go on being used by
    /// whoever has them.
    pub(super) fn lower(&self) -> bool {
        let Pool { free, regions, .. } = &mut *self.pool();
        regions.lower(free)
    }

    /// The frames of regions that are not in use any more, and still have memory.
    pub(super) fn leaving(&self) -> Vec<std::ops::Range<u32>> {
        let pool = self.pool();
        let regions = &pool.regions;
        let frames = |(region, _)| regions.first(region)..regions.first(region + 1);
        regions.leaving().map(frames).collect()
    }

    /// Gives the memory of regions back whose frames are all parked. Whether there are
    /// others of which it will have to be given back.
    pub(super) fn give_back(&self) -> bool {
        self.reclaim_now();
        loop {
            let (region, first, frames) = {
                let pool = self.pool();
                let mut leaving = pool.regions.leaving();
                let Some((region, _)) = leaving.find(|&(_, is_parked)| is_parked) else {
                    return pool.regions.leaving().next().is_some();
                };
                (region, pool.regions.first(region), pool.regions.frames)
            };
            if let Err(error) = self.strip(first, frames as usize) {
                // As where all memory of the process is locked, also what it does
                // not use.
                tracing::info!(%error, "memory of the block cache stays with the process");
            }
            self.pool().regions.all[region as usize] = Region::default();
        }
    }
}
