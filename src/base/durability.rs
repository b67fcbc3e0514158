//! What an acknowledgement promises.

use std::time::Duration;

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
