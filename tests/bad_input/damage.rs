//! Files that are damaged, cut, or missing. What all else depends on refuses
//! the opening; of tables, only the keys they may hold are refused.

use std::path::Path;

use ourodb::{Db, ErrorKind};

use super::child::{Child, be_child, place};
use super::{
    SAMPLE, assert_holds, eventually, file, files, image, key, manifest, opening_refused, options,
    put, refused, sample, value,
};

const UNIT: usize = 4096;

/// Does `damage` to a file: opening is refused, and once the file is as it was,
/// everything is there.
fn refuses(path: &Path, dir: &Path, damages: &[&dyn Fn(&mut Vec<u8>)], says: &[&str]) {
    let sound = std::fs::read(path).expect("read");
    for damage in damages {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        std::fs::write(path, bytes).expect("write");
        opening_refused(dir, ErrorKind::Corruption, says);
    }
    std::fs::write(path, sound).expect("write");
}

/// Takes a file or directory away: opening is refused, and says all of `says`.
fn refuses_without(path: &Path, dir: &Path, says: &[&str]) {
    let away = tempfile::tempdir().expect("a directory");
    let kept = away.path().join("kept");
    std::fs::rename(path, &kept).expect("take away");
    opening_refused(dir, ErrorKind::Corruption, says);
    std::fs::rename(&kept, path).expect("bring back");
}

fn flip(at: usize) -> impl Fn(&mut Vec<u8>) {
    move |bytes| bytes[at] ^= 0x10
}

fn cut(len: usize) -> impl Fn(&mut Vec<u8>) {
    move |bytes| bytes.truncate(len)
}

/// Writes the files of `image(from)` below `to`.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for (path, bytes) in image(from) {
        let path = to.join(path.strip_prefix(from).expect("below"));
        match bytes {
            None => std::fs::create_dir_all(path).expect("create"),
            Some(bytes) => {
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("create");
                std::fs::write(path, bytes).expect("write");
            }
        }
    }
}

#[test]
fn a_damaged_identity() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    sample(dir);
    let path = dir.join("IDENTITY");
    let one = "copy the sound half of the file over it";
    let name = path.to_str().expect("UTF-8");
    refuses(&path, dir, &[&flip(0), &flip(70), &flip(UNIT), &flip(UNIT + 511)], &[one, name]);
    refuses(&path, dir, &[&cut(UNIT), &cut(2 * UNIT - 1)], &[one, name]);
    let both = |bytes: &mut Vec<u8>| {
        flip(70)(bytes);
        flip(UNIT + 71)(bytes);
    };
    let from_a_copy = "restore it from a copy";
    refuses(&path, dir, &[&both, &cut(0), &cut(1), &cut(UNIT - 1)], &[from_a_copy, name]);
    let longer = |bytes: &mut Vec<u8>| bytes.extend([0; 5]);
    refuses(&path, dir, &[&longer], &["8197 bytes", name]);
    refuses_without(&path, dir, &["the identity file is missing", from_a_copy]);
    // What the messages say helps.
    let mut bytes = std::fs::read(&path).expect("read");
    bytes.copy_within(UNIT.., 0);
    std::fs::write(&path, bytes).expect("write");
    assert_holds(&Db::open(dir, options()).expect("open"), SAMPLE);
}

/// The identity of another database does not make this one its.
#[test]
fn the_identity_of_another_database() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, other) = (place.path().join("db"), place.path().join("other"));
    sample(&dir);
    sample(&other);
    let (path, kept) = (dir.join("IDENTITY"), place.path().join("kept"));
    std::fs::rename(&path, &kept).expect("rename");
    std::fs::copy(other.join("IDENTITY"), &path).expect("copy");
    opening_refused(&dir, ErrorKind::Corruption, &["belongs to database"]);
    std::fs::rename(&kept, &path).expect("rename");
    assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
}

#[test]
fn damaged_manifests() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    sample(dir);
    for path in [manifest(dir), manifest(&dir.join("shard-000"))] {
        let name = [path.to_str().expect("UTF-8")];
        refuses(&path, dir, &[&cut(0), &cut(100), &cut(UNIT)], &name);
        refuses(&path, dir, &[&flip(3), &flip(60), &flip(UNIT + 5), &flip(UNIT + 40)], &name);
    }
    // A file that ends early looks like one that was never written further.
    let snapshot = cut(2 * UNIT);
    let says = ["the root manifest does not know ", "restore the manifest from a copy"];
    refuses(&manifest(dir), dir, &[&snapshot], &says);
    assert_holds(&Db::open(dir, options()).expect("open"), SAMPLE);
}

/// A shard's manifest from which the newest tables are missing: they are made
/// anew from the log, or the log was freed, and that is noticed.
#[test]
fn a_shard_manifest_without_its_last_edits() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    sample(dir);
    let path = manifest(&dir.join("shard-000"));
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..2 * UNIT]).expect("write");
    assert_holds(&Db::open(dir, options()).expect("open"), SAMPLE);

    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    let db = put_segments(dir);
    db.flush().wait().expect("flush");
    eventually("the log is freed", || db.stats().wal_segments <= PUTS as u64 / 2);
    db.close().expect("close");
    let says = ["the manifest's last edits are missing", "restore it from a copy"];
    refuses(&manifest(&dir.join("shard-000")), dir, &[&cut(2 * UNIT)], &says);
    assert_holds(&Db::open(dir, options()).expect("open"), 0..PUTS);
}

