//! The state of the simulated machine, all of it behind one lock.
//!
//! Nothing here runs code of the engine: what wakes, answers or drops
//! something of the engine's is handed out as an [`Action`] or a [`Wreck`],
//! for the caller to carry out once the lock is gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::disk::{Disk, InodeId};
use super::faults::{FaultPlan, Faults};
use super::request::{Change, Delivery, Op, Request, node};
use super::rng::{Rng, Trace, hash};
use super::scheduler::{BoxFuture, Tasks};
use super::{Node, Shared};
use crate::io::mapping::SimMemory;

/// What one poll of a task takes. So a task that polls until something has
/// happened gets there.
const POLL_NS: u64 = 200;

/// How often, per million completions, a mapped file is written back.
const WRITEBACK_PPM: u32 = 100_000;

pub(super) struct Machine {
    pub(super) rng: Rng,
    /// Draws when the kernel writes back: a stream of its own, as that is nobody's
    /// request.
    writeback: Rng,
    pub(super) trace: Trace,
    pub(super) now_ns: u64,
    /// Counts restarts. Files remember the boot they were opened in.
    pub(super) boot: u64,
    /// Another one whenever the power was gone.
    pub(super) boot_id: [u8; 16],
    /// Completions until a crash, and which one.
    pub(super) crash_after: Option<(u64, Crash)>,
    /// Between a crash and the end of the crashed process: nothing is accepted.
    pub(super) down: bool,
    /// Whether some call steps the machine.
    pub(super) driven: bool,
    pub(super) disk: Disk,
    pub(super) faults: FaultPlan,
    pub(super) tasks: Tasks,
    in_flight: Vec<Request>,
    /// Sleepers, by deadline and a number of their own.
    timers: BTreeMap<(u64, u64), Waker>,
    /// How often each file is open.
    pub(super) open: BTreeMap<InodeId, usize>,
    /// Each lock, with the number of the open file that holds it.
    pub(super) locks: BTreeMap<InodeId, u64>,
    /// The memory of mapped files. Their mappings keep them open.
    pub(super) mapped: BTreeMap<InodeId, Arc<SimMemory>>,
    last_id: u64,
    pub(super) shared: Weak<Shared>,
}

/// What a step of the machine leads to, outside its lock.
pub(super) enum Action {
    /// The future that drives the machine is to be polled.
    PollRoot,
    Poll(u64, BoxFuture, Waker),
    Deliver(Delivery),
    Wake(Waker),
    /// Nothing happens by itself.
    Idle,
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    PowerCut,
    Kill,
    /// It is as if the disk had been put into another machine.
    Replaced,
    /// It is as if nothing had happened since an image was made.
    Rewound,
}

/// What is left of a process that ended.
pub(super) struct Wreck {
    pub(super) tasks: Vec<BoxFuture>,
    pub(super) requests: Vec<Request>,
    pub(super) timers: BTreeMap<(u64, u64), Waker>,
}

