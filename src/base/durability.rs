//! What an acknowledgement promises.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::base::error::{Error, Result};

/// When a write is acknowledged, and what it survives from then on. Chosen for
/// the database with [`Options::durability`](crate::Options::durability), and
/// for each write.
///
/// Whatever the choice, writes are seen in one order, and after a crash each
/// shard holds a prefix of its history: no write is there without those that
/// came before it.
///
/// ```
/// use ourodb::{Db, Durability, Options};
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path(), Options::default().durability(Durability::ProcessSafe))?;
/// db.put(b"counter", b"1").wait()?;
/// db.put(b"payment", b"42").durability(Durability::Durable).wait()?;
/// # Ok::<(), ourodb::Error>(())
/// ```
///
/// On command lines and in reports each has a name: `durable`, `process-safe`,
/// `relaxed:100ms` (units `us`, `ms` and `s`).
///
/// ```
/// # use std::time::Duration;
/// # use ourodb::Durability;
/// let durability: Durability = "relaxed:100ms".parse()?;
/// assert_eq!(durability, Durability::Relaxed { within: Duration::from_millis(100) });
/// assert_eq!(durability.to_string(), "relaxed:100ms");
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Acknowledged when it survives the loss of power, and with it all that
    /// was written to its WAL stream before. The default.
    #[default]
    Durable,
    /// Acknowledged when it survives the death of the process (`kill -9`, a
    /// panic, an exit without closing), but not of the machine: what was
    /// written within the last second may be lost with that.
    ProcessSafe,
    /// Acknowledged at once; survives the loss of power after this time at the
    /// latest, as far as the device keeps up.
    Relaxed {
        /// At least a millisecond; shorter times count as one.
        within: Duration,
    },
}

/// Within this time [`Durability::ProcessSafe`] writes are durable.
const PROCESS_SAFE_WITHIN_NS: u64 = 1_000_000_000;

const WITHIN_MIN_NS: u64 = 1_000_000;

impl Durability {
    /// The time within which an acknowledged write is durable; `None` when it
    /// is so from the start.
    pub(crate) fn within_ns(self) -> Option<u64> {
        match self {
            Self::Durable => None,
            Self::ProcessSafe => Some(PROCESS_SAFE_WITHIN_NS),
            Self::Relaxed { within } => {
                let nanos = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
                Some(nanos.max(WITHIN_MIN_NS))
            }
        }
    }

    pub(crate) fn is_durable(self) -> bool {
        self == Self::Durable
    }
}

/// Units of time in names, and how many nanoseconds they have.
const UNITS: [(&str, u64); 3] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = match self {
            Self::Durable => return f.write_str("durable"),
            Self::ProcessSafe => return f.write_str("process-safe"),
            Self::Relaxed { within } => within.as_nanos(),
        };
        let divides = |&(_, nanos): &(&str, u64)| within.is_multiple_of(u128::from(nanos));
        let (unit, nanos) = UNITS.into_iter().find(divides).unwrap_or(UNITS[UNITS.len() - 1]);
        write!(f, "relaxed:{}{unit}", within / u128::from(nanos))
    }
}

impl FromStr for Durability {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "durable" => return Ok(Self::Durable),
            "process-safe" => return Ok(Self::ProcessSafe),
            _ => {}
        }
        let within = text.strip_prefix("relaxed:").and_then(|text| {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at(digits);
            let nanos = UNITS.into_iter().find(|(name, _)| *name == unit)?.1;
            number.parse::<u64>().ok()?.checked_mul(nanos).filter(|&nanos| nanos >= WITHIN_MIN_NS)
        });
        within.map(|nanos| Self::Relaxed { within: Duration::from_nanos(nanos) }).ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is no durability: it is durable, process-safe, or relaxed:100ms (at least \
                 1ms)"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        let relaxed = |within| Durability::Relaxed { within };
        for (text, durability) in [
            ("durable", Durability::Durable),
            ("process-safe", Durability::ProcessSafe),
            ("relaxed:1ms", relaxed(Duration::from_millis(1))),
            ("relaxed:1500ms", relaxed(Duration::from_millis(1500))),
            ("relaxed:60s", relaxed(Duration::from_secs(60))),
            ("relaxed:1001us", relaxed(Duration::from_micros(1001))),
        ] {
            assert_eq!(text.parse::<Durability>().ok(), Some(durability));
            assert_eq!(durability.to_string(), text);
        }
        assert_eq!("relaxed:1000us".parse().ok(), Some(relaxed(Duration::from_millis(1))));
    }

    #[test]
    fn what_is_no_durability_is_refused() {
        for text in [
            "",
            "never",
            "Durable",
            "relaxed",
            "relaxed:",
            "relaxed:soon",
            "relaxed:999us",
            "relaxed:0s",
            "relaxed:ms",
            "relaxed:1",
            "relaxed:1h",
            "relaxed:-1s",
            "relaxed: 1s",
            "relaxed:99999999999999999999s",
            "relaxed:99999999999s",
        ] {
            let error = text.parse::<Durability>().expect_err(text);
            assert!(error.to_string().contains("relaxed:100ms"), "{text}: {error}");
        }
    }
}
