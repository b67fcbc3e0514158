//! Traces: what a service did, as a CSV file, to be done again.
//!
//! A line is a time in seconds, an operation, a key, and a size: bytes of a value that is put,
//! rows of a scan. Times count from that of the first line. A first line with names is passed
//! over.
//!
//! ```csv
//! time,operation,key,size
//! 0.000120,put,user:17,412
//! 0.000305,get,user:17,
//! 0.001000,scan,user:1,20
//! ```
//!
//! All of it is in memory: some 40 bytes and the key for each operation.

use std::path::Path;
use std::sync::Arc;

use crate::permutation::mix64;
use crate::workload::OpKind;

/// The longest time of a trace.
const SECONDS_MAX: f64 = 86_400.0;

/// What was done, in the order of its times.
#[derive(Debug, PartialEq)]
pub struct Trace {
    ops: Vec<TraceOp>,
    /// All keys, one behind the other.
    keys: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct TraceOp {
    at_ns: u64,
    kind: OpKind,
    size: u32,
    key_len: u32,
    key_start: u64,
}

/// One operation of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced<'a> {
    /// What was done.
    pub kind: OpKind,
    /// To which key.
    pub key: &'a [u8],
    /// Bytes of the value, or rows.
    pub size: usize,
}

impl Trace {
    /// Reads a file. The message says what is wrong, and in which line.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = std::fs::File::open(path).map_err(|error| format!("cannot read it: {error}"))?;
        Self::parse(std::io::BufReader::new(file))
    }

    fn parse(from: impl std::io::Read) -> Result<Self, String> {
        let mut lines = csv::ReaderBuilder::new();
        let lines = lines.has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(from);
        let mut trace = Self { ops: Vec::new(), keys: Vec::new() };
        let mut first = None;
        for (number, line) in lines.into_byte_records().enumerate() {
            let line = line.map_err(|error| error.to_string())?;
            let at = line.position().map_or(number as u64 + 1, csv::Position::line);
            let time =
                line.get(0).and_then(|time| std::str::from_utf8(time).ok()?.parse::<f64>().ok());
            if time.is_none() && number == 0 && line.get(1).and_then(kind).is_none() {
                continue;
            }
            let time = time.map(|time| time - *first.get_or_insert(time));
            trace.add(time, &line).map_err(|why| format!("line {at}: {why}"))?;
        }
        match trace.ops.is_empty() {
            true => Err("there is no operation in it".to_owned()),
            false => Ok(trace),
        }
    }

    fn add(&mut self, time: Option<f64>, line: &csv::ByteRecord) -> Result<(), String> {
        let time = time.filter(|time| time.is_finite());
        let time = time.ok_or("the time is a number of seconds")?;
        let last_ns = self.last_ns();
        if time < 0.0 || (time * 1e9).round() < last_ns as f64 {
            return Err("the time is before that of the line before".to_owned());
        }
        if time > SECONDS_MAX {
            return Err("the time is more than a day after that of the first line".to_owned());
        }
        let at_ns = (time * 1e9).round() as u64;
        let kind = line.get(1).and_then(kind);
        let kind = kind.ok_or("the operation is get, put, delete or scan")?;
        let key = line.get(2).ok_or("there is no key")?;
        if key.len() > ourodb::KEY_BYTES_MAX {
            return Err(format!("the key has more than {} bytes", ourodb::KEY_BYTES_MAX));
        }
        let size = match line.get(3).unwrap_or_default() {
            b"" if matches!(kind, OpKind::Read | OpKind::Delete) => Some(0),
            text => std::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok()),
        };
        let size = size.ok_or("the size is the bytes of a put, or the rows of a scan")?;
        if size as usize > ourodb::VALUE_BYTES_MAX {
            return Err(format!("a value has at most {} bytes", ourodb::VALUE_BYTES_MAX));
        }
        let (key_start, key_len) = (self.keys.len() as u64, key.len() as u32);
        self.keys.extend_from_slice(key);
        self.ops.push(TraceOp { at_ns, kind, size, key_len, key_start });
        Ok(())
    }

    fn key(&self, op: &TraceOp) -> &[u8] {
        &self.keys[op.key_start as usize..][..op.key_len as usize]
    }

    /// How often each kind occurs.
    pub fn kinds(&self) -> impl Iterator<Item = OpKind> {
        self.ops.iter().map(|op| op.kind)
    }

    /// How many operations there are.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.ops.len()
    }

    /// From the start to the last operation, in nanoseconds.
    #[must_use]
    pub fn last_ns(&self) -> u64 {
        self.ops.last().map_or(0, |op| op.at_ns)
    }

    /// The longest value that is put.
    #[must_use]
    pub fn value_bytes_max(&self) -> usize {
        let puts = self.ops.iter().filter(|op| op.kind.puts());
        puts.map(|op| op.size as usize).max().unwrap_or(0)
    }
}

/// The operation with this name.
fn kind(name: &[u8]) -> Option<OpKind> {
    Some(match name.to_ascii_lowercase().as_slice() {
        b"get" | b"read" => OpKind::Read,
        b"put" | b"set" | b"update" | b"insert" | b"write" => OpKind::Update,
        b"delete" | b"remove" => OpKind::Delete,
        b"scan" => OpKind::Scan,
        _ => return None,
    })
}

