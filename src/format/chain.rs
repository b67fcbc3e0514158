//! Follows the chain of records through a log, and finds its end.
//!
//! Every record states how many unused bytes lie before it, so that each
//! record names its predecessor's end: padding at the end of a group, or the
//! unused rest of a segment, is told from a record that is missing. The chain
//! ends at the first place where no record follows. Whether that is a torn
//! tail or damage is decided by the durable marks of **all** sound records of
//! the log, also those beyond the end: if one says that more was durable,
//! something was lost.

mod walk;

pub(crate) use walk::{Missing, Step, Unlike, Walk};

use crate::base::checksum::Seed;
use crate::base::ids::Epoch;
use crate::base::limits::{UNIT, round_up_u64};
use crate::format::record::{HEADER_BYTES, Header, Record, RecordKind, Unusable, seal};

/// Follows one log. Its pieces (segments) are fed in order.
pub(crate) struct Chain {
    seed: Seed,
    epoch: Epoch,
    /// The records before this one are not asked for; the first record need
    /// not name its predecessor.
    start: u64,
    /// Records that start here or later are void.
    stop: u64,
    end: u64,
    broken: bool,
    mark_max: u64,
}

/// Where a chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The end of the last record of the chain.
    pub(crate) end: u64,
    /// The highest position that some sound record says was durable.
    pub(crate) mark_max: u64,
}

impl Chain {
    /// A chain from `start`; records at `stop` and beyond are not followed.
    pub(crate) fn new(seed: Seed, epoch: Epoch, start: u64, stop: u64) -> Self {
        Self { seed, epoch, start, stop, end: start, broken: false, mark_max: start }
    }

    /// The next piece: `bytes` whose first one has position `position`, a
    /// multiple of the unit. Pieces come in the order of their positions.
    /// Calls `visit` for each record of the chain.
    pub(crate) fn feed<'a, E: From<Unusable>>(
        &mut self,
        position: u64,
        bytes: &'a [u8],
        mut visit: impl FnMut(Record<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let piece = Piece { position, bytes };
        let mut at = position;
        if !self.broken {
            while let Some(record) = self.follow(&piece)? {
                self.end = record.end();
                self.mark_max = self.mark_max.max(record.header.mark);
                visit(record)?;
            }
            // The chain may go on in the next piece only if the rest of this
            // one holds no record: one further on shows that one is missing.
            at = self.end.max(position);
        }
        self.look_for_marks(&piece, round_up_u64(at))?;
        Ok(())
    }

    /// The record after the last one, if it is in this piece.
    fn follow<'a>(&self, piece: &Piece<'a>) -> Result<Option<Record<'a>>, Unusable> {
        let next_unit = round_up_u64(self.end);
        // In the same group, at the next unit, or at the start of this piece.
        for candidate in [self.end, next_unit, piece.position] {
            if candidate < self.end || candidate >= self.stop {
                continue;
            }
            if let Some(record) = piece.record(self, candidate)? {
                // The first record's predecessor is not in the log any more.
                let first = candidate == self.start;
                if first || u64::from(record.header.gap) == candidate - self.end {
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }

    /// Takes note of the marks of records that are not of the chain.
    fn look_for_marks(&mut self, piece: &Piece<'_>, from: u64) -> Result<(), Unusable> {
        let mut at = from.max(piece.position);
        let end = piece.position + piece.bytes.len() as u64;
        while at < end.min(self.stop) {
            match piece.record(self, at)? {
                Some(record) => {
                    self.mark_max = self.mark_max.max(record.header.mark);
                    self.broken = true;
                    at = record.end();
                    // Its group may go on behind it.
                    if !at.is_multiple_of(UNIT as u64) && piece.record(self, at)?.is_none() {
                        at = round_up_u64(at);
                    }
                }
                None => at = round_up_u64(at + 1),
            }
        }
        Ok(())
    }

    /// Whether there is a sound record that does not follow the chain.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Where the chain ended, after the last piece.
    pub(crate) fn finish(self) -> End {
        End { end: self.end, mark_max: self.mark_max }
    }
}

struct Piece<'a> {
    position: u64,
    bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    fn record(&self, chain: &Chain, position: u64) -> Result<Option<Record<'a>>, Unusable> {
        let Some(offset) = position.checked_sub(self.position) else {
            return Ok(None);
        };
        let Some(bytes) = self.bytes.get(offset as usize..) else {
            return Ok(None);
        };
        Record::decode(bytes, chain.seed, chain.epoch, position)
    }
}

