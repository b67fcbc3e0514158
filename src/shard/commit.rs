//! Waiting for the log, and making writes visible.

use std::future::poll_fn;

use crate::base::error::Result;
use crate::base::latency::{Wait, Waited};
use crate::io::Io;
use crate::shard::engine::Engine;
use crate::shard::write::States;
use crate::wal::{self, Goal, Publication, Role, Stream, Turn};

impl Engine {
    /// Waits until the goal is reached; writes and syncs when it is its turn.
    pub(crate) async fn reach<I: Io>(
        &self,
        io: &I,
        owner: usize,
        goal: Goal,
        role: Role,
    ) -> Result<()> {
        let stream = &self.owners[owner].stream;
        self.see_to(io, stream, &mut stream.wait(goal, role)).await
    }

    /// The same; adds to `waited` how long it took.
    pub(super) async fn reach_timed<I: Io>(
        &self,
        io: &I,
        owner: usize,
        goal: Goal,
        role: Role,
        waited: &mut Waited,
    ) -> Result<()> {
        let stream = &self.owners[owner].stream;
        let began_ns = io.now_ns();
        let mut wait = stream.wait(goal, role);
        let reached = self.see_to(io, stream, &mut wait).await;
        let ended_ns = io.now_ns();
        let turn_ns = wait.begun_ns().map_or(began_ns, |ns| ns.clamp(began_ns, ended_ns));
        waited.add(Wait::Leader, turn_ns - began_ns);
        waited.add(Wait::Device, ended_ns - turn_ns);
        reached
    }

    async fn see_to<I: Io>(&self, io: &I, stream: &Stream, wait: &mut wal::Wait<'_>) -> Result<()> {
        loop {
            match wait.turn().await {
                Turn::Over(result) => return result,
                turn => self.lead(io, stream, turn).await,
            }
        }
    }

    /// Carries out a turn.
    pub(super) async fn lead<I: Io>(&self, io: &I, stream: &Stream, turn: Turn<'_>) {
        let publication = match turn {
            Turn::Over(_) => None,
            Turn::Lead(lead) => lead.write(io).await,
            Turn::Sync(sync) => sync.sync(io).await,
        };
        self.publish(stream, publication);
    }

    /// Waits until there is room in the log, since it said `seen`.
    pub(super) async fn log_room<I: Io>(&self, io: &I, owner: usize, seen: u64, role: Role) {
        let stream = &self.owners[owner].stream;
        match role {
            // With no buffer free, it writes the oldest itself.
            Role::Leader => {
                if let Some(lead) = stream.help() {
                    return self.lead(io, stream, Turn::Lead(lead)).await;
                }
            }
            Role::Follower => stream.ask_for_room(),
        }
        let mut waiting = Waiting { stream, id: None };
        poll_fn(|cx| stream.poll_room(cx, seen, &mut waiting.id)).await;
    }

    /// Makes writes visible: all at one moment, and then what became ready
    /// meanwhile.
    pub(super) fn publish(&self, stream: &Stream, publication: Option<Publication>) {
        let _panicking = stream.poison_on_panic();
        let mut next = publication;
        while let Some(publication) = next {
            let writes = publication.writes();
            if !writes.is_empty() {
                let mut states: States<'_> = States::default();
                for (shard, _) in writes {
                    states.push(self.shard(*shard).lock());
                }
                let at = self.clock.tick();
                for ((_, seq), state) in writes.iter().zip(states.as_mut()) {
                    state.published.publish(&self.clock, at, *seq);
                }
            }
            next = stream.published(publication);
        }
    }
}

/// Somebody waits for room in the log; dropping it leaves nothing behind.
struct Waiting<'a> {
    stream: &'a Stream,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stream.forget_room(&mut self.id);
    }
}
