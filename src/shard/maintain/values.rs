//! Value files: syncs for those who cannot, and space that comes back.

use crate::base::error::Error;
use crate::io::Io;
use crate::shard::engine::Engine;

impl Engine {
    /// Syncs value files for futures, which may be dropped at any time and with
    /// them what came of a sync.
    pub(super) async fn sync_values_job<I: Io>(&self, number: usize, io: &I) {
        let owner = &self.owners[number];
        while !owner.is_stopping() {
            for &shard in &owner.shards {
                self.shard(shard).values.sync_for_others(io).await;
            }
            owner.value_work.syncs.wait().await;
        }
        for &shard in &owner.shards {
            self.shard(shard).values.fail(&Error::closed());
        }
    }

    /// Gives back space that nobody can read any more.
    pub(super) async fn clean_up_job<I: Io>(&self, number: usize, io: &I) {
        let owner = &self.owners[number];
        while !owner.is_stopping() {
            for &shard in &owner.shards {
                self.shard(shard).values.clean_up(io).await;
            }
            owner.value_work.waste.wait().await;
        }
    }
}
