//! Keys, values and batches that are too long, or that one batch cannot hold.

use ourodb::{Batch, Db, ErrorKind, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// A quarter of the budget that the options give.
const LIMIT: usize = 4 << 20;

const _: () = assert!(LIMIT < VALUE_BYTES_MAX);

use super::{SAMPLE, assert_holds, image, options, put, refused, sample};

#[test]
fn a_long_key_or_value_is_refused_and_the_longest_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), options()).expect("open");
    put(&db, 0..3);
    let key = vec![b'k'; KEY_BYTES_MAX + 1];
    let value = vec![b'v'; LIMIT + 1];
    let says = ["65536 bytes", "65535"];
    refused(db.put(&key, b"v").wait(), ErrorKind::InvalidArgument, &says);
    refused(db.delete(&key).wait(), ErrorKind::InvalidArgument, &says);
    let says = ["4194305 bytes", "4194304", "Options::memory", "split it over several keys"];
    refused(db.put(b"k", &value).wait(), ErrorKind::InvalidArgument, &says);
    for (key, value) in [(&key[..], &b"v"[..]), (b"k", &value)] {
        let mut batch = Batch::new();
        batch.put(b"before", b"v").put(key, value).put(b"after", b"v");
        refused(db.write(batch).wait(), ErrorKind::InvalidArgument, &["the longest allowed"]);
    }
    assert_eq!(db.get(&key).wait().expect("a get"), None);
    assert_holds(&db, 0..3);

    let (key, value) = (&key[1..], &value[1..]);
    db.put(key, value).wait().expect("the longest key and value");
    db.close().expect("close");
    let db = Db::open(dir.path(), options()).expect("open");
    assert_eq!(db.get(key).wait().expect("a get").as_deref(), Some(value));
    db.delete(key).wait().expect("delete");
    assert_holds(&db, 0..3);
}

/// What a value is stored as changes at these lengths: above 64 KiB it has a
/// file, and from 1 MiB on a file of its own.
#[test]
fn values_of_every_length_that_makes_a_difference_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Db::open(dir.path(), options()).expect("open");
    let lengths = [0, 1, 4095, 4096, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20, LIMIT];
    let check = |db: &Db| {
        for (i, len) in lengths.into_iter().enumerate() {
            let found = db.get(&[i as u8]).wait().expect("a get").expect("it is there");
            assert!(found.len() == len && found.iter().all(|byte| *byte == i as u8), "{len}");
        }
        let found = db.scan(..).iter().map(|row| row.expect("a row").1.len());
        assert!(found.eq(lengths));
    };
    let db = open();
    for (i, len) in lengths.into_iter().enumerate() {
        db.put(&[i as u8], &vec![i as u8; len]).wait().expect("a put");
    }
    check(&db);
    db.close().expect("close");
    drop(db);
    let db = open();
    check(&db);
    db.flush().wait().expect("a flush");
    check(&db);
    db.compact(..).wait().expect("a compaction");
    check(&db);
}

#[test]
fn a_budget_too_small_is_refused_and_the_smallest_works() {
    let dir = tempfile::tempdir().expect("a directory");
    sample(dir.path());
    let before = image(dir.path());
    for bytes in [0, 1, (4 << 20) - 1] {
        for options in [options(), options().shards(64).owners(64)] {
            let says = [&format!("{bytes} bytes is too small")[..], "at least 4194304"];
            let opened = Db::open(dir.path(), options.memory(bytes));
            refused(opened, ErrorKind::InvalidArgument, &says);
        }
    }
    assert!(image(dir.path()) == before, "something was changed");

    let smallest = || options().memory(4 << 20);
    let db = Db::open(dir.path(), smallest()).expect("open");
    assert_holds(&db, SAMPLE);
    // Many memtables, and more than the cache has room for.
    put(&db, 30..9000);
    assert!(db.stats().flushes > 3, "{}", db.stats());
    refused(db.put(b"k", &vec![0; (1 << 20) + 1]).wait(), ErrorKind::InvalidArgument, &["1048576"]);
    assert_holds(&db, 0..9000);
    db.close().expect("close");
    drop(db);
    assert_holds(&Db::open(dir.path(), smallest()).expect("open"), 0..9000);
}

#[test]
fn a_long_batch_is_refused_and_the_longest_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), options()).expect("open");
    put(&db, 0..3);
    let value = vec![b'v'; 10_000];
    let mut batch = Batch::new();
    let mut longest = batch.clone();
    for i in 0.. {
        batch.put(format!("long-{i:04}").as_bytes(), &value);
        if batch.bytes() > db.batch_bytes_max() {
            break;
        }
        longest = batch.clone();
    }
    // What a batch counts is an upper bound: this is beyond every doubt.
    batch.put(b"more", &vec![b'v'; 64 << 10]);
    let limit = db.batch_bytes_max().to_string();
    refused(db.write(batch).wait(), ErrorKind::InvalidArgument, &[&limit, "split the batch"]);
    assert_holds(&db, 0..3);

    let count = longest.len();
    db.write(longest).wait().expect("the longest batch");
    db.close().expect("close");
    let db = Db::open(dir.path(), options()).expect("open");
    assert_eq!(db.scan_prefix(b"long-").iter().count(), count);
}

#[test]
fn a_batch_over_several_streams_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), options().shards(4).owners(2)).expect("open");
    put(&db, 0..3);
    let of_stream = |stream| {
        let mut keys = (0..).map(|i| format!("batch-{i}").into_bytes());
        keys.find(|key| db.stream_of(key) == stream).expect("a key")
    };
    let (a, b) = (of_stream(0), of_stream(1));
    let mut batch = Batch::new();
    batch.put(&a, b"1").put(&b, b"2");
    let says = ["of WAL streams", "Db::stream_of", "Options::owners(1)"];
    refused(db.write(batch.clone()).wait(), ErrorKind::InvalidArgument, &says);
    assert_holds(&db, 0..3);

    // Both ways that the message names.
    let mut one = Batch::new();
    one.put(&a, b"1");
    db.write(one).wait().expect("split by stream");
    db.close().expect("close");
    let db = Db::open(dir.path(), options().owners(1)).expect("open");
    db.write(batch).wait().expect("one stream");
    assert_eq!(db.get(&b).wait().expect("a get").as_deref(), Some(&b"2"[..]));
}
