//! A log: records at their places, as recovery and verification follow them.

use std::ops::Range;

use super::{DB, EPOCH, ERROR_BYTES, within};
use crate::base::checksum::Seed;
use crate::base::ids::Epoch;
use crate::base::limits::{UNIT, UNIT_U64, round_up};
use crate::format::chain::{Chain, Step, Walk};
use crate::format::edit::StreamKey;
use crate::format::header::{ByteReader, DecodeError};
use crate::format::record::{HEADER_BYTES, Header, RecordKind, Unusable, seal, stream_seed};
use crate::wal::slot_group;

/// The longest log that is made, but for its last record.
const BYTES_MAX: usize = 64 * UNIT;

// What an input says there is in a log, one thing after the other.
/// A record at the next unit.
const RECORD: u8 = 0;
/// A record right behind what there is.
const BEHIND: u8 = 1;
/// Units that are left out.
const SKIP: u8 = 2;
/// A byte somewhere before is another one.
const DAMAGE: u8 = 3;
/// What follows is in another piece.
const PIECE: u8 = 4;
/// A record of another place.
const STALE: u8 = 5;

/// Set with a record that has the durable mark that follows ...
const OWN_MARK: u8 = 0x40;
/// ... and with one that has the gap that follows.
const OWN_GAP: u8 = 0x80;

/// A log, in pieces of whole units.
pub(super) struct Log {
    pub(super) bytes: Vec<u8>,
    pieces: Vec<Range<usize>>,
    /// The position of its first byte.
    base: u64,
    seed: Seed,
    epoch: Epoch,
    /// Where the last record ends.
    end: usize,
}

impl Log {
    /// The log that `data` tells of.
    pub(super) fn make(data: &[u8], seed: Seed, epoch: Epoch, base: u64) -> Self {
        let mut log = Self { bytes: Vec::new(), pieces: Vec::new(), base, seed, epoch, end: 0 };
        let mut reader = ByteReader::new(data);
        // The log ends where the input does, also within a part.
        while log.bytes.len() < BYTES_MAX && log.part(&mut reader).is_ok() {}
        if log.bytes.is_empty() {
            log.bytes.resize(UNIT, 0);
        }
        log.end_piece();
        log
    }

    fn part(&mut self, reader: &mut ByteReader<'_>) -> Result<(), DecodeError> {
        let [part] = reader.array()?;
        match part & 7 {
            SKIP => {
                let [units] = reader.array()?;
                let len = round_up(self.bytes.len()) + usize::from(units % 4) * UNIT;
                self.bytes.resize(len, 0);
            }
            DAMAGE => {
                let (at, [byte]) = (usize::from(reader.u16()?), reader.array()?);
                if let Some(place) = self.bytes.get_mut(at) {
                    *place = byte;
                }
            }
            PIECE => self.end_piece(),
            RECORD | BEHIND | STALE => self.record(part, reader)?,
            _ => {}
        }
        Ok(())
    }

    fn end_piece(&mut self) {
        self.bytes.resize(round_up(self.bytes.len()), 0);
        let start = self.pieces.last().map_or(0, |piece| piece.end);
        if start < self.bytes.len() {
            self.pieces.push(start..self.bytes.len());
        }
    }

    fn record(&mut self, part: u8, reader: &mut ByteReader<'_>) -> Result<(), DecodeError> {
        if part & 7 != BEHIND {
            self.bytes.resize(round_up(self.bytes.len()), 0);
        }
        let [kind, sections] = reader.array()?;
        let start = self.bytes.len();
        let position = self.base + start as u64;
        let last_end = self.base + self.end as u64;
        let mark = if part & OWN_MARK == 0 { last_end } else { u64::from(reader.u32()?) };
        let gap = if part & OWN_GAP == 0 { (position - last_end) as u32 } else { reader.u32()? };
        let len = usize::from(reader.u16()?);
        self.bytes.resize(start + HEADER_BYTES, 0);
        self.bytes.extend_from_slice(reader.take(len)?);
        let bytes = &mut self.bytes[start..];
        let position = if part & 7 == STALE { position ^ UNIT_U64 } else { position };
        let (epoch, sections) = (self.epoch, sections.into());
        let header = Header { kind: RecordKind::Write, epoch, sections, position, mark, gap };
        seal(bytes, self.seed, &header);
        bytes[12] = kind;
        let checksum = self.seed.checksum(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        self.end = self.bytes.len();
        Ok(())
    }

    /// Its pieces, and the position of each.
    fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let piece = |at: &Range<usize>| (self.base + at.start as u64, &self.bytes[at.clone()]);
        self.pieces.iter().map(piece)
    }
}

/// Position and end of a record.
type Place = (u64, u64);

