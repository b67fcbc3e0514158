//! Goes through a log record by record, also behind damage, for whoever wants
//! to know everything that is wrong with it.
//!
//! A [`Chain`] ends where a record is missing; a walk says what is missing, and
//! goes on with the next sound record. Where the missing one was meant to be is
//! a guess: of the places where it may start, the one whose bytes are most like
//! the header that is expected there.

use super::{Chain, End, Piece};
use crate::base::checksum::Seed;
use crate::base::ids::Epoch;
use crate::base::limits::round_up_u64;
use crate::format::record::{HEADER_BYTES, Record, Unusable, u32_at, u64_at};

/// Headers in which more bits than this are not as expected say nothing.
const UNLIKE_BITS: u32 = 16;

/// What a walk comes upon.
pub(crate) enum Step<'a> {
    /// The next sound record.
    Record(Record<'a>),
    /// Records from here up to the next step are not there.
    Missing(Missing),
    /// A record with a right checksum that this version cannot use.
    Unusable(u64, Unusable),
}

/// Where records are missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing {
    /// The end of the last record before.
    pub(crate) from: u64,
    /// Where the first that is missing was most likely meant to be.
    pub(crate) suspect: u64,
    /// How the bytes there differ from its header; `None`: they are none.
    pub(crate) unlike: Option<Unlike>,
}

/// How the bytes at a place differ from the header expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unlike(u32);

impl Unlike {
    /// `None` when the bytes are no header at all.
    pub(crate) fn of(bytes: &[u8], epoch: Epoch, position: u64) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let position = (u64_at(header, 16) ^ position).count_ones();
        let bits = (u32_at(header, 8) ^ epoch).count_ones() + position;
        (bits <= UNLIKE_BITS && header.iter().any(|&byte| byte != 0)).then_some(Self(bits))
    }

    fn is_equal(self) -> bool {
        self.0 == 0
    }
}

/// Follows one log, like a [`Chain`].
pub(crate) struct Walk {
    chain: Chain,
    /// Where the record after the last one may be, in the pieces so far.
    suspect: Option<(Unlike, u64)>,
    /// Bytes of a record that begins behind the last one and is not whole.
    torn_bytes: u64,
}

impl Walk {
    /// As [`Chain::new`].
    pub(crate) fn new(seed: Seed, epoch: Epoch, start: u64, stop: u64) -> Self {
        Self { chain: Chain::new(seed, epoch, start, stop), suspect: None, torn_bytes: 0 }
    }

    /// The next piece, as in [`Chain::feed`].
    pub(crate) fn feed<'a, E>(
        &mut self,
        position: u64,
        bytes: &'a [u8],
        mut visit: impl FnMut(Step<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let piece = Piece { position, bytes };
        loop {
            if let Ok(Some(record)) = self.chain.follow(&piece) {
                self.advance(&record);
                visit(Step::Record(record))?;
                continue;
            }
            let next = self.next_sound(&piece);
            self.look_for_suspects(&piece);
            match next {
                None => return Ok(()),
                Some((at, Ok(record))) => {
                    let end = at.saturating_sub(u64::from(record.header.gap));
                    visit(Step::Missing(self.missing_below(end)))?;
                    self.advance(&record);
                    visit(Step::Record(record))?;
                }
                Some((at, Err(unusable))) => {
                    let header = &bytes[(at - position) as usize..];
                    self.chain.end = at + HEADER_BYTES as u64 + u64::from(u32_at(header, 4));
                    (self.suspect, self.torn_bytes) = (None, 0);
                    visit(Step::Unusable(at, unusable))?;
                }
            }
        }
    }

    fn advance(&mut self, record: &Record<'_>) {
        self.chain.end = record.end();
        self.chain.mark_max = self.chain.mark_max.max(record.header.mark);
        (self.suspect, self.torn_bytes) = (None, 0);
    }

