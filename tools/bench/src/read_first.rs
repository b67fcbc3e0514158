//! Reading every record once, before anything is measured, so that what fits in memory
//! is there. Each process begins with an empty cache, and a workload that chooses its
//! records at random takes very long to come by the last of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::output::Bar;
use crate::runner::Progress;
use crate::shape::{Data, Shape};
use crate::target::{Handle, Target};

/// Threads that read, each one record at a time: what keeps a disk busy.
const THREADS: usize = 16;
/// How often the bar moves.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Reads all records, and checks them, until `interrupt` is set.
///
/// # Errors
/// The first read that fails, or returns something wrong.
pub fn read_all<T: Target>(target: &T, data: &Data, interrupt: &AtomicBool) -> Result<(), Failure> {
    let (records, next) = (data.shape.records, AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let read = || {
        let mut handle = target.handle();
        let mut key = Vec::new();
        while !interrupt.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
            let record = next.fetch_add(1, Ordering::Relaxed);
            if record >= records {
                break;
            }
            data.keys.write(record, &mut key);
            let checked = handle.get(&key).and_then(|value| check(data, record, &key, value));
            if let Err(failure) = checked {
                stop.store(true, Ordering::Relaxed);
                return Err(failure);
            }
        }
        Ok(())
    };
    let bar = Bar::new("reading all".to_owned(), Some(records), 0);
    let began = Instant::now();
    let result = thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            match thread::Builder::new().spawn_scoped(scope, read) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(Failure::no_threads("those who read first")(error));
                }
            }
        }
        while threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(SHOWN_EVERY);
            let ops = next.load(Ordering::Relaxed).min(records);
            bar.update(Progress { elapsed: began.elapsed(), ops });
        }
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    bar.finish();
    result
}

/// Whether that is the record's value.
fn check(
    data: &Data,
    record: u64,
    key: &[u8],
    value: Option<impl AsRef<[u8]>>,
) -> Result<(), Failure> {
    let Shape { has_gaps, is_traced, .. } = data.shape;
    let fault = match value {
        None if has_gaps || is_traced => return Ok(()),
        None => "is missing",
        Some(_) if is_traced => return Ok(()),
        Some(value) if data.values.verify(record, value.as_ref()) => return Ok(()),
        Some(_) => "has a wrong value",
    };
    Err(Failure::Other(format!("key {} (record {record}) {fault}", key.escape_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeySizes;
    use crate::sizes::Sizes;

    #[test]
    fn a_record_has_its_own_value() {
        let shape = Shape::new(10, KeySizes::fixed(24), Sizes::Fixed(100), 1).unwrap();
        let mut value = Vec::new();
        let of = |has_gaps, is_traced| Data::new(Shape { has_gaps, is_traced, ..shape });
        let data = of(false, false);
        data.values.write(3, 1, &mut value);
        let fault = |data: &Data, record, value: Option<&[u8]>| {
            check(data, record, b"key", value).err().map(|failure| failure.to_string())
        };
        assert_eq!(fault(&data, 3, Some(&value)), None);
        let wrong = Some("key key (record 4) has a wrong value".to_owned());
        assert_eq!(fault(&data, 4, Some(&value)), wrong);
        let missing = Some("key key (record 3) is missing".to_owned());
        assert_eq!(fault(&data, 3, None), missing);
        assert_eq!(fault(&of(true, false), 3, None), None);
        assert_eq!(fault(&of(true, false), 4, Some(&value)), wrong);
        assert_eq!(fault(&of(true, true), 4, Some(&value)), None);
    }
}
