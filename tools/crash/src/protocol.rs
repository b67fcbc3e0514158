//! What a worker says on its stdout: first the database as it found it, then
//! one record before and one after each operation, and now and then a count.
//!
//! A record is one unbuffered write, shorter than what a pipe takes in one
//! piece: it survives the worker, and it never arrives in part. All numbers
//! are little-endian.

use std::io::{self, Read, Write};

use ourodb::KEY_BYTES_MAX;

use crate::script::{KEYS_PER_CLIENT, LONG_VALUE_BYTES_MAX, Streams};

/// Said once the database is open.
pub(crate) const OPENED: u8 = b'O';

/// Orders to the worker, on its stdin.
pub(crate) const GO: u8 = b'g';
pub(crate) const CLOSE: u8 = b'c';
/// A few operations, then close.
pub(crate) const SOME: u8 = b's';

pub(crate) const RECORD_BYTES: usize = 16;

/// Where an operation is; or what the number of a record counts, since the
/// database was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    Done,
    /// Memtables that became tables.
    Flushes,
    Compactions,
    /// Gets and scans that were judged.
    Gets,
    Scans,
}

const STEPS: [(u8, Step); 6] = [
    (b's', Step::Start),
    (b'd', Step::Done),
    (b'f', Step::Flushes),
    (b'c', Step::Compactions),
    (b'g', Step::Gets),
    (b'r', Step::Scans),
];

/// One step of one operation, or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) step: Step,
    pub(crate) client: u8,
    pub(crate) number: u64,
}

impl Record {
    pub(crate) fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let step = STEPS.iter().find(|(_, step)| *step == self.step);
        bytes[0] = step.expect("each step has a byte").0;
        bytes[1] = self.client;
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// None if these bytes are no record.
    pub(crate) fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (head, number) = bytes.split_at(8);
        let [step, _, 0, 0, 0, 0, 0, 0] = head else {
            return None;
        };
        let (_, step) = *STEPS.iter().find(|(byte, _)| byte == step)?;
        Some(Self { step, client: head[1], number: u64::from_le_bytes(number.try_into().ok()?) })
    }
}

/// Keys and values, in the order of a scan.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// All there is in a database, and how its keys are spread over WAL streams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) streams: Streams,
    pub(crate) rows: Rows,
}

impl Content {
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for stream in self.streams.iter().flatten() {
            out.write_all(&stream.to_le_bytes())?;
        }
        write_length(out, self.rows.len())?;
        for field in self.rows.iter().flat_map(|(key, value)| [key, value]) {
            write_length(out, field.len())?;
            out.write_all(field)?;
        }
        out.flush()
    }

    pub(crate) fn read(input: &mut impl Read, clients: u8) -> io::Result<Self> {
        let mut streams = Streams::new();
        for _ in 0..clients {
            let mut bytes = [0; 2 * KEYS_PER_CLIENT];
            input.read_exact(&mut bytes)?;
            let numbers = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            streams.push(numbers.collect());
        }
        let mut rows = Rows::new();
        for _ in 0..read_length(input, usize::MAX)? {
            rows.push((
                read_bytes(input, KEY_BYTES_MAX)?,
                read_bytes(input, LONG_VALUE_BYTES_MAX)?,
            ));
        }
        Ok(Self { streams, rows })
    }
}

fn write_length(out: &mut impl Write, length: usize) -> io::Result<()> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())
}

fn read_length(input: &mut impl Read, length_max: usize) -> io::Result<usize> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    let length = u32::from_le_bytes(bytes) as usize;
    if length > length_max {
        return Err(io::Error::other(format!("a length of {length}; the limit is {length_max}")));
    }
    Ok(length)
}

fn read_bytes(input: &mut impl Read, length_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; read_length(input, length_max)?];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_both_ways() {
        for (_, step) in STEPS {
            let record = Record { step, client: 7, number: u64::MAX - 3 };
            assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record));
        }
        assert_eq!(Record::from_bytes(&[0; RECORD_BYTES]), None);
    }

    #[test]
    fn content_both_ways() {
        let content = Content {
            streams: vec![vec![3; KEYS_PER_CLIENT], vec![900; KEYS_PER_CLIENT]],
            rows: vec![(vec![], b"v".to_vec()), (b"k".to_vec(), vec![])],
        };
        let mut bytes = Vec::new();
        content.write(&mut bytes).unwrap();
        assert_eq!(Content::read(&mut &bytes[..], 2).unwrap(), content);
        assert!(Content::read(&mut &bytes[..bytes.len() - 1], 2).is_err());
    }
}
