//! What may go wrong on the simulated machine, and the decision whether it
//! does.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::rng::Rng;

/// How often one request may be refused with `EAGAIN`; then the machine gives
/// way.
const REFUSALS_MAX: u32 = 8;

/// So many of the faults of a run are remembered.
const REMEMBERED_MAX: usize = 1000;

/// A way in which a request of the simulated machine goes wrong.
///
/// ```
/// use ourodb::sim::{FaultKind, Faults};
/// let full_disk = Faults::default().fail_kth(1, FaultKind::NoSpace, true);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A read or write moves fewer bytes than asked for. The engine never
    /// sees it: its I/O goes on with the rest.
    Short,
    /// A read or write is refused for now (`EAGAIN`), or interrupted (`EINTR`). The
    /// engine never sees it: its I/O tries again.
    Again,
    /// The device fails the request (`EIO`).
    Io,
    /// No space is left (`ENOSPC`) for a new file or directory, for a write that
    /// extends a file, for mapping one, or for what another change of a directory
    /// takes.
    NoSpace,
    /// A sync finds no space (`ENOSPC`) for what it is to bring to the disk, whose
    /// place some file systems choose only then. What becomes of that nobody knows,
    /// as with [`FaultKind::Io`].
    SyncNoSpace,
}

/// What may go wrong from now on; by default, nothing.
///
/// Chances are given per million requests that the fault can befall.
///
/// ```
/// use ourodb::sim::{FaultKind, Faults, Sim};
/// let sim = Sim::new(7);
/// sim.set_faults(Faults::default().delay_ns(0..=2_000_000).reorder(true).short_ppm(10_000));
/// sim.set_faults(Faults::default().fail_kth(3, FaultKind::NoSpace, false));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults {
    delay_ns: Option<RangeInclusive<u64>>,
    reorder: bool,
    short_ppm: u32,
    again_ppm: u32,
    read_error_ppm: u32,
    write_error_ppm: u32,
    no_space_ppm: u32,
    sync_no_space_ppm: u32,
    disk_bytes_max: Option<u64>,
    fail_kth: Vec<FailKth>,
    rot_ppm: u32,
    lost_write_ppm: u32,
    misdirected_write_ppm: u32,
    damage_only: Option<&'static [&'static str]>,
}

#[derive(Clone, Copy, Debug)]
struct FailKth {
    k: u64,
    kind: FaultKind,
    for_ever: bool,
}

impl Faults {
    /// Each request takes this much longer, drawn anew for each.
    ///
    /// ```
    /// let slow = ourodb::sim::Faults::default().delay_ns(0..=1_000_000);
    /// ```
    #[must_use]
    pub fn delay_ns(mut self, range: RangeInclusive<u64>) -> Self {
        assert!(!range.is_empty(), "a range of delays that holds no delay");
        self.delay_ns = Some(range);
        self
    }

    /// Requests in flight complete in random order.
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().reorder(true);
    /// ```
    #[must_use]
    pub fn reorder(mut self, on: bool) -> Self {
        self.reorder = on;
        self
    }

    /// Chance that a read or write is [`FaultKind::Short`].
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().short_ppm(10_000);
    /// ```
    #[must_use]
    pub fn short_ppm(mut self, per_million: u32) -> Self {
        self.short_ppm = per_million;
        self
    }

    /// Chance that a read or write meets [`FaultKind::Again`].
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().again_ppm(10_000);
    /// ```
    #[must_use]
    pub fn again_ppm(mut self, per_million: u32) -> Self {
        self.again_ppm = per_million;
        self
    }

    /// Chance that a read fails with [`FaultKind::Io`].
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().read_error_ppm(100);
    /// ```
    #[must_use]
    pub fn read_error_ppm(mut self, per_million: u32) -> Self {
        self.read_error_ppm = per_million;
        self
    }

    /// Chance that a write, a sync, a change of a directory, or mapping a file
    /// fails with [`FaultKind::Io`].
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().write_error_ppm(100);
    /// ```
    #[must_use]
    pub fn write_error_ppm(mut self, per_million: u32) -> Self {
        self.write_error_ppm = per_million;
        self
    }

    /// Chance that what [`FaultKind::NoSpace`] can befall meets it.
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().no_space_ppm(100);
    /// ```
    #[must_use]
    pub fn no_space_ppm(mut self, per_million: u32) -> Self {
        self.no_space_ppm = per_million;
        self
    }

