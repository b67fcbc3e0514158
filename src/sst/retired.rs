//! Files of tables that nobody reads any more. New tables are written over them;
//! what is not used so goes after a while.
//!
//! Deleting a file is not free: where the file system passes it on to the device
//! (mounted with `discard`), a megabyte costs as much of the device's time as
//! writing one, and reads wait meanwhile. Blocks that are written over are
//! neither freed nor allocated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::sync::Mutex;
use crate::runtime::Event;

/// A file that is not used for so long goes.
const SPARE_NS: u64 = 10_000_000_000;

/// A file that a new table may be written over: so long, and worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Where the last reader of a table that was taken out of the tree leaves its
/// file, for the owner to use again, or to remove. One for each owner.
#[derive(Default)]
pub(crate) struct Retired {
    files: Mutex<Files>,
    /// Set when there is a file, and for whatever else the job that compacts
    /// looks at.
    pub(crate) work: Event,
    /// Set when there is a file, and when they are all to go.
    pub(crate) changed: Event,
}

#[derive(Default)]
struct Files {
    /// The oldest first.
    kept: Vec<Kept>,
    bytes: u64,
    /// Of damaged tables: not to be written over.
    unfit: Vec<PathBuf>,
    /// The disk is full: all are to go, at once.
    are_needed: bool,
    /// How many bytes there were when one had to go, if one still has to.
    bytes_before: Option<u64>,
}

struct Kept {
    spare: Spare,
    /// When it was first looked at.
    since_ns: Option<u64>,
}

/// What is to be done about the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// This one goes; at once if there is hurry, or else as slowly as is good for
    /// others.
    Goes { spare: Spare, in_hurry: bool },
    /// Look again after so many nanoseconds, unless something changes.
    Later(u64),
    /// There are none.
    Nothing,
}

impl Retired {
    /// Nobody has the file open any more.
    pub(crate) fn push(&self, spare: Spare) {
        self.give_back(vec![spare]);
        self.work.set();
    }

    /// The same of a table that was damaged.
    pub(crate) fn push_unfit(&self, path: PathBuf) {
        self.files.lock().unfit.push(path);
        self.work.set();
        self.changed.set();
    }

    /// Files for new tables in `dir` of about these lengths, as far as there are
    /// some there: at most an eighth longer, and no shorter than half of it. What
    /// went from one directory to another would have to be durable in both, and need
    /// not be possible.
    pub(crate) fn lend(&self, dir: &Path, lengths: impl Iterator<Item = u64>) -> Vec<Spare> {
        let mut lent = Vec::new();
        let files = &mut *self.files.lock();
        if files.are_needed {
            return lent;
        }
        for wanted in lengths {
            let fits = |spare: &Spare| {
                let is_about_so_long =
                    spare.bytes >= wanted / 2 && spare.bytes <= wanted + wanted / 8;
                is_about_so_long && spare.path.parent() == Some(dir)
            };
            let all = files.kept.iter().enumerate().filter(|(_, kept)| fits(&kept.spare));
            // Of those that are alike the one that was used last.
            let Some((at, _)) = all.max_by_key(|(_, kept)| kept.spare.bytes) else { break };
            let Kept { spare, .. } = files.kept.remove(at);
            files.bytes -= spare.bytes;
            lent.push(spare);
        }
        lent
    }

    /// They were not used.
    pub(crate) fn give_back(&self, spares: Vec<Spare>) {
        if spares.is_empty() {
            return;
        }
        {
            let files = &mut *self.files.lock();
            files.bytes += spares.iter().map(|spare| spare.bytes).sum::<u64>();
            files.kept.extend(spares.into_iter().map(|spare| Kept { spare, since_ns: None }));
        }
        // To wake somebody may take a system call: not under the lock.
        self.changed.set();
    }

    /// Has all files go at once.
    pub(crate) fn need_space(&self) {
        self.files.lock().are_needed = true;
        self.changed.set();
    }

    /// Whether that is so.
    pub(crate) fn are_needed(&self) -> bool {
        self.files.lock().are_needed
    }

