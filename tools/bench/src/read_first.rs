//! Reading every record once, before anything is measured, so that what fits in memory
//! is there. Each process begins with an empty cache, and a workload that chooses its
//! records at random takes very long to come by the last of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::output::Bar;
use crate::runner::Progress;
use crate::shape::Data;
use crate::target::{Handle, Target};

/// Threads that read, each one record at a time: what keeps a disk busy.
const THREADS: usize = 16;
/// How often the bar moves.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Reads all records, until `interrupt` is set.
///
/// # Errors
/// The first read that fails.
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
            if let Err(failure) = handle.get(&key) {
                stop.store(true, Ordering::Relaxed);
                return Err(failure);
            }
        }
        Ok(())
    };
    let bar = Bar::new("reading all".to_owned(), Some(records), 0);
    let began = Instant::now();
    let result = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(read)).collect();
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