/// A record without sections, in whole units: a mark, or edits of a manifest.
pub(crate) fn padded_record(
    seed: Seed,
    kind: RecordKind,
    epoch: Epoch,
    position: u64,
    last_end: u64,
    payload: &[u8],
    out: &mut [u8],
) -> usize {
    let len = HEADER_BYTES + payload.len();
    out[HEADER_BYTES..len].copy_from_slice(payload);
    let gap = (position - last_end) as u32;
    // One such record is in flight at a time: all before it is durable.
    let header = Header { kind, epoch, sections: 0, position, mark: last_end, gap };
    seal(&mut out[..len], seed, &header);
    out[len..].fill(0);
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::DbId;
    use crate::format::record::stream_seed;

    const SEED: (DbId, Epoch) = (DbId([5; 16]), 2);

    fn seed() -> Seed {
        stream_seed(SEED.0, SEED.1, 0)
    }

    /// A log of one piece with a record of `len` payload bytes for each (unit,
    /// len), each with a mark at its predecessor's end.
    fn log(records: &[(usize, usize)], units: usize) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = vec![0; units * UNIT];
        let mut end = 0;
        let mut ends = Vec::new();
        for &(unit, len) in records {
            let at = unit * UNIT;
            let mut out = vec![0; round_up_u64((HEADER_BYTES + len) as u64) as usize];
            let payload = vec![7; len];
            let kind = RecordKind::Mark;
            let n = padded_record(seed(), kind, SEED.1, at as u64, end, &payload, &mut out);
            bytes[at..at + out.len()].copy_from_slice(&out);
            end = (at + n) as u64;
            ends.push(end);
        }
        (bytes, ends)
    }

    fn scan(pieces: &[(u64, &[u8])], stop: u64) -> (usize, End) {
        let mut chain = Chain::new(seed(), SEED.1, 0, stop);
        let mut count = 0;
        for (position, bytes) in pieces {
            chain
                .feed(*position, bytes, |_| {
                    count += 1;
                    Ok::<_, Unusable>(())
                })
                .unwrap();
        }
        (count, chain.finish())
    }

    #[test]
    fn follows_padding_to_the_end() {
        let (bytes, ends) = log(&[(0, 10), (1, 5000), (3, UNIT - HEADER_BYTES), (4, 1)], 8);
        let expected = End { end: ends[3], mark_max: ends[2] };
        assert_eq!(scan(&[(0, &bytes)], u64::MAX), (4, expected));
    }

    #[test]
    fn a_missing_record_leaves_marks_that_tell() {
        let (mut bytes, ends) = log(&[(0, 10), (1, 10), (2, 10)], 4);
        bytes[UNIT + 3] ^= 1;
        assert_eq!(scan(&[(0, &bytes)], u64::MAX), (1, End { end: ends[0], mark_max: ends[1] }));
    }

    #[test]
    fn a_torn_tail_has_no_mark_above_it() {
        let (mut bytes, ends) = log(&[(0, 10), (1, 10)], 4);
        bytes[UNIT + 3] ^= 1;
        assert_eq!(scan(&[(0, &bytes)], u64::MAX), (1, End { end: ends[0], mark_max: 0 }));
    }

    #[test]
    fn goes_on_in_the_next_piece_past_an_unused_rest() {
        let (bytes, ends) = log(&[(0, 10), (4, 10), (5, 10)], 8);
        let pieces = [(0, &bytes[..4 * UNIT]), (4 * UNIT as u64, &bytes[4 * UNIT..])];
        assert_eq!(scan(&pieces, u64::MAX).0, 3);
        // Without the second piece's first record, the third one tells.
        let mut bad = bytes.clone();
        bad[4 * UNIT] ^= 1;
        let pieces = [(0, &bad[..4 * UNIT]), (4 * UNIT as u64, &bad[4 * UNIT..])];
        assert_eq!(scan(&pieces, u64::MAX), (1, End { end: ends[0], mark_max: ends[1] }));
    }

    #[test]
    fn a_missing_piece_is_seen() {
        let (bytes, ends) = log(&[(0, 10), (2, 10), (4, 10)], 6);
        let pieces = [(0, &bytes[..2 * UNIT]), (4 * UNIT as u64, &bytes[4 * UNIT..])];
        assert_eq!(scan(&pieces, u64::MAX), (1, End { end: ends[0], mark_max: ends[1] }));
    }

    #[test]
    fn nothing_beyond_the_stop_counts() {
        let (bytes, ends) = log(&[(0, 10), (1, 10), (2, 10)], 4);
        let (count, end) = scan(&[(0, &bytes)], ends[0]);
        assert_eq!((count, end), (1, End { end: ends[0], mark_max: 0 }));
    }
}
