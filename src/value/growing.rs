//! A value file that was made in this opening: its values, and their syncs.
//!
//! A value is durable once a sync succeeded that began after all of its writes
//! had completed. Those who wait share syncs: one is under way at a time, for
//! all values that were written before it began; whoever comes later waits for
//! the next. A sync that failed, or whose outcome nobody saw, fails every value
//! that was not durable before: the file is not synced again.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::ids::FileId;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Mutex;
use crate::io::{File, Io};
use crate::runtime::Waiters;
use crate::value::pin::Queue;

/// See the module's text.
pub(super) struct Growing {
    pub(super) id: FileId,
    pub(super) file: File,
    syncs: Mutex<Syncs>,
}

#[derive(Default)]
struct Syncs {
    /// Values that are written. The number of a value is what this was when it
    /// was.
    written: u64,
    /// Values with numbers up to this are durable.
    durable: u64,
    is_syncing: bool,
    /// The owner was asked to sync.
    is_asked: bool,
    failed: Option<Error>,
    waiters: Waiters,
}

/// A sync under way. If it ends without having said what came of it, it failed.
struct Sync<'a> {
    growing: &'a Growing,
    covers: u64,
    is_over: bool,
}

impl Growing {
    pub(super) fn new(id: FileId, file: File) -> Arc<Self> {
        Arc::new(Self { id, file, syncs: Mutex::default() })
    }

    /// All of a value is written: its number.
    pub(super) fn written(&self) -> u64 {
        let mut syncs = self.syncs.lock();
        syncs.written += 1;
        syncs.written
    }

    /// Waits until the value with this number is durable. With `may_sync` it
    /// syncs when it is its turn, and must not be dropped then; otherwise the
    /// owner is asked to.
    pub(super) async fn durable<I: Io>(
        self: &Arc<Self>,
        io: &I,
        number: u64,
        may_sync: bool,
        queue: &Queue,
    ) -> Result<()> {
        loop {
            let mut waiting = Waiting { growing: self, id: None };
            let turn = poll_fn(|cx| {
                let mut syncs = self.syncs.lock();
                if syncs.durable >= number {
                    return Poll::Ready(Ok(None));
                }
                if let Some(error) = &syncs.failed {
                    return Poll::Ready(Err(error.clone()));
                }
                if may_sync && !syncs.is_syncing {
                    return Poll::Ready(Ok(Some(self.begin(&mut syncs))));
                }
                let replaced = syncs.waiters.register(&mut waiting.id, cx.waker());
                let asks = !syncs.is_syncing && !std::mem::replace(&mut syncs.is_asked, true);
                drop(syncs);
                drop(replaced);
                if asks {
                    queue.push_sync(Arc::clone(self));
                }
                Poll::Pending
            })
            .await?;
            match turn {
                None => return Ok(()),
                Some(sync) => drop(sync.run(io).await),
            }
        }
    }

    /// Syncs for those who asked, unless somebody does it already. On an error
    /// the file is to be retired.
    pub(super) async fn sync_for_others<I: Io>(&self, io: &I) -> Result<()> {
        let sync = {
            let mut syncs = self.syncs.lock();
            syncs.is_asked = false;
            if syncs.is_syncing || syncs.failed.is_some() || syncs.durable == syncs.written {
                return Ok(());
            }
            self.begin(&mut syncs)
        };
        sync.run(io).await
    }

    fn begin(&self, syncs: &mut Syncs) -> Sync<'_> {
        assert!(!std::mem::replace(&mut syncs.is_syncing, true), "one sync at a time");
        Sync { growing: self, covers: syncs.written, is_over: false }
    }

    /// Fails every value that is not durable.
    pub(super) fn fail(&self, cause: &Error) {
        let waiters = {
            let mut syncs = self.syncs.lock();
            syncs.failed.get_or_insert_with(|| cause.clone());
            syncs.waiters.take_all()
        };
        waiters.wake();
    }

    /// Whether values can still become durable.
    pub(super) fn has_failed(&self) -> bool {
        self.syncs.lock().failed.is_some()
    }
}

impl Sync<'_> {
    async fn run<I: Io>(mut self, io: &I) -> Result<()> {
        let is_needless = planted(Bug::ValueUnsynced);
        let result = if is_needless { Ok(()) } else { io.sync(&self.growing.file).await };
        let result = result.map_err(|error| error.context("a long value is not durable"));
        self.end(&result);
        result
    }

    fn end(&mut self, result: &Result<()>) {
        self.is_over = true;
        let waiters = {
            let mut syncs = self.growing.syncs.lock();
            syncs.is_syncing = false;
            match result {
                Ok(()) if syncs.failed.is_none() => syncs.durable = self.covers,
                Ok(()) => {}
                Err(error) => {
                    syncs.failed.get_or_insert_with(|| error.clone());
                }
            }
            syncs.waiters.take_all()
        };
        waiters.wake();
    }
}

impl Drop for Sync<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let unknown = "a sync was given up; whether a long value is durable is unknown";
            self.end(&Err(Error::new(ErrorKind::Io, unknown)));
        }
    }
}

/// Somebody waits for a sync; dropping it leaves nothing behind.
struct Waiting<'a> {
    growing: &'a Growing,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let removed = self.growing.syncs.lock().waiters.remove(&mut self.id);
        drop(removed);
    }
}
