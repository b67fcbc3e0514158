//! The space of tables that nobody reads any more: their files wait for new
//! tables to be written over them, and go if they wait for long.

use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::io::{Io, OpenMode};
use crate::runtime::first_of;
use crate::shard::engine::{Engine, Owner};
use crate::sst::{Due, Spare};
use crate::wal::discard;

/// A file goes by so many bytes at a time: a device that is told of it does
/// nothing else meanwhile, about a millisecond for so much on a slow one.
const STEP_BYTES: u64 = 1 << 20;

/// After each step come so many times its length without one; but no more than
/// this, or where syncs take long, files would be there for hours.
const STEP_PAUSES: u64 = 3;
const PAUSE_NS_MAX: u64 = 10_000_000;

impl Engine {
    pub(super) async fn reclaim_job<I: Io>(&self, number: usize, io: &I) {
        let owner = &self.owners[number];
        while !owner.is_stopping() {
            let (due, has_new) = owner.retired.due(io.now_ns(), self.spare_bytes_max(owner));
            if has_new {
                // Memory that those tables took may be of use to any owner.
                self.owners.iter().for_each(|owner| owner.retired.work.set());
            }
            match due {
                Due::Goes { spare, in_hurry } => {
                    if !in_hurry {
                        cut_slowly(owner, io, &spare).await;
                    }
                    discard(io, &spare.path).await;
                }
                Due::Later(ns) => {
                    first_of(owner.retired.changed.wait(), io.sleep(ns)).await;
                }
                Due::Nothing => owner.retired.changed.wait().await,
            }
        }
    }

    /// Removes all that is left, once the owners have ended: what they did last may
    /// have left files, too.
    pub(super) async fn reclaim_all<I: Io>(&self, io: &I) {
        for owner in &self.owners {
            for path in owner.retired.take_all() {
                discard(io, &path).await;
            }
        }
    }

    /// Bytes of files of an owner that may wait to be written over: half of its
    /// tables.
    fn spare_bytes_max(&self, owner: &Owner) -> u64 {
        let bytes = |&shard| {
            let view = Arc::clone(&self.shard(shard).lock().view);
            view.levels.tables().map(|(_, member)| member.meta().file_bytes).sum::<u64>()
        };
        owner.shards.iter().map(bytes).sum::<u64>() / 2
    }

    /// Something failed. When that was for lack of space, what there is to be had
    /// is given back at once.
    pub(in crate::shard) fn note_failure(&self, error: &Error) {
        if error.kind() == ErrorKind::NoSpace {
            self.owners.iter().for_each(|owner| owner.retired.need_space());
        }
    }
}

/// Cuts a file that is to go, step by step, unless there is hurry.
async fn cut_slowly<I: Io>(owner: &Owner, io: &I, spare: &Spare) {
    if spare.bytes > STEP_BYTES
        && let Err(error) = cut_steps(owner, io, spare).await
    {
        tracing::debug!(%error, "the rest of a file goes at once");
    }
}

async fn cut_steps<I: Io>(owner: &Owner, io: &I, spare: &Spare) -> Result<()> {
    // Not what somebody keeps under another name.
    let file = io.open(&spare.path, OpenMode::Reuse).await?;
    let mut left = io.len(&file).await?;
    let in_hurry = || owner.is_stopping() || owner.retired.are_needed();
    while left > STEP_BYTES && !in_hurry() {
        let began_ns = io.now_ns();
        left -= STEP_BYTES;
        io.cut(&file, left).await?;
        // What was cut off is free when that is durable.
        io.sync(&file).await?;
        let ended_ns = io.now_ns();
        let goes_on_ns = ended_ns + (STEP_PAUSES * (ended_ns - began_ns)).min(PAUSE_NS_MAX);
        let mut now_ns = ended_ns;
        while now_ns < goes_on_ns && !in_hurry() {
            first_of(owner.retired.changed.wait(), io.sleep(goes_on_ns - now_ns)).await;
            now_ns = io.now_ns();
        }
    }
    Ok(())
}
