//! On which core a thread runs.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::base::error::{Error, ErrorKind, Result};

/// Keeps the calling thread on one of the cores that it may use: the
/// `number`-th, counted round and round.
///
/// # Errors
/// When the system refuses it; the thread then runs wherever it did.
pub(crate) fn pin(number: usize) -> Result<()> {
    let refused = |errno: rustix::io::Errno| {
        Error::new(
            ErrorKind::Busy,
            format!(
                "the system does not let owners keep to cores of their own ({errno}), and they \
                 run wherever it puts them: leave out Options::pin, or allow sched_setaffinity"
            ),
        )
    };
    let allowed = sched_getaffinity(None).map_err(refused)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let mut chosen = CpuSet::new();
    chosen.set(cores[number % cores.len().max(1)]);
    sched_setaffinity(None, &chosen).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_to_its_core() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let before = sched_getaffinity(None).expect("it may be read");
                pin(before.count() as usize * 3 + 1).expect("allowed");
                let after = sched_getaffinity(None).expect("it may be read");
                assert_eq!(after.count(), 1);
                let core = (0..CpuSet::MAX_CPU).find(|&core| after.is_set(core));
                assert!(before.is_set(core.expect("one")));
            });
        });
    }
}
