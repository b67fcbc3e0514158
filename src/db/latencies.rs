//! How long operations took, for people and programs.

use std::fmt;

use hdrhistogram::Histogram;

use crate::base::histogram::{add, empty};
use crate::base::latency::{Operation, OperationPart, Recorder};

/// How long operations took since the database was opened, and what they waited for
/// meanwhile; see [`Db::latencies`](crate::Db::latencies). All values are nanoseconds,
/// right to 1 %; longer ones than 73 minutes count as that.
///
/// Of gets, puts and steps of scans that memory answers, one of every 64 of a thread, at
/// random, is timed and counts 64 times. One that waited for 10 µs or more counts once, as
/// do all durable writes and all other operations. So quantiles are right. Counts of fast
/// and slow ones together are off by chance, as which ones stand for others is: by 63 for each
/// thread, and some thousandths where a share of them is slow. Of one that was slow and not
/// sampled, what it waited is taken for the whole: about a microsecond is missing.
///
/// Operations that failed, and futures that were dropped, are not among them. An awaited
/// operation begins when it is first polled, and ends when it is polled to its end.
///
/// Printing it gives a table with a line for each operation.
///
/// ```
/// use ourodb::{Operation, OperationPart};
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ourodb::Db::open(dir.path(), Default::default())?;
/// db.put(b"key", b"value").wait()?;
/// let latencies = db.latencies();
/// let puts = latencies.whole(Operation::Put);
/// println!("{} puts, 99 % within {} ns", puts.len(), puts.value_at_quantile(0.99));
/// let wal = latencies.part(Operation::Put, OperationPart::Wal);
/// println!("waiting for the log took {} ns on average", wal.mean());
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies {
    /// In the order of [`Operation::ALL`], as the parts are.
    whole: Vec<Histogram<u64>>,
    parts: Vec<Vec<Histogram<u64>>>,
}

impl Latencies {
    pub(super) fn of(recorder: &Recorder) -> Self {
        let part = |operation| {
            OperationPart::ALL.iter().map(|part| recorder.part(operation, *part)).collect()
        };
        Self {
            whole: Operation::ALL.iter().map(|operation| recorder.whole(*operation)).collect(),
            parts: Operation::ALL.iter().map(|operation| part(*operation)).collect(),
        }
    }

    /// How long the operation took, from its call to its end.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// assert_eq!(db.latencies().whole(ourodb::Operation::Put).len(), 1);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn whole(&self, operation: Operation) -> &Histogram<u64> {
        &self.whole[operation as usize]
    }

    /// For how much of that it waited for something. An operation is counted here if
    /// it waited for this at all, and counts once in [`whole`](Self::whole).
    ///
    /// ```
    /// use ourodb::{Operation, OperationPart};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// let latencies = db.latencies();
    /// assert_eq!(latencies.part(Operation::Put, OperationPart::Wal).len(), 1);
    /// assert_eq!(latencies.part(Operation::Put, OperationPart::Throttle).len(), 0);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn part(&self, operation: Operation, part: OperationPart) -> &Histogram<u64> {
        &self.parts[operation as usize][part as usize]
    }

    /// Those of the time between two readings of the same opening of a database.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ourodb::Db::open(dir.path(), Default::default())?;
    /// db.put(b"key", b"value").wait()?;
    /// let earlier = db.latencies();
    /// db.put(b"key", b"value").wait()?;
    /// db.delete(b"key").wait()?;
    /// let interval = db.latencies().since(&earlier);
    /// assert_eq!(interval.whole(ourodb::Operation::Put).len(), 2);
    /// # Ok::<(), ourodb::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let all = |later: &[_], earlier: &[_]| {
            later.iter().zip(earlier).map(|(later, earlier)| difference(later, earlier)).collect()
        };
        let parts = self.parts.iter().zip(&earlier.parts);
        Self {
            whole: all(&self.whole, &earlier.whole),
            parts: parts.map(|(later, earlier)| all(later, earlier)).collect(),
        }
    }
}

/// What was added to a histogram.
fn difference(later: &Histogram<u64>, earlier: &Histogram<u64>) -> Histogram<u64> {
    let mut difference = empty();
    for bucket in later.iter_recorded() {
        let value = bucket.value_iterated_to();
        let before = match value <= earlier.max() {
            true => earlier.count_at(value),
            false => 0,
        };
        let count = bucket.count_at_value().saturating_sub(before);
        if count > 0 {
            add(&mut difference, value, count);
        }
    }
    difference
}

/// A time in the unit that suits it, with three digits.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return f.pad(&format!("{}ns", self.0)),
            1_000..1_000_000 => (1e3, "us"),
            1_000_000..1_000_000_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let value = self.0 as f64 / unit;
        let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        f.pad(&format!("{value:.decimals$}{name}"))
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const QUANTILES: [(&str, f64); 4] =
            [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        write!(f, "{:<12}{:>14}", "operation", "count")?;
        for (name, _) in QUANTILES {
            write!(f, "{name:>9}")?;
        }
        write!(f, "{:>9}", "max")?;
        for operation in Operation::ALL {
            let whole = self.whole(operation);
            write!(f, "\n{:<12}{:>14}", operation.name(), whole.len())?;
            for (_, quantile) in QUANTILES {
                write!(f, "{:>9}", Time(whole.value_at_quantile(quantile)))?;
            }
            write!(f, "{:>9}", Time(whole.max()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let times = [0, 999, 1_000, 12_345, 123_456, 9_999_999, 1_500_000_000];
        let times = times.map(|ns| Time(ns).to_string());
        assert_eq!(times, ["0ns", "999ns", "1.00us", "12.3us", "123us", "10.00ms", "1.50s"]);
    }

    #[test]
    fn a_difference_is_what_came_later() {
        let (mut earlier, mut later, mut expected) = (empty(), empty(), empty());
        for (value, before, after) in [(5, 1, 0), (300, 2, 1), (1 << 30, 0, 4)] {
            add(&mut later, value, before + after);
            if before > 0 {
                add(&mut earlier, value, before);
            }
            if after > 0 {
                add(&mut expected, value, after);
            }
        }
        assert_eq!(difference(&later, &earlier), expected);
        assert_eq!(difference(&later, &later).len(), 0);
        assert_eq!(difference(&earlier, &later).len(), 0);
    }
}