    /// Chance that a sync meets [`FaultKind::SyncNoSpace`].
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().sync_no_space_ppm(100);
    /// ```
    #[must_use]
    pub fn sync_no_space_ppm(mut self, per_million: u32) -> Self {
        self.sync_no_space_ppm = per_million;
        self
    }

    /// The size of the disk: what would take more meets
    /// [`FaultKind::NoSpace`].
    ///
    /// ```
    /// let small = ourodb::sim::Faults::default().disk_bytes_max(64 << 20);
    /// ```
    #[must_use]
    pub fn disk_bytes_max(mut self, bytes: u64) -> Self {
        self.disk_bytes_max = Some(bytes);
        self
    }

    /// Of the requests from now on that `kind` can befall, the `k`-th (from 1)
    /// meets it; or, `for_ever`, all from the `k`-th on. May be said several times:
    /// each counts for itself, and where two meet the first one decides.
    ///
    /// ```
    /// use ourodb::sim::{FaultKind, Faults};
    /// let faults = Faults::default().fail_kth(10, FaultKind::Io, false);
    /// let two = faults.fail_kth(12, FaultKind::NoSpace, true);
    /// ```
    #[must_use]
    pub fn fail_kth(mut self, k: u64, kind: FaultKind, for_ever: bool) -> Self {
        assert!(k > 0, "requests are counted from 1");
        self.fail_kth.push(FailKth { k, kind, for_ever });
        self
    }

    /// Chance that a read finds a flipped bit, which stays flipped.
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().rot_ppm(100);
    /// ```
    #[must_use]
    pub fn rot_ppm(mut self, per_million: u32) -> Self {
        self.rot_ppm = per_million;
        self
    }

    /// Chance that a write succeeds and changes nothing.
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().lost_write_ppm(100);
    /// ```
    #[must_use]
    pub fn lost_write_ppm(mut self, per_million: u32) -> Self {
        self.lost_write_ppm = per_million;
        self
    }

    /// Chance that a write succeeds and goes to another place of its file.
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().misdirected_write_ppm(100);
    /// ```
    #[must_use]
    pub fn misdirected_write_ppm(mut self, per_million: u32) -> Self {
        self.misdirected_write_ppm = per_million;
        self
    }

    /// Rot, and writes that are lost or misdirected, befall files only whose names
    /// end so.
    ///
    /// ```
    /// let faults = ourodb::sim::Faults::default().rot_ppm(100).damage_only(&[".sst"]);
    /// ```
    #[must_use]
    pub fn damage_only(mut self, suffixes: &'static [&'static str]) -> Self {
        self.damage_only = Some(suffixes);
        self
    }
}

/// Damage that nobody is told of.
#[derive(Clone, Copy)]
pub(super) enum Damage {
    Rot,
    LostWrite,
    MisdirectedWrite,
}

/// A fault that befell a request; see [`Sim::injected`](super::Sim::injected).
///
/// Printed, it is `KIND: REQUEST FILE`.
///
/// ```
/// use ourodb::{Db, IoBackend, Options, sim::{FaultKind, Faults, Sim}};
/// let sim = Sim::new(1);
/// sim.set_faults(Faults::default().fail_kth(1, FaultKind::NoSpace, false));
/// let options = Options::default().io(IoBackend::Sim(sim.clone()));
/// assert!(Db::open("/db", options).is_err());
/// let fault = &sim.injected()[0];
/// assert_eq!((fault.kind, fault.request), (FaultKind::NoSpace, "create directory"));
/// assert_eq!(fault.to_string(), "NoSpace: create directory /db");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// What went wrong.
    pub kind: FaultKind,
    /// What was asked for, as messages say it: `read`, `write`, `sync`, `create`, …
    pub request: &'static str,
    /// The file or directory.
    pub file: PathBuf,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} {}", self.kind, self.request, self.file.display())
    }
}

/// What a request is, as far as faults are concerned.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Read,
    Write {
        extends: bool,
    },
    Sync,
    /// A new file or directory, or a new mapping.
    Create,
    /// Another change of a directory.
    Change,
    SyncDir,
    /// Opening, listing, measuring what is there.
    Look,
}

