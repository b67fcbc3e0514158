//! Puts of a load that are committed many at once: a B-tree writes whole pages
//! for each commit, and who only wants the data there need not wait for that.

use std::sync::{Mutex, MutexGuard};

use ouro_bench::failure::Failure;
use ouro_bench::target::Rows;
use serde::Serialize;

/// What only engines of transactions can be asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Settings {
    /// Puts of one transaction. More than one are for loads: reads see nothing of
    /// a put before its commit, and what it was to survive it survives only then.
    pub load_batch: u32,
}

/// The rows put by all clients since the last commit. They stay where a commit
/// fails, so that the next one has them too, and who closes hears of it.
pub(super) struct Batch {
    rows_max: usize,
    rows: Mutex<Rows>,
}

impl Batch {
    /// None where each put is a transaction of its own.
    pub(super) fn new(Settings { load_batch }: Settings) -> Option<Self> {
        let rows_max = load_batch as usize;
        (rows_max > 1).then(|| Self { rows_max, rows: Mutex::default() })
    }

    /// Adds a row, and commits all if there are enough.
    pub(super) fn put(
        &self,
        key: &[u8],
        value: &[u8],
        commit: impl FnOnce(&Rows) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rows = self.rows();
        rows.push(key, value);
        if rows.len() < self.rows_max {
            return Ok(());
        }
        commit(&rows)?;
        rows.clear();
        Ok(())
    }

    /// Commits what there is.
    pub(super) fn finish(
        &self,
        commit: impl FnOnce(&Rows) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rows = self.rows();
        if !rows.is_empty() {
            commit(&rows)?;
            rows.clear();
        }
        Ok(())
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().expect("an engine that panics ends the load")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_committed_in_batches_and_at_the_end() {
        assert!(Batch::new(Settings { load_batch: 1 }).is_none());
        let batch = Batch::new(Settings { load_batch: 3 }).unwrap();
        let mut commits = Vec::new();
        let mut commit = |rows: &Rows| {
            commits.push(rows.iter().map(|(key, _)| key[0]).collect::<Vec<_>>());
            Ok(())
        };
        for number in 0..7 {
            batch.put(&[number], b"value", &mut commit).unwrap();
        }
        batch.finish(&mut commit).unwrap();
        batch.finish(&mut commit).unwrap();
        assert_eq!(commits, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }

    #[test]
    fn rows_outlive_a_commit_that_fails() {
        let batch = Batch::new(Settings { load_batch: 2 }).unwrap();
        let fail = |_: &Rows| Err(Failure::Other("no".to_owned()));
        batch.put(b"a", b"1", fail).unwrap();
        assert!(batch.put(b"b", b"2", fail).is_err());
        assert!(batch.put(b"c", b"3", fail).is_err());
        assert!(batch.finish(fail).is_err());
        let whole = |rows: &Rows| {
            assert_eq!(rows.len(), 3);
            Ok(())
        };
        batch.finish(whole).unwrap();
        batch.finish(fail).unwrap();
    }
}