    /// The first record with a right checksum behind the last one.
    fn next_sound<'a>(&self, piece: &Piece<'a>) -> Option<(u64, Result<Record<'a>, Unusable>)> {
        let piece_end = (piece.position + piece.bytes.len() as u64).min(self.chain.stop);
        let mut at = self.chain.end.max(piece.position);
        while at < piece_end {
            match piece.record(&self.chain, at) {
                Ok(Some(record)) => return Some((at, Ok(record))),
                Ok(None) => at = round_up_u64(at + 1),
                Err(unusable) => return Some((at, Err(unusable))),
            }
        }
        None
    }

    /// Looks where in this piece the next record may have been meant to be.
    fn look_for_suspects(&mut self, piece: &Piece<'_>) {
        let end = self.chain.end;
        let mut places = vec![end, round_up_u64(end), piece.position];
        places.retain(|&at| at >= end.max(piece.position) && at < self.chain.stop);
        places.dedup();
        for at in places {
            if piece.record(&self.chain, at).is_ok_and(|record| record.is_some()) {
                continue;
            }
            let bytes = piece.bytes.get((at - piece.position) as usize..).unwrap_or_default();
            let Some(unlike) = Unlike::of(bytes, self.chain.epoch, at) else { continue };
            if self.suspect.is_none_or(|(other, _)| unlike < other) {
                self.suspect = Some((unlike, at));
                let stated = HEADER_BYTES as u64 + u64::from(u32_at(bytes, 4));
                let whole = stated.min(bytes.len() as u64);
                self.torn_bytes = if unlike.is_equal() { whole } else { 0 };
            }
        }
    }

    /// What is missing, if the record after the last one is.
    pub(crate) fn missing(&self) -> Missing {
        let from = self.chain.end;
        let suspect = self.suspect.map_or(round_up_u64(from), |(_, at)| at);
        Missing { from, suspect, unlike: self.suspect.map(|(unlike, _)| unlike) }
    }

    /// What is missing, of which something lies below `end`: a later record, or what is known
    /// to have been durable, says so. What is at the next unit or further on cannot be it, if
    /// `end` comes first: the record was in the same group.
    pub(crate) fn missing_below(&self, end: u64) -> Missing {
        let missing = self.missing();
        match missing.suspect < end || end <= missing.from {
            true => missing,
            false if round_up_u64(missing.from) < end => {
                Missing { suspect: round_up_u64(missing.from), unlike: None, ..missing }
            }
            false => Missing { suspect: missing.from, unlike: None, ..missing },
        }
    }

    /// The end of the last sound record, and the highest mark, so far.
    pub(crate) fn reached(&self) -> End {
        End { end: self.chain.end, mark_max: self.chain.mark_max }
    }

    /// Bytes of a record that begins behind the last one and is not whole.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::DbId;
    use crate::base::limits::UNIT;
    use crate::format::record::{Header, RecordKind, seal, stream_seed};

    /// The places that are missing in two pieces of a unit each, in which records of these
    /// places and lengths are, but for `lost`, of which nothing is left.
    fn missing(records: &[(u64, u64)], lost: usize) -> Vec<(u64, u64)> {
        let seed = stream_seed(DbId([5; 16]), 2, 0);
        let mut bytes = vec![0; 2 * UNIT];
        let mut end = 0;
        for (number, &(position, len)) in records.iter().enumerate() {
            let gap = (position - end) as u32;
            let kind = RecordKind::Mark;
            let header = Header { kind, epoch: 2, sections: 0, position, mark: end, gap };
            end = position + len;
            if number != lost {
                seal(&mut bytes[position as usize..end as usize], seed, &header);
            }
        }
        let mut walk = Walk::new(seed, 2, 0, u64::MAX);
        let mut missing = Vec::new();
        for (number, piece) in bytes.chunks(UNIT).enumerate() {
            let fed = walk.feed((number * UNIT) as u64, piece, |step| {
                if let Step::Missing(place) = step {
                    missing.push((place.from, place.suspect));
                }
                Ok::<_, Unusable>(())
            });
            fed.unwrap_or_else(|_| panic!("all can be used"));
        }
        let last = walk.missing_below(end);
        missing.extend((last.from < end).then_some((last.from, last.suspect)));
        missing
    }

    #[test]
    fn what_is_missing_lies_before_what_follows_it() {
        let unit = UNIT as u64;
        // In the group of the one before, with another group behind it, and at the end.
        let one_group = [(0, 100), (100, 60), (unit, 80), (unit + 80, 90)];
        assert_eq!(missing(&one_group, 1), [(100, 100)]);
        assert_eq!(missing(&one_group, 3), [(unit + 80, unit + 80)]);
        // In a group of its own.
        let own_group = [(0, 100), (unit, 80), (unit + 80, 90)];
        assert_eq!(missing(&own_group, 1), [(100, unit)]);
    }
}