impl Machine {
    pub(super) fn new(seed: u64, shared: &Weak<Shared>) -> Self {
        let trace = Trace::new(seed);
        Self {
            rng: Rng::new(seed),
            writeback: Rng::new(seed ^ 0x77_7269_7465),
            boot_id: trace.id(),
            trace,
            now_ns: 0,
            boot: 0,
            crash_after: None,
            down: false,
            driven: false,
            disk: Disk::default(),
            faults: FaultPlan::new(Faults::default()),
            tasks: Tasks::default(),
            in_flight: Vec::new(),
            timers: BTreeMap::new(),
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            mapped: BTreeMap::new(),
            last_id: 0,
            shared: Weak::clone(shared),
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Takes a request on its way, or gives it back when its file is of an
    /// earlier boot.
    pub(super) fn submit(&mut self, op: Op) -> Option<Op> {
        let stale = op.file().is_some_and(|file| node(file).boot != self.boot);
        if self.down || stale {
            return Some(op);
        }
        let id = self.next_id();
        let (what, path, offset) = op.describe();
        let data = if let Op::Write { data, .. } = &op { &data[..] } else { &[] };
        let hashes = [what.as_bytes(), path.as_os_str().as_encoded_bytes(), data].map(hash);
        self.trace.fold(&[id, hashes[0], hashes[1], hashes[2], offset.unwrap_or_default()]);
        if let Op::Change(Change::Sync(file), _) = &op {
            self.take_in(node(file).inode);
        }
        let due_ns = self.now_ns + op.latency_ns() + self.faults.delay_ns(&mut self.rng);
        let stamp = self.disk.seq();
        self.in_flight.push(Request { id, due_ns, stamp, first: true, refusals: 0, op });
        None
    }

    /// Takes the machine one step on: chooses among the tasks that are ready
    /// and the completions and timers that are due, or lets time pass until
    /// there is such a choice. Timers beyond `horizon_ns` are left alone.
    pub(super) fn step(&mut self, root: Option<u64>, horizon_ns: u64) -> Action {
        loop {
            let ready = self.tasks.ready_count();
            let due = self.in_flight.iter().filter(|r| r.due_ns <= self.now_ns).count();
            let rung_ns = self.now_ns.min(horizon_ns);
            let rung = self.timers.range(..=(rung_ns, u64::MAX)).count();
            if ready + due + rung == 0 {
                if self.let_time_pass(horizon_ns) {
                    continue;
                }
                return Action::Idle;
            }
            let choice = self.rng.index(ready + due + rung);
            let action = if choice < ready {
                self.take_ready(choice, root)
            } else if choice < ready + due {
                self.complete(choice - ready).map(Action::Deliver)
            } else {
                self.ring(choice - ready - due).map(Action::Wake)
            };
            if let Some(action) = action {
                return action;
            }
        }
    }

    fn let_time_pass(&mut self, horizon_ns: u64) -> bool {
        let due = self.in_flight.iter().map(|request| request.due_ns).min();
        let timer = self.timers.keys().next().map(|key| key.0).filter(|&ns| ns <= horizon_ns);
        let next = due.into_iter().chain(timer).min();
        self.now_ns = self.now_ns.max(next.unwrap_or_default());
        next.is_some()
    }

    fn take_ready(&mut self, choice: usize, root: Option<u64>) -> Option<Action> {
        let id = self.tasks.take_ready(choice);
        let action = if root == Some(id) {
            Action::PollRoot
        } else {
            let (future, waker) = self.tasks.take(id)?;
            Action::Poll(id, future, waker)
        };
        self.trace.fold(&[1, id, self.now_ns]);
        self.now_ns += POLL_NS;
        Some(action)
    }

    fn ring(&mut self, choice: usize) -> Option<Waker> {
        let key = *self.timers.keys().nth(choice)?;
        self.trace.fold(&[2, key.1, self.now_ns]);
        self.timers.remove(&key)
    }

    /// Sets the timer of this key, or moves it to another waker; the former
    /// one is for the caller to drop.
    pub(super) fn set_timer(&mut self, key: (u64, u64), waker: Waker) -> Option<Waker> {
        self.timers.insert(key, waker)
    }

    pub(super) fn clear_timer(&mut self, key: (u64, u64)) -> Option<Waker> {
        self.timers.remove(&key)
    }

    /// Completes one of the requests that are due, unless it needs another
    /// round.
    fn complete(&mut self, choice: usize) -> Option<Delivery> {
        self.write_back();
        let now_ns = self.now_ns;
        let mut due = (0..self.in_flight.len()).filter(|&i| self.in_flight[i].due_ns <= now_ns);
        let mut index = due.nth(choice)?;
        if self.faults.reorder() {
            // Another one takes its place in time.
            let other = self.rng.index(self.in_flight.len());
            let other_ns = self.in_flight[other].due_ns;
            self.in_flight[other].due_ns = self.in_flight[index].due_ns;
            self.in_flight[index].due_ns = other_ns;
            index = other;
        }
        let request = self.in_flight.swap_remove(index);
        let target = self.target(&request.op);
        let fault = self.faults.draw(&mut self.rng, target, request.first, request.refusals);
        if let Some(kind) = fault {
            let (what, path, _) = request.op.describe();
            self.faults.befell(kind, what, path);
        }
        self.trace.fold(&[3, request.id, now_ns, fault.map_or(0, |kind| 1 + kind as u64)]);
        self.attempt(request, fault)
    }

    /// Now and then the kernel looks at a mapped file, and writes back what was stored
    /// there so far.
    fn write_back(&mut self) {
        if self.mapped.is_empty() || !self.writeback.chance(WRITEBACK_PPM) {
            return;
        }
        let choice = self.writeback.index(self.mapped.len());
        if let Some(&inode) = self.mapped.keys().nth(choice) {
            self.take_in(inode);
        }
    }

    pub(super) fn queue_again(&mut self, mut request: Request) {
        let delay_ns = request.op.latency_ns() + self.faults.delay_ns(&mut self.rng);
        request.due_ns = self.now_ns + delay_ns;
        self.in_flight.push(request);
    }

    /// The last clone of an open file is gone.
    pub(super) fn close(&mut self, node: &Node) {
        if node.boot != self.boot {
            return;
        }
        self.unlock(node);
        if let Some(count) = self.open.get_mut(&node.inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&node.inode);
                self.disk.collect(&self.open);
            }
        }
    }

    pub(super) fn unlock(&mut self, node: &Node) {
        if node.lock.is_some() && self.locks.get(&node.inode) == node.lock.as_ref() {
            self.locks.remove(&node.inode);
        }
    }

    /// The process ends. The caller drops and answers what is left of it, and
    /// then clears `down`.
    pub(super) fn crash(&mut self, crash: Crash) -> Wreck {
        self.unmap_all();
        let requests = std::mem::take(&mut self.in_flight);
        if matches!(crash, Crash::PowerCut | Crash::Kill) {
            for request in &requests {
                self.leave_behind(&request.op);
            }
        }
        if crash == Crash::PowerCut {
            self.disk.power_cut(&mut self.rng);
        }
        self.boot += 1;
        self.down = true;
        self.open.clear();
        self.locks.clear();
        self.disk.collect(&self.open);
        self.trace.fold(&[4, crash as u64, self.now_ns]);
        if matches!(crash, Crash::PowerCut | Crash::Replaced) {
            self.boot_id = self.trace.id();
        }
        Wreck { tasks: self.tasks.clear(), requests, timers: std::mem::take(&mut self.timers) }
    }

    /// Damage: see [`Sim::remove_file`](super::Sim::remove_file).
    pub(super) fn damage_remove(&mut self, path: &Path) {
        self.disk.damage_remove(path);
        self.disk.collect(&self.open);
    }

    /// The machine has crashed, and starts again with this disk.
    pub(super) fn replace_disk(&mut self, disk: Disk) {
        assert!(self.open.is_empty() && self.in_flight.is_empty(), "the old disk is in use");
        self.disk = disk;
        self.disk.collect(&self.open);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether such a request on this file is in flight.
    pub(super) fn is_in_flight(&self, inode: InodeId, wanted: fn(&Op) -> bool) -> bool {
        let is_its = |op: &Op| op.file().is_some_and(|file| node(file).inode == inode);
        self.in_flight.iter().any(|request| wanted(&request.op) && is_its(&request.op))
    }
}