#[test]
fn missing_manifests_and_directories() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    sample(dir);
    let root = manifest(dir);
    let (shard, wal) = (dir.join("shard-000"), dir.join("wal"));
    let from_a_copy = "restore it from a copy";
    refuses_without(&root, dir, &["the root manifest is missing", from_a_copy]);
    refuses_without(&manifest(&shard), dir, &["the shard's manifest is missing", from_a_copy]);
    refuses_without(&shard, dir, &["shard-000", "is missing", from_a_copy]);
    refuses_without(&wal, dir, &["/wal", "missing", from_a_copy]);
    // Without root manifest and log it does not look like a new one either.
    let away = tempfile::tempdir().expect("a directory");
    for (path, kept) in [(&root, "root"), (&wal, "wal")] {
        std::fs::rename(path, away.path().join(kept)).expect("take away");
    }
    std::fs::create_dir(&wal).expect("create");
    opening_refused(dir, ErrorKind::Corruption, &["the root manifest is missing", from_a_copy]);
    for (path, kept) in [(&root, "root"), (&wal, "wal")] {
        std::fs::rename(away.path().join(kept), path).expect("bring back");
    }
    assert_holds(&Db::open(dir, options()).expect("open"), SAMPLE);
}

#[test]
fn a_damaged_or_missing_log() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    sample(dir);
    let path = files(dir, "", ".wal").remove(0);
    let name = path.to_str().expect("UTF-8");
    let cuts: &[&dyn Fn(&mut Vec<u8>)] = &[&cut(0), &cut(UNIT), &cut(9 * UNIT + 1)];
    refuses(&path, dir, cuts, &[name]);
    refuses(&path, dir, &[&flip(0), &flip(70)], &[name]);
    let says = [name, "Nothing was changed: restore the file from a copy"];
    refuses(&path, dir, &[&flip(UNIT), &flip(3 * UNIT + 30)], &says);
    refuses_without(&path, dir, &["missing", "restore"]);
    assert_holds(&Db::open(dir, options()).expect("open"), SAMPLE);
}

const PUTS: usize = 10;