/// The first four bytes say where the chain starts and stops: nearly always at
/// the beginning, and nowhere.
pub(super) fn run(data: &[u8]) {
    let Some((&[start, _, stop, more], parts)) = data.split_first_chunk::<4>() else { return };
    let base = 8 * UNIT_U64;
    let log = Log::make(parts, stream_seed(DB, EPOCH, 0), EPOCH, base);
    let start = base + u64::from(start);
    let stop = if more == 0 { u64::MAX } else { base + u64::from(stop) * u64::from(more) };
    let walked = walk(&log, start, stop);
    if let Some((followed, end)) = follow(&log, start, stop) {
        let first_gap = walked.iter().position(Option::is_none).unwrap_or(walked.len());
        let whole: Vec<Place> = walked[..first_gap].iter().flatten().copied().collect();
        assert_eq!(followed, whole, "the chain ends where the walk misses a record");
        assert_eq!(end, followed.last().map_or(start, |&(_, end)| end));
    }
    slots(&log);
}

/// The records of the chain, and its end; `None` if one cannot be used.
fn follow(log: &Log, start: u64, stop: u64) -> Option<(Vec<Place>, u64)> {
    let mut chain = Chain::new(log.seed, log.epoch, start, stop);
    let mut places = Vec::new();
    for (position, bytes) in log.pieces() {
        let mut last_end = start;
        // A chain that is broken looks for marks only, in a few places a unit.
        let fed = within(bytes.len(), 0, ERROR_BYTES, || {
            chain.feed(position, bytes, |record| {
                assert!(record.header.position >= last_end && record.header.position < stop);
                last_end = record.end();
                Ok::<_, Unusable>(())
            })
        });
        fed.ok()?;
    }
    let mut again = Chain::new(log.seed, log.epoch, start, stop);
    for (position, bytes) in log.pieces() {
        let visit = |record: crate::format::record::Record<'_>| {
            places.push((record.header.position, record.end()));
            Ok::<_, Unusable>(())
        };
        again.feed(position, bytes, visit).expect("it was usable");
    }
    let end = chain.finish();
    assert_eq!(again.finish(), end);
    Some((places, end.end))
}

/// The records of the walk; `None` where some are missing or cannot be used.
fn walk(log: &Log, start: u64, stop: u64) -> Vec<Option<Place>> {
    let mut walk = Walk::new(log.seed, log.epoch, start, stop);
    let mut steps: Vec<Option<Place>> = Vec::new();
    for (position, bytes) in log.pieces() {
        let fed = walk.feed(position, bytes, |step| {
            steps.push(match step {
                Step::Record(record) => Some((record.header.position, record.end())),
                Step::Missing(_) | Step::Unusable(..) => None,
            });
            Ok::<_, ()>(())
        });
        fed.expect("nobody stops it");
    }
    let ends: Vec<u64> = steps.iter().flatten().flat_map(|&(at, end)| [at, end]).collect();
    assert!(ends.is_sorted(), "one record after the other: {ends:?}");
    walk.missing();
    walk.torn_bytes();
    steps
}

/// Each unit as the beginning of a mapping's slot.
fn slots(log: &Log) {
    let stream = StreamKey { epoch: EPOCH, stream: 0 };
    for at in (0..log.bytes.len()).step_by(UNIT) {
        let slot = &log.bytes[at..];
        let group = within(slot.len(), 0, ERROR_BYTES, || slot_group(slot, log.seed, stream));
        if let Ok(Some((_, len))) = group {
            assert!((HEADER_BYTES..=slot.len()).contains(&len));
        }
    }
}

/// A few records, one behind the other or at units, of edits and of marks.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let with_start = |log: Vec<u8>| [&[0; 4], &log[..]].concat();
    log_seeds(b"payload").into_iter().map(with_start).collect()
}

/// Logs with records of kind edit that have this payload.
pub(super) fn log_seeds(payload: &[u8]) -> Vec<Vec<u8>> {
    let record = |part: u8, kind: RecordKind, payload: &[u8]| {
        let len = (payload.len() as u16).to_le_bytes();
        [&[part, kind as u8, 0], &len[..], payload].concat()
    };
    let edit = |part| record(part, RecordKind::Edit, payload);
    let mark = |part| record(part, RecordKind::Mark, b"");
    vec![
        [edit(RECORD), edit(BEHIND), edit(RECORD), mark(RECORD)].concat(),
        [edit(RECORD), vec![SKIP, 2], edit(RECORD), vec![PIECE], edit(RECORD)].concat(),
        [edit(RECORD), edit(RECORD), vec![DAMAGE, 8, 16, 7], mark(RECORD), edit(STALE)].concat(),
    ]
}
