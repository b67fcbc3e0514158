//! What the writes of a cycle are to survive, and what an acknowledgement
//! promises when the process is killed, or its machine loses power.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use ourodb::Durability;

use crate::script::random;

/// A relaxed write that was acknowledged this much longer before the kill than
/// its own time must be there: for threads that wait for a processor, and a
/// device that others use, too.
pub(crate) const ALLOWANCE: Duration = Duration::from_millis(200);

/// The same for power cuts, where the device is slow, and what is late may be
/// lost; a machine that is busy with something else has more (`power/life.rs`).
const POWER_ALLOWANCE: Duration = Duration::from_secs(1);

/// Within this time the engine makes durable what need not survive power cuts.
const PROCESS_SAFE_WITHIN: Duration = Duration::from_secs(1);

/// The times of relaxed writes, unless one was asked for: some end before the
/// kill, and some do not.
const WITHIN_MS: [u64; 4] = [1, 5, 20, 100];

/// Of so many cycles, [`PURE_CYCLES`] have each mode of one durability.
const ROUND_CYCLES: usize = 10;
const PURE_CYCLES: usize = 3;

const _: () = assert!(3 * PURE_CYCLES < ROUND_CYCLES, "some cycles are mixed");

/// Sets what is drawn here apart from what else follows from the same seed.
const SALT: u64 = 0x6475_7261;

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    PowerCut,
}

/// What the writes of one cycle are to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Durable,
    ProcessSafe,
    Relaxed {
        within: Duration,
    },
    /// Each write draws its own.
    Mixed,
}

impl Mode {
    /// The mode of a cycle, when none was asked for.
    pub(crate) fn of_cycle(seed: u64, cycle: u64) -> Self {
        let mut places: [usize; ROUND_CYCLES] = std::array::from_fn(|place| place);
        random(&[seed, cycle / ROUND_CYCLES as u64, SALT]).shuffle(&mut places);
        match places[cycle as usize % ROUND_CYCLES] / PURE_CYCLES {
            0 => Self::Durable,
            1 => Self::ProcessSafe,
            2 => Self::Relaxed { within: draw_within(&mut random(&[seed, cycle, SALT])) },
            _ => Self::Mixed,
        }
    }

    /// In reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::ProcessSafe => "process-safe",
            Self::Relaxed { .. } => "relaxed",
            Self::Mixed => "mixed",
        }
    }

    /// The durability of a write.
    pub(crate) fn draw(self, random: &mut Rng) -> Durability {
        match self {
            Self::Durable => Durability::Durable,
            Self::ProcessSafe => Durability::ProcessSafe,
            Self::Relaxed { within } => Durability::Relaxed { within },
            Self::Mixed => match random.u8(..3) {
                0 => Durability::Durable,
                1 => Durability::ProcessSafe,
                _ => Durability::Relaxed { within: draw_within(random) },
            },
        }
    }

    /// What the database's options say in this cycle: often not what its writes
    /// do, which then say it themselves.
    pub(crate) fn of_options(self, seed: u64, cycle: u64) -> Durability {
        let mut random = random(&[seed, cycle, SALT]);
        if random.bool() { self.draw(&mut random) } else { Self::Mixed.draw(&mut random) }
    }

    /// After this time every acknowledged write must survive, if that is not so
    /// from the start.
    pub(crate) fn all_due(self) -> Option<Duration> {
        let within = match self {
            Self::Durable | Self::ProcessSafe => return None,
            Self::Relaxed { within } => within,
            Self::Mixed => Duration::from_millis(WITHIN_MS.into_iter().max().unwrap_or_default()),
        };
        within.checked_add(ALLOWANCE)
    }
}

fn draw_within(random: &mut Rng) -> Duration {
    Duration::from_millis(WITHIN_MS[random.usize(..WITHIN_MS.len())])
}

/// How long before the fault a write must have been acknowledged, so that it
/// must be there.
pub(crate) fn due(durability: Durability, fault: Fault) -> Duration {
    match (durability, fault) {
        (Durability::Durable, _) | (Durability::ProcessSafe, Fault::Kill) => Duration::ZERO,
        (Durability::ProcessSafe, Fault::PowerCut) => PROCESS_SAFE_WITHIN + POWER_ALLOWANCE,
        (Durability::Relaxed { within }, Fault::Kill) => within.saturating_add(ALLOWANCE),
        (Durability::Relaxed { within }, Fault::PowerCut) => within.saturating_add(POWER_ALLOWANCE),
        _ => unreachable!("no mode draws another durability"),
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relaxed { within } => Durability::Relaxed { within: *within }.fmt(f),
            Self::Durable | Self::ProcessSafe | Self::Mixed => f.write_str(self.name()),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mixed" {
            return Ok(Self::Mixed);
        }
        match text.parse() {
            Ok(Durability::Durable) => Ok(Self::Durable),
            Ok(Durability::ProcessSafe) => Ok(Self::ProcessSafe),
            Ok(Durability::Relaxed { within }) => Ok(Self::Relaxed { within }),
            Ok(other) => Err(format!("{other} is not tested")),
            Err(error) => Err(format!("{error}; or mixed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_shared_out() {
        for (seed, cycles, each) in [(1, 200, 60), (2, 200, 60), (1, 1000, 300), (7, 10, 3)] {
            for name in ["durable", "process-safe", "relaxed"] {
                let of_name = |cycle: &u64| Mode::of_cycle(seed, *cycle).name() == name;
                assert_eq!((0..cycles).filter(of_name).count(), each, "{seed} {cycles} {name}");
            }
        }
        let modes = |seed| (0..10).map(|cycle| Mode::of_cycle(seed, cycle)).collect::<Vec<_>>();
        assert_ne!(modes(1), modes(2));
    }

    #[test]
    fn names_both_ways() {
        for text in ["durable", "process-safe", "mixed", "relaxed:100ms", "relaxed:1500ms"] {
            assert_eq!(text.parse::<Mode>().map(|mode| mode.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "relaxed", "relaxed:", "relaxed:soon", "Durable", "never"] {
            let error = text.parse::<Mode>().unwrap_err();
            assert!(error.contains("relaxed:100ms"), "{text}: {error}");
        }
    }

    #[test]
    fn mixed_writes_are_of_all_kinds() {
        let mut random = random(&[4]);
        let drawn: Vec<_> = (0..100).map(|_| Mode::Mixed.draw(&mut random)).collect();
        let due: Vec<_> = drawn.iter().map(|durability| due(*durability, Fault::Kill)).collect();
        assert!(drawn.contains(&Durability::Durable) && drawn.contains(&Durability::ProcessSafe));
        assert!(due.contains(&Duration::from_millis(300)));
        assert_eq!(due.iter().max().copied(), Mode::Mixed.all_due());
        // Only a durable one says anything of a power cut that comes at once.
        for durability in drawn {
            let due = super::due(durability, Fault::PowerCut);
            assert_eq!(due.is_zero(), durability == Durability::Durable);
        }
    }
}
