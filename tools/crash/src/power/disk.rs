//! A disk with a volatile cache, which remembers all that happens to it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::image::Image;
use super::record::{Change, Event, Kind, Record};

/// How long a flush takes: others are completed meanwhile, and it does not cover
/// them.
const FLUSH_TIME: Duration = Duration::from_micros(100);

/// A disk, until it is switched off.
pub(crate) struct Disk {
    bytes: u64,
    running: Mutex<Option<Running>>,
}

struct Running {
    now: Image,
    record: Record,
    bytes_recorded: u64,
}

/// The disk was switched off, or ends before that place.
#[derive(Debug)]
pub(crate) struct Refused;

impl Disk {
    pub(crate) fn new(base: Image) -> Self {
        let bytes = base.bytes();
        let record = Record { base: base.clone(), events: Vec::new() };
        let running = Running { now: base, record, bytes_recorded: 0 };
        Self { bytes, running: Mutex::new(Some(running)) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many requests have been completed.
    pub(crate) fn position(&self) -> usize {
        self.lock().as_ref().map_or(0, |running| running.record.events.len())
    }

    /// How much was written, which is all in memory.
    pub(crate) fn bytes_recorded(&self) -> u64 {
        self.lock().as_ref().map_or(0, |running| running.bytes_recorded)
    }

    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Refused> {
        self.lock().as_ref().map(|running| running.now.read(offset, length)).ok_or(Refused)
    }

    pub(crate) fn change(&self, offset: u64, change: Change) -> Result<(), Refused> {
        let arrived = self.position();
        self.complete(offset, change, arrived)
    }

    fn complete(&self, offset: u64, change: Change, arrived: usize) -> Result<(), Refused> {
        let mut running = self.lock();
        let Running { now, record, bytes_recorded } = running.as_mut().ok_or(Refused)?;
        let length = change.bytes();
        if offset.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(Refused);
        }
        change.apply(now, offset, 0, length);
        if let Change::Write(bytes) = &change {
            *bytes_recorded += bytes.len() as u64;
        }
        record.complete(Kind::Change { offset, change, arrived });
        Ok(())
    }

    pub(crate) fn flush(&self) -> Result<(), Refused> {
        let covers = self.position();
        thread::sleep(FLUSH_TIME);
        let mut running = self.lock();
        running.as_mut().ok_or(Refused)?.record.complete(Kind::Flush { covers });
        Ok(())
    }

    /// Nothing more happens to it. None if that is so already.
    pub(crate) fn switch_off(&self) -> Option<Record> {
        self.lock().take().map(|running| running.record)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        // Whoever panicked with it fails the run anyway.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn complete(&mut self, kind: Kind) {
        self.events.push(Event { at: Instant::now(), kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_covers_what_was_completed_before_it_came() {
        let disk = Disk::new(Image::new(1 << 20));
        let write = |disk: &Disk| disk.change(4096, Change::Write(vec![1; 512])).unwrap();
        write(&disk);
        write(&disk);
        disk.flush().unwrap();
        write(&disk);
        // It comes before the flush, and is completed after it.
        let arrived = disk.position();
        disk.flush().unwrap();
        disk.complete(0, Change::Zero(512), arrived).unwrap();
        let record = disk.switch_off().unwrap();
        let durable: Vec<usize> = (0..=record.events.len()).map(|at| record.durable(at)).collect();
        assert_eq!(durable, [0, 0, 0, 2, 2, 4, 4]);
        assert!(matches!(record.events[5].kind, Kind::Change { arrived: 4, .. }));
    }

    #[test]
    fn a_disk_reads_what_was_written_until_it_is_switched_off() {
        let disk = Disk::new(Image::new(8192));
        disk.change(1024, Change::Write(vec![9; 1024])).unwrap();
        disk.change(1536, Change::Zero(512)).unwrap();
        assert_eq!(disk.read(1024, 1024).unwrap(), [[9; 512], [0; 512]].concat());
        assert_eq!(disk.bytes_recorded(), 1024);
        disk.change(8192 - 512, Change::Write(vec![9; 1024])).unwrap_err();
        disk.change(u64::MAX, Change::Zero(512)).unwrap_err();
        assert!(disk.switch_off().is_some_and(|record| record.events.len() == 2));
        assert!(disk.switch_off().is_none());
        assert!(disk.read(0, 512).is_err() && disk.flush().is_err());
    }
}
