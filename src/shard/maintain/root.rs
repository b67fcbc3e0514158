//! The root manifest: edits, and making it anew.

use crate::base::error::Result;
use crate::format::edit::Edit;
use crate::io::Io;
use crate::shard::engine::{Engine, Root, StreamState, root_snapshot};

impl Engine {
    pub(super) async fn append_root<I: Io>(
        &self,
        root: &mut Root,
        io: &I,
        edits: &[Edit],
    ) -> Result<()> {
        self.make_root_anew_if_long(root, io).await;
        let appended = root.manifest.append(io, edits).await;
        self.root_appended(root, appended)
    }

    /// The same for what is about to be relied on: see
    /// [`Manifest::append_witnessed`](crate::manifest::Manifest::append_witnessed).
    pub(super) async fn append_root_witnessed<I: Io>(
        &self,
        root: &mut Root,
        io: &I,
        edits: &[Edit],
    ) -> Result<()> {
        self.make_root_anew_if_long(root, io).await;
        let appended = root.manifest.append_witnessed(io, edits).await;
        self.root_appended(root, appended)
    }

    async fn make_root_anew_if_long<I: Io>(&self, root: &mut Root, io: &I) {
        if root.manifest.wants_rewrite() {
            let (id, snapshot) = (self.new_file_id(), self.root_snapshot(root));
            let replaced = root.manifest.replace(io, &self.dir, self.db, id, &snapshot).await;
            if let Err(error) = replaced {
                tracing::warn!(%error, "the root manifest could not be made anew");
            }
        }
    }

    fn root_appended(&self, root: &Root, appended: Result<()>) -> Result<()> {
        if let Some(cause) = root.manifest.poisoned() {
            for owner in &self.owners {
                owner.stream.poison(cause);
            }
        }
        appended
    }

    /// What a root manifest made anew starts with.
    fn root_snapshot(&self, root: &Root) -> Vec<Edit> {
        let old = root.old_streams.iter().map(|old| StreamState {
            key: old.key,
            start: old.start,
            cut: old.cut,
        });
        let mut edits = root_snapshot(old, &root.map_dirs);
        edits.extend(self.stream_starts());
        for owner in &self.owners {
            let map = owner.map.lock().clone();
            edits.extend(map.map(|map| Edit::StreamMap { stream: owner.stream.key, map }));
        }
        edits
    }

    /// Where each stream starts, and up to which number its shards have their writes in
    /// tables. Within the root's turn.
    pub(super) fn stream_starts(&self) -> impl Iterator<Item = Edit> {
        self.owners.iter().map(|owner| Edit::StreamStart {
            stream: owner.stream.key,
            start: owner.stream.start(),
            flushed: self.flushed(owner),
        })
    }
}
