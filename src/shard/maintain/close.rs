//! Closing: witnesses for all that is durable, and nothing left in mappings.

use std::future::poll_fn;

use crate::base::error::Result;
use crate::format::edit::Edit;
use crate::io::Io;
use crate::shard::engine::Engine;
use crate::shard::maintain::log::Spare;
use crate::value::Changes;
use crate::wal::{Goal, Role, discard, map_path};

impl Engine {
    /// Leaves witnesses: so that the next opening can tell, of every record,
    /// that it was durable. Nothing else is written any more, and no mapping is
    /// needed.
    pub(crate) async fn finish<I: Io>(&self, io: &I) -> Result<()> {
        // First: a full disk may have no room for witnesses otherwise.
        self.reclaim_all(io).await;
        let finished = self.leave_witnesses(io).await;
        // Also after a failure: once the lock is gone, the next opening cuts
        // the log, and a write that came in later would be acknowledged and
        // lost. So nobody begins one any more, and who waits for that is told.
        if let Err(cause) = &finished {
            for owner in &self.owners {
                owner.stream.poison(cause);
            }
        }
        for owner in &self.owners {
            poll_fn(|cx| owner.stream.poll_settled(cx)).await;
        }
        self.reclaim_all(io).await;
        for owner in &self.owners {
            // All it holds is durable in segments now, and the root manifest says
            // so: on tmpfs it would take memory for as long as nobody opens.
            let place = owner.map.lock().clone();
            if let Some(place) = place.filter(|_| finished.is_ok()) {
                discard(io, &map_path(&owner.maker.dir, self.db, &place)).await;
            }
            // Who still has a handle keeps the engine, and not this.
            let lock = owner.map_lock.lock().take();
            if let Some(lock) = lock
                && let Err(error) = io.unlock(&lock)
            {
                tracing::warn!(%error, "a copy of this database may find a mapping in use");
            }
        }
        finished
    }

    async fn leave_witnesses<I: Io>(&self, io: &I) -> Result<()> {
        let mut left = Ok(());
        for number in 0..self.owners.len() {
            // Also when it failed for another one: each has writes of its own.
            left = left.and(self.leave_witness(io, number).await);
        }
        left?;
        let mut root = self.root.lock().await;
        root.manifest.append(io, &[Edit::Clean]).await?;
        root.manifest.witness(io).await
    }

    async fn leave_witness<I: Io>(&self, io: &I, number: usize) -> Result<()> {
        let owner = &self.owners[number];
        // Before the mark, for which there may be no room.
        let all = Goal::Durable(owner.stream.end());
        self.reach(io, number, all, Role::Leader).await?;
        self.write_mark(number, io, Spare::Own).await?;
        for (&shard, manifest) in owner.shards.iter().zip(&owner.manifests) {
            let mut manifest = manifest.lock().await;
            // Or the next opening would give back again what was given back.
            let values = &self.shard(shard).values;
            let edits = values.edits(Changes::default());
            if !edits.is_empty() {
                manifest.append(io, &edits).await?;
                values.committed(&edits);
            }
            manifest.witness(io).await?;
        }
        Ok(())
    }
}
