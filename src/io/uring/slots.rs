//! The requests a ring has in flight, and the files it knows by index.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, Waker};

use io_uring::Submitter;
use io_uring::types::Timespec;

use super::Core;
use crate::io::{File, IoBuf, WeakFile, WriteBuf};

/// What a request owns while the kernel has it.
pub(super) enum Payload {
    None,
    Read(IoBuf),
    Write(WriteBuf),
    Timeout(Box<Timespec>),
}

impl Payload {
    /// Memory from byte `done` on: address, length.
    pub(super) fn memory(&self, done: usize) -> (*mut u8, u32) {
        let bytes = match self {
            Self::Read(buf) => &buf[..],
            Self::Write(buf) => buf.bytes(),
            Self::None | Self::Timeout(_) => &[][..],
        };
        let rest = &bytes[done..];
        let len = u32::try_from(rest.len()).expect("requests are far below 4 GiB");
        (rest.as_ptr().cast_mut(), len)
    }

    /// The index that the memory itself was given when it was registered.
    pub(super) fn registered(&self) -> Option<u16> {
        match self {
            Self::Read(buf) => buf.registered(),
            Self::Write(buf) => buf.registered(),
            Self::None | Self::Timeout(_) => None,
        }
    }

    pub(super) fn timespec(&self) -> *const Timespec {
        match self {
            Self::Timeout(timespec) => &raw const **timespec,
            _ => std::ptr::null(),
        }
    }

    pub(super) fn into_read(self) -> IoBuf {
        match self {
            Self::Read(buf) => buf,
            _ => unreachable!("a read request owns a read buffer"),
        }
    }

    pub(super) fn into_write(self) -> WriteBuf {
        match self {
            Self::Write(buf) => buf,
            _ => unreachable!("a write request owns a write buffer"),
        }
    }
}

enum State {
    Free,
    /// The kernel has it; somebody may wait for it.
    InFlight(Option<Waker>),
    /// The kernel has it, and nobody waits any more.
    Abandoned,
    Done(i32),
}

struct Slot {
    state: State,
    payload: Payload,
    /// Keeps the descriptor open while the kernel may use it.
    _file: Option<File>,
}

/// A bounded table of requests.
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
    in_flight: usize,
    /// Tasks to wake once the ring is not borrowed.
    woken: Vec<Waker>,
    /// Tasks that wait for a free slot.
    waiting: Vec<Waker>,
}

impl Slots {
    pub(super) fn new(capacity: usize) -> Self {
        let slot = || Slot { state: State::Free, payload: Payload::None, _file: None };
        Self {
            slots: (0..capacity).map(|_| slot()).collect(),
            free: (0..capacity).rev().collect(),
            in_flight: 0,
            woken: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Requests that the kernel has.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Ready once a slot is free.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.free.is_empty() {
            self.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    pub(super) fn insert(&mut self, payload: Payload, file: Option<File>) -> usize {
        let slot = self.free.pop().expect("poll_room said that a slot is free");
        self.slots[slot] = Slot { state: State::InFlight(None), payload, _file: file };
        self.in_flight += 1;
        slot
    }

    /// Takes back a request that the kernel never saw.
    pub(super) fn cancel(&mut self, slot: usize) -> Payload {
        self.in_flight -= 1;
        self.release(slot)
    }

    fn release(&mut self, slot: usize) -> Payload {
        let free = Slot { state: State::Free, payload: Payload::None, _file: None };
        self.free.push(slot);
        self.woken.append(&mut self.waiting);
        std::mem::replace(&mut self.slots[slot], free).payload
    }

    /// The kernel is done with a request.
    pub(super) fn complete(&mut self, slot: usize, result: i32) {
        self.in_flight -= 1;
        match std::mem::replace(&mut self.slots[slot].state, State::Done(result)) {
            State::InFlight(waker) => self.woken.extend(waker),
            State::Abandoned => drop(self.release(slot)),
            State::Free | State::Done(_) => panic!("a request completed twice"),
        }
    }

    pub(super) fn poll(&mut self, slot: usize, cx: &mut Context<'_>) -> Option<(Payload, i32)> {
        match &mut self.slots[slot].state {
            State::Done(result) => {
                let result = *result;
                Some((self.release(slot), result))
            }
            State::InFlight(waker) => {
                *waker = Some(cx.waker().clone());
                None
            }
            State::Free | State::Abandoned => panic!("a request was polled after its end"),
        }
    }

    /// Nobody waits for the request any more. Whether it is a sleep that is
    /// better cut short.
    fn abandon(&mut self, slot: usize) -> bool {
        if matches!(self.slots[slot].state, State::Done(_)) {
            drop(self.release(slot));
            return false;
        }
        self.slots[slot].state = State::Abandoned;
        matches!(self.slots[slot].payload, Payload::Timeout(_))
    }

    /// Whether tasks are to be woken.
    pub(super) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    /// Never frees what the kernel may still use.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}

/// Marks a slot as abandoned when its future is dropped.
pub(super) struct Abandon<'a> {
    core: &'a RefCell<Core>,
    slot: Option<usize>,
}

impl<'a> Abandon<'a> {
    pub(super) fn new(core: &'a RefCell<Core>, slot: usize) -> Self {
        Self { core, slot: Some(slot) }
    }

    pub(super) fn disarm(mut self) {
        self.slot = None;
    }
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut core = self.core.borrow_mut();
            if core.slots.abandon(slot) {
                core.cut_short(slot);
            }
        }
    }
}

/// The ring's table of registered files. A file stays in it until nobody else
/// has it open; a pinned one until the ring ends.
pub(super) struct FixedFiles {
    known: HashMap<usize, (u32, WeakFile), ahash::RandomState>,
    free: Vec<u32>,
}

impl FixedFiles {
    pub(super) fn new(capacity: u32) -> Self {
        Self { known: HashMap::default(), free: (0..capacity).rev().collect() }
    }

    /// Keeps the file open as long as the ring lives.
    pub(super) fn pin(&mut self, submitter: &Submitter<'_>, file: &File) -> std::io::Result<()> {
        let index = self.free.pop().expect("files are pinned first");
        submitter.register_files_update(index, &[file.fd().as_raw_fd()])?;
        Ok(())
    }

    /// The index of the file; `None` when the table is full, or the kernel
    /// does not take it: the plain descriptor works as well.
    pub(super) fn index(&mut self, submitter: &Submitter<'_>, file: &File) -> Option<u32> {
        if let Some((index, _)) = self.known.get(&file.address()) {
            return Some(*index);
        }
        if self.free.is_empty() {
            self.release_dead(submitter);
        }
        let index = self.free.pop()?;
        match submitter.register_files_update(index, &[file.fd().as_raw_fd()]) {
            Ok(_) => {
                self.known.insert(file.address(), (index, file.downgrade()));
                Some(index)
            }
            Err(_) => {
                self.free.push(index);
                None
            }
        }
    }

    /// Lets go of the files that nobody else has open, so that the space of
    /// removed ones is freed.
    pub(super) fn release_dead(&mut self, submitter: &Submitter<'_>) {
        let free = &mut self.free;
        self.known.retain(|_, (index, file)| {
            if file.is_open() {
                return true;
            }
            // A slot the kernel did not clear is not used again.
            if submitter.register_files_update(*index, &[-1]).is_ok() {
                free.push(*index);
            }
            false
        });
    }
}