/// What one of several clients does of a trace: all that is done to its keys, so that each key
/// sees its operations in their order.
#[derive(Clone, Debug)]
pub struct Part {
    trace: Arc<Trace>,
    /// Numbers of its operations.
    own: Arc<[u32]>,
    next: usize,
}

impl Part {
    /// The part of `client`, of so many, of the keys that it `keeps_to`.
    #[must_use]
    pub fn new(
        trace: &Arc<Trace>,
        (client, clients): (u64, u64),
        keeps_to: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let is_own = |op: &TraceOp| {
            let key = trace.key(op);
            keeps_to(key) && hash(key) % clients == client
        };
        let own = trace.ops.iter().zip(0..).filter(|(op, _)| is_own(op)).map(|(_, number)| number);
        Self { trace: Arc::clone(trace), own: own.collect(), next: 0 }
    }

    /// When its operations are due, so many times faster than they were.
    #[must_use]
    pub fn dues_ns(&self, speed: f64) -> Arc<[u64]> {
        let dues = self.own.iter().map(|number| self.trace.ops[*number as usize].at_ns);
        dues.map(|at_ns| (at_ns as f64 / speed) as u64).collect()
    }

    /// The next one.
    pub fn take(&mut self) -> Option<Traced<'_>> {
        let number = *self.own.get(self.next)?;
        self.next += 1;
        let op = &self.trace.ops[number as usize];
        Some(Traced { kind: op.kind, key: self.trace.key(op), size: op.size as usize })
    }
}

/// A number for a key that is not of this tool's making.
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    let words = key.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(mix64(key.len() as u64), |hash, word| mix64(hash ^ word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "time,operation,key,size\n0,put,a,100\n0.5, GET ,\"b,\"\"c\",\n0.5,scan,,7\n2,delete,a\n";

    #[test]
    fn a_trace_is_read() {
        let trace = Arc::new(Trace::parse(SMALL.as_bytes()).unwrap());
        assert_eq!(
            (trace.ops(), trace.last_ns(), trace.value_bytes_max()),
            (4, 2_000_000_000, 100)
        );
        let mut part = Part::new(&trace, (0, 1), |_| true);
        assert_eq!(*part.dues_ns(2.0), [0, 250_000_000, 250_000_000, 1_000_000_000]);
        let mut found = Vec::new();
        while let Some(Traced { kind, key, size }) = part.take() {
            found.push((kind, key.to_vec(), size));
        }
        let expected: [(OpKind, &[u8], usize); 4] = [
            (OpKind::Update, b"a", 100),
            (OpKind::Read, b"b,\"c", 0),
            (OpKind::Scan, b"", 7),
            (OpKind::Delete, b"a", 0),
        ];
        assert!(found.iter().map(|(kind, key, size)| (*kind, &key[..], *size)).eq(expected));
    }

    /// As a service writes them: seconds since 1970.
    #[test]
    fn times_count_from_the_first_line() {
        let trace = Trace::parse("1796083200.5,get,a\n1796083202,get,a\n".as_bytes()).unwrap();
        assert_eq!(trace.last_ns(), 1_500_000_000);
        let trace = Trace::parse("-3,get,a\n-2,get,a\n".as_bytes()).unwrap();
        assert_eq!(trace.last_ns(), 1_000_000_000);
    }

    #[test]
    fn every_operation_is_one_clients_and_keys_keep_their_order() {
        let lines: String = (0..1000).map(|i| format!("{i},put,key{},{i}\n", i % 37)).collect();
        let trace = Arc::new(Trace::parse(lines.as_bytes()).unwrap());
        let mut sizes = Vec::new();
        for client in 0..5 {
            let mut part = Part::new(&trace, (client, 5), |_| true);
            let mut last = std::collections::HashMap::new();
            let mut count = 0;
            while let Some(op) = part.take() {
                let before = last.insert(op.key.to_vec(), op.size);
                assert!(before.is_none_or(|before| before < op.size));
                sizes.push(op.size);
                count += 1;
            }
            assert!(count > 0);
        }
        sizes.sort_unstable();
        assert!(sizes.into_iter().eq(0..1000));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        for (text, words) in [
            ("", "no operation"),
            ("time,operation,key,size\n", "no operation"),
            ("0,put,a,1\n1,frob,a,1\n", "line 2: the operation"),
            ("1,get,a\n0.5,get,a\n", "line 2: the time is before"),
            ("0,get,a\nsoon,get,a\n", "line 2: the time is a number"),
            ("inf,get,a\n", "line 1: the time is a number"),
            ("soon,put,a,10\n", "line 1: the time is a number"),
            ("5,get,a\n86406,get,a\n", "line 2: the time is more than a day"),
            ("0,put,a,\n", "line 1: the size"),
            ("0,put,a,much\n", "line 1: the size"),
            ("0,get\n", "line 1: there is no key"),
            ("0,put,a,4294967295\n", "line 1: a value has at most"),
        ] {
            let error = Trace::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