    /// Bytes that wait to be used again.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.lock().bytes
    }

    /// What is to be done at this time, if at most so many bytes may wait to be
    /// used; and whether there are new files. There is hurry when it is twice as
    /// many, and they do not become fewer: files come faster than they go slowly.
    pub(crate) fn due(&self, now_ns: u64, bytes_max: u64) -> (Due, bool) {
        let files = &mut *self.files.lock();
        if let Some(path) = files.unfit.pop() {
            return (Due::Goes { spare: Spare { path, bytes: 0 }, in_hurry: false }, true);
        }
        let mut has_new = false;
        for kept in &mut files.kept {
            has_new |= kept.since_ns.is_none();
            kept.since_ns.get_or_insert(now_ns);
        }
        let age_ns = |kept: &Kept| now_ns - kept.since_ns.unwrap_or(now_ns);
        let goes =
            |kept: &&Kept| age_ns(kept) >= SPARE_NS || files.bytes > bytes_max || files.are_needed;
        let due = match files.kept.first() {
            None => {
                files.are_needed = false;
                Due::Nothing
            }
            Some(oldest) if !goes(&oldest) => Due::Later(SPARE_NS - age_ns(oldest)),
            Some(_) => {
                let before = files.bytes_before.replace(files.bytes);
                let grows = before.is_some_and(|before| files.bytes >= before);
                let in_hurry = files.are_needed || (grows && files.bytes / 2 > bytes_max);
                let Kept { spare, .. } = files.kept.remove(0);
                files.bytes -= spare.bytes;
                return (Due::Goes { spare, in_hurry }, has_new);
            }
        };
        files.bytes_before = None;
        (due, has_new)
    }

    /// All that are there, when their owner ends.
    pub(crate) fn take_all(&self) -> Vec<PathBuf> {
        let files = &mut *self.files.lock();
        files.bytes = 0;
        let kept = files.kept.drain(..).map(|kept| kept.spare.path);
        files.unfit.drain(..).chain(kept).collect()
    }
}

/// Of a table that was taken out of the tree.
pub(super) type Place = std::sync::OnceLock<Arc<Retired>>;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn dir() -> &'static Path {
        Path::new("shard")
    }

    fn spare(number: u64, bytes: u64) -> Spare {
        Spare { path: dir().join(number.to_string()), bytes }
    }

    #[test]
    fn files_are_lent_that_fit() {
        let retired = Retired::default();
        for (number, bytes) in [(1, 40), (2, 100), (3, 101), (4, 113), (5, 60)] {
            retired.push(spare(number, bytes));
        }
        let lent = retired.lend(dir(), [100, 100, 100, 100].into_iter());
        assert_eq!(lent, [spare(3, 101), spare(2, 100), spare(5, 60)]);
        assert_eq!(retired.bytes(), 153);
        retired.give_back(lent);
        assert_eq!(retired.bytes(), 414);
        assert_eq!(retired.lend(Path::new("other"), [40].into_iter()), []);
        assert_eq!(retired.lend(dir(), [40].into_iter()), [spare(1, 40)]);
    }

    #[test]
    fn files_that_come_faster_than_they_go_have_them_go_at_once() {
        let retired = Retired::default();
        let goes = |number, in_hurry| Due::Goes { spare: spare(number, 100), in_hurry };
        (1..=9).for_each(|number| retired.push(spare(number, 100)));
        // There are many, and they become fewer.
        assert_eq!(retired.due(0, 100), (goes(1, false), true));
        assert_eq!(retired.due(0, 100), (goes(2, false), false));
        // No more.
        (10..=12).for_each(|number| retired.push(spare(number, 100)));
        assert_eq!(retired.due(0, 100), (goes(3, true), true));
        assert_eq!(retired.due(0, 100), (goes(4, false), false));
        // There are as many as may be, about.
        (13..=15).for_each(|number| retired.push(spare(number, 100)));
        assert_eq!(retired.due(0, 600), (goes(5, false), true));
    }

    #[test]
    fn files_go_when_they_are_old_or_too_many_or_space_is_needed() {
        let retired = Retired::default();
        let goes = |number, in_hurry| Due::Goes { spare: spare(number, 100), in_hurry };
        assert_eq!(retired.due(0, 0), (Due::Nothing, false));
        retired.push(spare(1, 100));
        assert_eq!(retired.due(SECOND, 200), (Due::Later(SPARE_NS), true));
        retired.push(spare(2, 100));
        assert_eq!(retired.due(2 * SECOND, 200), (Due::Later(SPARE_NS - SECOND), true));
        assert_eq!(retired.due(2 * SECOND, 199), (goes(1, false), false));
        let old_ns = 2 * SECOND + SPARE_NS;
        assert_eq!(retired.due(old_ns - 1, 200), (Due::Later(1), false));
        assert_eq!(retired.due(old_ns, 200), (goes(2, false), false));
        retired.push(spare(3, 100));
        retired.need_space();
        assert_eq!(retired.lend(dir(), [100].into_iter()), []);
        assert_eq!(retired.due(old_ns, 200), (goes(3, true), true));
        assert!(retired.are_needed());
        assert_eq!(retired.due(old_ns, 200), (Due::Nothing, false));
        assert!(!retired.are_needed());
        retired.push_unfit("bad".into());
        assert_eq!(
            retired.due(old_ns, 200),
            (Due::Goes { spare: Spare { path: "bad".into(), bytes: 0 }, in_hurry: false }, true)
        );
    }
}
