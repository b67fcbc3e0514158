//! Mappings of the operating system, and group buffers that stand on them.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::base::error::ErrorKind;
use crate::base::limits::UNIT_U64;
use crate::io::blocking::Blocking;
use crate::io::{BufferPool, Driver, GroupBuf, Harden, Io, IoBuf, OpenMode, WriteBuf, uring};

const UNITS: usize = 4;

/// The result of a future that does not wait, or only for `driver`.
fn block_on<F: Future>(mut driver: Option<&mut dyn Driver>, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        driver.as_mut().expect("a future that is ready").turn(true, &|| ()).unwrap();
    }
}

fn now<F: Future>(future: F) -> F::Output {
    block_on(None, future)
}

fn filled(byte: u8, units: usize) -> IoBuf {
    let mut buf = IoBuf::zeroed(units * UNIT);
    buf.fill(byte);
    buf
}

/// A new file of `UNITS` units, all of it written.
async fn written<I: Io>(io: &I, path: &Path, byte: u8) -> File {
    let file = io.open(path, OpenMode::CreateNew).await.unwrap();
    io.write(&file, 0, filled(byte, UNITS).into(), Harden::Later).await.1.unwrap();
    file
}

async fn mapped<I: Io>(io: &I, path: &Path, byte: u8) -> (File, Arc<Mapping>) {
    let file = written(io, path, byte).await;
    let mapping = io.map(&file, UNITS * UNIT).await.unwrap();
    (file, Arc::new(mapping))
}

/// The file's bytes, by a direct read.
async fn bytes<I: Io>(io: &I, file: &File) -> IoBuf {
    let (buf, read) = io.read(file, 0, filled(0xff, UNITS)).await;
    assert_eq!(read.unwrap(), UNITS * UNIT);
    buf
}

fn blocking() -> (tempfile::TempDir, Blocking) {
    (tempfile::tempdir().unwrap(), Blocking::new(Arc::default()))
}

/// Stores are seen by direct reads of the file, direct writes take them
/// elsewhere, and they stay when the mapping is gone.
async fn stores_reach_files<I: Io>(io: &I, dir: &Path) {
    let (file, mapping) = mapped(io, &dir.join("map"), 7).await;
    let group = Arc::new(GroupBuf::mapped(&mapping, UNIT, 2 * UNIT));
    assert!(group.is_mapped());
    assert_eq!(group.fill(UNIT, |start, bytes| (start, bytes.fill(1))), Some((0, ())));
    let mut claim = group.claim(10).unwrap();
    claim.fill(2);
    claim.finish();
    let unit = |bytes: &[u8], unit: usize| bytes[unit * UNIT..][..UNIT].to_vec();

    let seen = bytes(io, &file).await;
    assert_eq!(unit(&seen, 0), [7; UNIT], "not of the group");
    assert_eq!(unit(&seen, 1), [1; UNIT]);
    assert_eq!(seen[2 * UNIT..][..11], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 7]);

    assert_eq!(group.seal(), UNIT + 10);
    let log = written(io, &dir.join("log"), 9).await;
    let buf = WriteBuf::Group(Arc::clone(&group), 2 * UNIT);
    io.write(&log, UNIT_U64, buf, Harden::Now).await.1.unwrap();
    let seen = bytes(io, &log).await;
    assert_eq!(unit(&seen, 0), [9; UNIT]);
    assert_eq!(unit(&seen, 1), [1; UNIT]);
    assert_eq!(seen[2 * UNIT..][..10], [2; 10]);
    assert_eq!(seen[2 * UNIT..][10..UNIT], [0; UNIT - 10], "padding");
    assert_eq!(unit(&seen, 3), [9; UNIT]);

    io.sync(&file).await.unwrap();
    drop((group, mapping));
    let seen = bytes(io, &file).await;
    assert_eq!(unit(&seen, 1), [1; UNIT]);
    assert_eq!(unit(&seen, 3), [7; UNIT], "not of the group");
}

#[test]
fn stores_reach_files_without_a_ring() {
    let (dir, io) = blocking();
    now(stores_reach_files(&io, dir.path()));
}

#[test]
fn stores_reach_files_through_a_ring() {
    let (dir, io) = blocking();
    let lock = now(io.try_lock(&dir.path().join("LOCK"), true)).unwrap().unwrap();
    let pool = BufferPool::new(UNIT, 1);
    let (mut driver, ring, _) = uring::start(Arc::default(), pool, &lock).unwrap();
    block_on(Some(&mut driver), stores_reach_files(&ring, dir.path()));
}

#[test]
fn only_a_file_of_that_length_opened_for_writing_is_mapped() {
    let (dir, io) = blocking();
    let path = dir.path().join("map");
    let file = now(written(&io, &path, 0));
    for wrong in [UNITS - 1, UNITS + 1] {
        let error = now(io.map(&file, wrong * UNIT)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let read_only = now(io.open(&path, OpenMode::Read)).unwrap();
    let error = now(io.map(&read_only, UNITS * UNIT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn parts_are_given_back() {
    let (dir, io) = blocking();
    let (_, mapping) = now(mapped(&io, &dir.path().join("map"), 0));
    for _ in 0..2 {
        let all: Vec<GroupBuf> =
            (0..UNITS).map(|i| GroupBuf::mapped(&mapping, i * UNIT, UNIT)).collect();
        assert_eq!(mapping.taken.lock().len(), UNITS);
        drop(all);
    }
    GroupBuf::mapped(&mapping, 0, UNITS * UNIT);
}

#[test]
#[should_panic(expected = "is taken: Some(4096..8192)")]
fn parts_do_not_overlap() {
    let (dir, io) = blocking();
    let (_, mapping) = now(mapped(&io, &dir.path().join("map"), 0));
    let _second = GroupBuf::mapped(&mapping, UNIT, UNIT);
    GroupBuf::mapped(&mapping, 0, 2 * UNIT);
}

#[test]
#[should_panic(expected = "4096..20480 of Mapping(")]
fn parts_lie_within() {
    let (dir, io) = blocking();
    let (_, mapping) = now(mapped(&io, &dir.path().join("map"), 0));
    GroupBuf::mapped(&mapping, UNIT, UNITS * UNIT);
}

#[test]
fn a_mapped_buffer_keeps_its_bytes_when_it_is_reset() {
    let (dir, io) = blocking();
    let (file, mapping) = now(mapped(&io, &dir.path().join("map"), 7));
    let mut group = GroupBuf::mapped(&mapping, 0, 2 * UNIT);
    group.fill(UNIT + 100, |_, bytes| bytes.fill(1));
    group.seal();
    group.reset();
    let seen = now(bytes(&io, &file));
    assert_eq!(seen[..UNIT + 100], [1; UNIT + 100]);

    assert_eq!(group.claimed(), 0);
    group.fill(100, |_, bytes| bytes.fill(2));
    group.seal();
    let (records, padding) = group.filled_bytes(UNIT).split_at(100);
    assert_eq!((records, padding), (&[2; 100][..], &[0; UNIT - 100][..]));
    let seen = now(bytes(&io, &file));
    assert_eq!(seen[UNIT..][..100], [1; 100], "the next unit is not touched");
}
