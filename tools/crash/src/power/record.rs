//! What happened on a disk, in the order in which it was completed.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::image::Image;

/// What a request does to the disk's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Write(Vec<u8>),
    /// So many bytes are zero from then on.
    Zero(usize),
    /// What so many bytes held is needed no more. Once that is durable they are zero:
    /// a loop device asks in the same way for zeroes that take no space.
    Discard(usize),
}

impl Change {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Write(bytes) => bytes.len(),
            Self::Zero(length) | Self::Discard(length) => *length,
        }
    }

    pub(crate) fn is_discard(&self) -> bool {
        matches!(self, Self::Discard(_))
    }

    /// Does so many of its bytes, from `start` on, to the place that it is for.
    pub(crate) fn apply(&self, image: &mut Image, offset: u64, start: usize, length: usize) {
        let place = offset + start as u64;
        match self {
            Self::Write(bytes) => image.write(place, &bytes[start..start + length]),
            Self::Zero(_) | Self::Discard(_) => image.zero(place, length),
        }
    }
}

/// A completed request.
#[derive(Debug)]
pub(crate) struct Event {
    /// When it was completed.
    pub(crate) at: Instant,
    pub(crate) kind: Kind,
}

impl Event {
    pub(crate) fn is_discard(&self) -> bool {
        matches!(&self.kind, Kind::Change { change, .. } if change.is_discard())
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    Change {
        offset: u64,
        change: Change,
        /// So many events had been completed when it came.
        arrived: usize,
    },
    /// Makes the first so many events durable: those that had been completed
    /// when it came.
    Flush { covers: usize },
}

/// All events since the disk was switched on.
pub(crate) struct Record {
    /// What was on it before.
    pub(crate) base: Image,
    pub(crate) events: Vec<Event>,
}

impl Record {
    /// How many of the first events were durable when the first `at` had been
    /// completed.
    pub(crate) fn durable(&self, at: usize) -> usize {
        let flushes = self.events[..at].iter().filter_map(|event| match event.kind {
            Kind::Flush { covers } => Some(covers),
            Kind::Change { .. } => None,
        });
        flushes.max().unwrap_or(0)
    }

    /// How long nothing was completed, at most, between these events.
    pub(crate) fn longest_silence(&self, events: Range<usize>) -> Duration {
        let pairs = self.events[events].windows(2);
        let silences = pairs.map(|pair| pair[1].at.saturating_duration_since(pair[0].at));
        silences.max().unwrap_or_default()
    }

    /// The changes of which anything may be there when the first `at` events have
    /// been completed: no flush covered them, or they were under way.
    pub(crate) fn open(&self, at: usize) -> impl Iterator<Item = (u64, &Change)> {
        let since = self.durable(at);
        self.changes(since).filter_map(move |(number, offset, change, arrived)| {
            (number < at || arrived <= at).then_some((offset, change))
        })
    }

    /// All changes from this event on.
    fn changes(&self, since: usize) -> impl Iterator<Item = (usize, u64, &Change, usize)> {
        let events = self.events.iter().enumerate().skip(since);
        events.filter_map(|(number, event)| match &event.kind {
            Kind::Change { offset, change, arrived } => Some((number, *offset, change, *arrived)),
            Kind::Flush { .. } => None,
        })
    }

    /// What is there when the first so many events have happened, and no others.
    pub(crate) fn image(&self, events: usize) -> Image {
        let mut image = self.base.clone();
        for (_, offset, change, _) in self.changes(0).take_while(|(number, ..)| *number < events) {
            change.apply(&mut image, offset, 0, change.bytes());
        }
        image
    }

    /// The first flush from this event on.
    pub(crate) fn next_flush(&self, since: usize) -> Option<usize> {
        self.next(since, |event| matches!(event.kind, Kind::Flush { .. }))
    }

    /// The first discard from this event on.
    pub(crate) fn next_discard(&self, since: usize) -> Option<usize> {
        self.next(since, Event::is_discard)
    }

    fn next(&self, since: usize, is_it: impl Fn(&Event) -> bool) -> Option<usize> {
        let offset = self.events.get(since..)?.iter().position(is_it)?;
        Some(since + offset)
    }
}