impl FaultKind {
    fn can_befall(self, target: Target) -> bool {
        match self {
            Self::Short | Self::Again => matches!(target, Target::Read | Target::Write { .. }),
            Self::Io => true,
            Self::NoSpace => {
                matches!(target, Target::Create | Target::Change | Target::Write { extends: true })
            }
            Self::SyncNoSpace => matches!(target, Target::Sync | Target::SyncDir),
        }
    }
}

/// The faults in force, and what they did so far.
pub(super) struct FaultPlan {
    faults: Faults,
    /// Requests that each of `fail_kth` could have befallen.
    seen: Vec<u64>,
    count: u64,
    injected: Vec<Injected>,
}

impl FaultPlan {
    pub(super) fn new(faults: Faults) -> Self {
        Self { seen: vec![0; faults.fail_kth.len()], faults, count: 0, injected: Vec::new() }
    }

    pub(super) fn reorder(&self) -> bool {
        self.faults.reorder
    }

    pub(super) fn disk_bytes_max(&self) -> Option<u64> {
        self.faults.disk_bytes_max
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn seen(&self) -> &[u64] {
        &self.seen
    }

    pub(super) fn injected(&self) -> &[Injected] {
        &self.injected
    }

    /// This befell a request.
    pub(super) fn befell(&mut self, kind: FaultKind, request: &'static str, file: &Path) {
        self.count += 1;
        if self.injected.len() < REMEMBERED_MAX {
            self.injected.push(Injected { kind, request, file: file.to_owned() });
        }
    }

    pub(super) fn delay_ns(&self, rng: &mut Rng) -> u64 {
        match &self.faults.delay_ns {
            None => 0,
            Some(range) => {
                let width = (range.end() - range.start()).saturating_add(1);
                range.start() + rng.below(width)
            }
        }
    }

    /// What befalls a request as it is about to complete. `refusals` says
    /// how often it met `EAGAIN`; `first` whether it is looked at for the
    /// first time.
    pub(super) fn draw(
        &mut self,
        rng: &mut Rng,
        target: Target,
        first: bool,
        refusals: u32,
    ) -> Option<FaultKind> {
        let drawn = self.drawn_kth(target, first).or_else(|| self.drawn_by_chance(rng, target))?;
        if drawn == FaultKind::Again && refusals >= REFUSALS_MAX {
            return None;
        }
        Some(drawn)
    }

    /// Whether a transfer to or from this file does damage.
    pub(super) fn draw_damage(&mut self, rng: &mut Rng, damage: Damage, path: &Path) -> bool {
        let faults = &self.faults;
        let per_million = match damage {
            Damage::Rot => faults.rot_ppm,
            Damage::LostWrite => faults.lost_write_ppm,
            Damage::MisdirectedWrite => faults.misdirected_write_ppm,
        };
        let name = || path.as_os_str().as_encoded_bytes();
        let is_of = |only: &[&str]| only.iter().any(|suffix| name().ends_with(suffix.as_bytes()));
        let is_drawn = rng.chance(per_million) && faults.damage_only.is_none_or(is_of);
        self.count += u64::from(is_drawn);
        is_drawn
    }

    fn drawn_kth(&mut self, target: Target, first: bool) -> Option<FaultKind> {
        let mut drawn = None;
        for (FailKth { k, kind, for_ever }, seen) in self.faults.fail_kth.iter().zip(&mut self.seen)
        {
            if !first || !kind.can_befall(target) {
                continue;
            }
            *seen += 1;
            if *seen == *k || *for_ever && *seen > *k {
                drawn = drawn.or(Some(*kind));
            }
        }
        drawn
    }

    fn drawn_by_chance(&self, rng: &mut Rng, target: Target) -> Option<FaultKind> {
        let faults = &self.faults;
        let error_ppm = match target {
            Target::Read => faults.read_error_ppm,
            Target::Look => 0,
            _ => faults.write_error_ppm,
        };
        let chances = [
            (FaultKind::Short, faults.short_ppm),
            (FaultKind::Again, faults.again_ppm),
            (FaultKind::NoSpace, faults.no_space_ppm),
            (FaultKind::SyncNoSpace, faults.sync_no_space_ppm),
            (FaultKind::Io, error_ppm),
        ];
        chances
            .into_iter()
            .find(|&(kind, per_million)| kind.can_befall(target) && rng.chance(per_million))
            .map(|(kind, _)| kind)
    }
}