/// A log of many segments, from which any one is missing: that is noticed,
/// or it was one that held nothing. `dir` is left as it is.
fn without_each_segment(dir: &Path) {
    let segments = files(dir, "", ".wal");
    assert!(segments.len() > PUTS, "a segment a put, and another one");
    let mut refusals = 0;
    for missing in &segments {
        let place = tempfile::tempdir().expect("a directory");
        copy(dir, place.path());
        let missing = missing.strip_prefix(dir).expect("below");
        std::fs::remove_file(place.path().join(missing)).expect("remove");
        match Db::open(place.path(), options()) {
            Ok(db) => assert_holds(&db, 0..PUTS),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert!(error.to_string().contains("restore the file from a copy"), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals >= PUTS, "{refusals} missing segments were noticed");
}

/// A put fills a segment of this size.
fn put_segments(dir: &Path) -> Db {
    let db = Db::open(dir, options().wal_segment_bytes(8 << 10)).expect("open");
    put(&db, 0..PUTS);
    db
}

#[test]
fn a_missing_segment_after_a_clean_close() {
    let place = tempfile::tempdir().expect("a directory");
    put_segments(place.path()).close().expect("close");
    without_each_segment(place.path());
}

#[test]
fn a_missing_segment_after_a_kill() {
    let test = "damage::a_missing_segment_after_a_kill";
    let is_child = be_child(test, |dir| {
        let db = put_segments(dir);
        // A segment behind the last put's: a spare one, or one with a mark.
        eventually("there is one", || db.stats().wal_segments > PUTS as u64);
        println!("written");
        loop {
            std::thread::park();
        }
    });
    if is_child {
        return;
    }
    let place = place();
    let mut child = Child::start(test, place.path());
    child.wait_for("written");
    child.kill();
    without_each_segment(place.path());
}

/// Keys 0 to 9 are refused, by an error that names the file; nothing else is.
fn refuses_keys_of(path: &Path, dir: &Path) {
    let db = Db::open(dir, options()).expect("a damaged table refuses only its keys");
    assert_eq!(db.stats().damaged_tables, 1);
    let says = [path.to_str().expect("UTF-8")];
    for i in 0..10 {
        refused(db.get(&key(i)).wait(), ErrorKind::Corruption, &says);
        refused(db.get_with(&key(i), |_| ()).wait(), ErrorKind::Corruption, &says);
    }
    // Not the table's, but within its range.
    refused(db.get(b"key-0003x").wait(), ErrorKind::Corruption, &says);
    for i in 10..30 {
        assert_eq!(db.get(&key(i)).wait().expect("a get").as_deref(), Some(&value(i)[..]));
    }
    assert_eq!(db.get(b"a").wait().expect("a get"), None);
    for scan in [db.scan(..), db.scan(..).reverse(), db.scan(key(9)..), db.scan_prefix(b"key-000")]
    {
        let failed = scan.iter().take(100).find_map(Result::err).expect("the scan is refused");
        refused::<()>(Err(failed), ErrorKind::Corruption, &says);
    }
    assert_eq!(db.scan(key(10)..).iter().filter(Result::is_ok).count(), 20);
    assert_eq!(db.scan(key(10)..).reverse().iter().filter(Result::is_ok).count(), 20);
    db.close().expect("close");
}

/// Writing goes on, and newer values are found.
fn takes_writes(dir: &Path) {
    let db = Db::open(dir, options()).expect("open");
    db.put(&key(3), &value(3)).wait().expect("a put");
    assert_eq!(db.get(&key(3)).wait().expect("a get").as_deref(), Some(&value(3)[..]));
    db.flush().wait().expect("flush");
    assert_eq!(db.get(&key(3)).wait().expect("a get").as_deref(), Some(&value(3)[..]));
    db.close().expect("close");
}

#[test]
fn a_damaged_or_missing_table() {
    let place = tempfile::tempdir().expect("a directory");
    let (fresh, dir) = (place.path().join("fresh"), place.path().join("db"));
    sample(&fresh);
    let oldest = |dir: &Path| files(dir, "", ".sst").remove(0);
    let length = std::fs::metadata(oldest(&fresh)).expect("metadata").len() as usize;
    let zeroed = |bytes: &mut Vec<u8>| bytes.fill(0);
    let longer = |bytes: &mut Vec<u8>| bytes.extend([0; UNIT]);
    let other = std::fs::read(&files(&fresh, "", ".sst")[1]).expect("read");
    let swapped = |bytes: &mut Vec<u8>| bytes.clone_from(&other);
    let damages: [&dyn Fn(&mut Vec<u8>); 10] = [
        &flip(0),
        &flip(60),
        // Filter, index, properties; the footer.
        &flip(2 * UNIT),
        &flip(3 * UNIT),
        &flip(length - UNIT),
        &cut(0),
        &cut(length - 1),
        &zeroed,
        &longer,
        &swapped,
    ];
    for damage in damages {
        copy(&fresh, &dir);
        let path = oldest(&dir);
        let sound = std::fs::read(&path).expect("read");
        let mut bytes = sound.clone();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).expect("write");
        refuses_keys_of(&path, &dir);
        refuses_keys_of(&path, &dir);
        takes_writes(&dir);
        std::fs::write(&path, sound).expect("write");
        assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
        std::fs::remove_dir_all(&dir).expect("remove");
    }
    copy(&fresh, &dir);
    let (path, kept) = (oldest(&dir), place.path().join("kept"));
    std::fs::rename(&path, &kept).expect("rename");
    refuses_keys_of(&path, &dir);
    refuses_keys_of(&path, &dir);
    takes_writes(&dir);
    std::fs::rename(&kept, &path).expect("rename");
    assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
}

/// One block of a table is damaged: the keys in it are refused, the others of
/// the table are not.
#[test]
fn a_damaged_block() {
    const KEYS: usize = 40;
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    let long = |i: usize| vec![i as u8; 1000];
    let db = Db::open(dir, options()).expect("open");
    for i in 0..KEYS {
        db.put(&key(i), &long(i)).wait().expect("a put");
    }
    db.flush().wait().expect("flush");
    db.close().expect("close");
    let path = file(dir, "", ".sst");
    let sound = std::fs::read(&path).expect("read");
    let mut bytes = sound.clone();
    bytes[3 * UNIT + 100] ^= 1;
    std::fs::write(&path, bytes).expect("write");

    let db = Db::open(dir, options()).expect("open");
    let says = format!("{} offset {}", path.display(), 3 * UNIT);
    let mut refusals = 0;
    for i in 0..KEYS {
        match db.get(&key(i)).wait() {
            Ok(found) => assert_eq!(found.as_deref(), Some(&long(i)[..])),
            Err(error) => {
                refused::<()>(Err(error), ErrorKind::Corruption, &[&says]);
                refusals += 1;
            }
        }
    }
    assert!((1..=5).contains(&refusals), "{refusals} keys of one block");
    for scan in [db.scan(..), db.scan(..).reverse()] {
        let rows: Vec<_> = scan.iter().take(2 * KEYS).collect();
        let failed = rows.iter().position(Result::is_err).expect("the scan is refused");
        refused(rows[failed].clone(), ErrorKind::Corruption, &[&says]);
        assert_eq!(rows.len(), failed + 1, "a scan ends with its error");
        for (key_found, found) in rows.into_iter().flatten() {
            let i = (0..KEYS).find(|i| key(*i) == key_found[..]).expect("a key");
            assert_eq!(found[..], long(i)[..]);
        }
    }
    db.close().expect("close");
    std::fs::write(&path, sound).expect("write");
    let db = Db::open(dir, options()).expect("open");
    assert_eq!(db.scan(..).iter().filter(Result::is_ok).count(), KEYS);
}
