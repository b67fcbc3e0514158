//! Keys and values at the edges: the empty key, empty values, keys of which one
//! is the beginning of another, the longest ones.

use std::collections::BTreeMap;

use ourodb::{Batch, Db, KEY_BYTES_MAX};

use super::options;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Every key is the beginning of the next, or differs in its end; the empty one
/// and the longest are among them.
fn keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    for len in [1, 2, 3, 8, 100, 255, 256, 4096, KEY_BYTES_MAX - 1] {
        for byte in [0, b'a', 0xff] {
            keys.push(vec![byte; len]);
            let mut other = vec![byte; len];
            other.push(0);
            keys.push(other);
        }
    }
    keys.push(vec![0xff; KEY_BYTES_MAX]);
    keys
}

/// Whatever may be asked for is as in the model.
fn assert_same(db: &Db, model: &Model, keys: &[Vec<u8>]) {
    for key in keys {
        let found = db.get(key).wait().expect("a get");
        let expected = model.get(key).map(|value| &value[..]);
        assert_eq!(found.as_deref(), expected, "a key of {} bytes", key.len());
        let from: Vec<_> = model.range(key.clone()..).map(|(key, _)| key).collect();
        let found: Vec<_> = db.scan(key..).keys().iter().map(|k| k.expect("a key")).collect();
        assert!(found.iter().map(|key| &key[..]).eq(from.iter().map(|key| &key[..])));
        let before = model.range(..key.clone()).count();
        assert_eq!(db.scan(..key).reverse().iter().count(), before);
        let prefixed = model.keys().filter(|other| other.starts_with(key)).count();
        assert_eq!(db.scan_prefix(key).iter().count(), prefixed);
    }
    let rows = db.scan(..).iter().map(|row| row.expect("a row"));
    let rows: Model = rows.map(|(key, value)| (key.into_vec(), value.into_vec())).collect();
    assert!(rows == *model);
}

/// In memtables, in the log that is replayed, in tables, and in merged ones.
#[test]
fn empty_keys_and_values_and_prefixes_of_one_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Db::open(dir.path(), options().shards(2)).expect("open");
    let keys = keys();
    let mut model = Model::new();
    let db = open();
    assert_same(&db, &model, &keys);
    for (i, key) in keys.iter().enumerate() {
        // Every other value is empty; the empty key's is not.
        let value = if i % 2 == 0 { vec![i as u8; 10] } else { Vec::new() };
        db.put(key, &value).wait().expect("a put");
        model.insert(key.clone(), value);
    }
    assert_same(&db, &model, &keys);
    db.close().expect("close");
    drop(db);
    let db = open();
    assert_same(&db, &model, &keys);
    db.flush().wait().expect("a flush");
    assert_same(&db, &model, &keys);

    // The other way round, and every third one goes.
    let mut batch = Batch::new();
    for (i, key) in keys.iter().enumerate() {
        if i % 3 == 0 {
            batch.delete(key);
            model.remove(key);
        } else {
            let value = if i % 2 == 0 { Vec::new() } else { vec![i as u8] };
            batch.put(key, &value);
            model.insert(key.clone(), value);
        }
    }
    db.write(batch).wait().expect("a batch");
    assert_same(&db, &model, &keys);
    db.flush().wait().expect("a flush");
    assert_same(&db, &model, &keys);
    db.compact(..).wait().expect("a compaction");
    assert_same(&db, &model, &keys);

    db.put(b"", b"").wait().expect("an empty value under the empty key");
    model.insert(Vec::new(), Vec::new());
    // All from the empty key up to the one behind it: that key alone.
    assert_same(&db, &model, &keys);
    db.delete_range(..b"\0").wait().expect("a range delete");
    model.remove(&Vec::new());
    assert_same(&db, &model, &keys);
}
