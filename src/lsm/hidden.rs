//! How many entries of older tables a new table's own hide: an estimate.
//!
//! Of some of its keys older tables are asked whether they have them. Tables that
//! have their filters in memory answer at once. Of keys where it depends on
//! others, a few are looked for by reading a filter, and stand for all of these.

use crate::base::hash::KeyHash;
use crate::io::Io;
use crate::lsm::levels::{Answer, Older};
use crate::sst::Holds;

/// Of so many filters that do not have a key, one says that it may: fingerprints
/// have eight bits.
const MISTAKES_SHARE: u64 = 256;

/// Of so many keys of which memory does not tell, one is looked for by reading:
/// then what is read is far less than what is written.
const READ_SHARE: u64 = 64;

/// Collects the answers for the keys of one table.
#[derive(Default)]
pub(super) struct Hidden {
    known: Sample,
    /// Of those that are not known, those that were looked for by reading.
    read: Sample,
    /// Entries that they stand for.
    unknown_entries: u64,
    /// Keys of which memory did not tell.
    unknown_keys: u64,
}

/// Entries that hide an older one, or not.
#[derive(Default)]
struct Sample {
    entries: u64,
    hiding: u64,
    /// How many filters were asked, entry by entry.
    asked: u64,
}

impl Sample {
    fn add(&mut self, entries: u64, answer: Answer) {
        self.entries += entries;
        self.hiding += if answer.holds == Holds::Maybe { entries } else { 0 };
        self.asked += entries * answer.asked;
    }

    /// Those that hide one, but for mistakes of filters.
    fn hiding(&self) -> u64 {
        self.hiding.saturating_sub(self.asked / MISTAKES_SHARE)
    }

    /// The same, scaled up to so many entries. `None` if nothing is known.
    fn hiding_of(&self, entries: u64) -> Option<u64> {
        let scaled = u128::from(self.hiding()) * u128::from(entries);
        let scaled = scaled.checked_div(u128::from(self.entries))?;
        Some(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

impl Hidden {
    /// Looks for a key of the table, which stands for so many entries, in `older`
    /// tables.
    pub(super) async fn ask<I: Io>(
        &mut self,
        io: &I,
        older: &Older,
        key: &[u8],
        hash: KeyHash,
        entries: u64,
    ) {
        let answer = older.ask(key, hash);
        if answer.holds != Holds::Unknown {
            self.known.add(entries, answer);
            return;
        }
        self.unknown_entries += entries;
        self.unknown_keys += 1;
        if self.unknown_keys % READ_SHARE != 1 {
            return;
        }
        match older.ask_reading(io, key, hash).await {
            Ok(answer) => self.read.add(entries, answer),
            // Whoever wants that key will be told; the table that is being written
            // has nothing to do with it.
            Err(error) => tracing::debug!(%error, "a filter could not be read for an estimate"),
        }
    }

    /// The estimate.
    pub(super) fn estimate(&self) -> u64 {
        let unknown = self.unknown_entries;
        let of_unknown =
            self.read.hiding_of(unknown).or_else(|| self.known.hiding_of(unknown)).unwrap_or(0);
        self.known.hiding().saturating_add(of_unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(entries: u64, hiding: u64, asked: u64) -> Sample {
        Sample { entries, hiding, asked }
    }

    #[test]
    fn mistakes_of_filters_are_left_out() {
        let mut known = Sample::default();
        for key in 0..512 {
            let holds = if key < 100 { Holds::Maybe } else { Holds::No };
            known.add(64, Answer { holds, asked: 2 });
        }
        assert_eq!((known.entries, known.hiding), (512 * 64, 6400));
        assert_eq!(known.hiding(), 6400 - 512 * 64 * 2 / 256);
        assert_eq!(sample(64, 0, 256).hiding(), 0);
    }

    #[test]
    fn what_is_not_known_is_taken_for_like_what_was_read() {
        let hidden = |known, read, unknown_entries| {
            Hidden { known, read, unknown_entries, unknown_keys: 0 }.estimate()
        };
        assert_eq!(hidden(sample(640, 320, 0), Sample::default(), 0), 320);
        assert_eq!(hidden(sample(640, 320, 0), sample(64, 64, 0), 6400), 320 + 6400);
        assert_eq!(hidden(sample(640, 320, 0), sample(128, 64, 0), 6400), 320 + 3200);
        // Nothing could be read: like what is known, if anything is.
        assert_eq!(hidden(sample(640, 320, 0), Sample::default(), 6400), 320 + 3200);
        assert_eq!(hidden(Sample::default(), Sample::default(), 6400), 0);
        assert_eq!(hidden(Sample::default(), sample(2, 2, 0), u64::MAX), u64::MAX);
    }
}
