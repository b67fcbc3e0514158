//! Directories that are none, that may not be used, or that are in use.

use std::fs::Permissions;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ourodb::{Db, ErrorKind};

use super::child::{Child, be_child, drop_root, in_child, place};
use super::{SAMPLE, assert_holds, files, image, manifest, options, put, refused, sample};

const PATIENT: Duration = Duration::from_secs(60);

#[test]
fn a_file_in_place_of_the_directory() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("file");
    std::fs::write(&file, b"precious").expect("write");
    let before = image(place.path());
    for create in [true, false] {
        for path in [file.clone(), file.join("below"), file.join("far/below")] {
            let says = [path.to_str().expect("UTF-8"), "name a directory for the database"];
            let opened = Db::open(&path, options().create(create));
            refused(opened, ErrorKind::InvalidArgument, &says);
        }
    }
    assert!(image(place.path()) == before, "something was changed");
}

#[test]
fn an_empty_path() {
    let says = ["the path given is empty; name a directory"];
    for create in [true, false] {
        let opened = Db::open("", options().create(create));
        refused(opened, ErrorKind::InvalidArgument, &says);
    }
    let verified = ourodb::verify("", &options(), |_| ControlFlow::Continue(()));
    refused(verified, ErrorKind::InvalidArgument, &says);
}

#[test]
fn no_database_where_none_is_to_be_created() {
    let place = tempfile::tempdir().expect("a directory");
    for path in [place.path().to_owned(), place.path().join("missing/one")] {
        let says = [path.to_str().expect("UTF-8"), "no database"];
        refused(Db::open(&path, options().create(false)), ErrorKind::NotFound, &says);
    }
    assert!(image(place.path()).is_empty(), "something was made");
}

/// Takes permissions away, and gives them back when it is dropped.
struct Permitted(PathBuf, Permissions);

impl Permitted {
    fn only(path: &Path, mode: u32) -> Self {
        let before = std::fs::metadata(path).expect("metadata").permissions();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
        Self(path.to_owned(), before)
    }
}

impl Drop for Permitted {
    fn drop(&mut self) {
        std::fs::set_permissions(&self.0, self.1.clone()).expect("chmod back");
    }
}

fn is_denied<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

#[test]
fn a_directory_nobody_may_enter() {
    in_child("directory::a_directory_nobody_may_enter", |place| {
        drop_root();
        let dir = place.join("db");
        sample(&dir);
        let closed = Permitted::only(&dir, 0o000);
        assert!(is_denied(std::fs::read_dir(&dir)), "the permissions do not bite");
        for create in [true, false] {
            for path in [dir.clone(), dir.join("below")] {
                let says = [path.to_str().expect("UTF-8"), "the user that owns the database"];
                let opened = Db::open(&path, options().create(create));
                refused(opened, ErrorKind::PermissionDenied, &says);
            }
        }
        drop(closed);
        assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
    });
}

#[test]
fn a_directory_that_may_only_be_read() {
    in_child("directory::a_directory_that_may_only_be_read", |place| {
        drop_root();
        let dir = place.join("db");
        sample(&dir);
        let before = image(&dir);
        // An old database, one without its lock's file, and none at all.
        let with_lock = || std::fs::write(dir.join("LOCK"), b"").expect("write");
        let without_lock = || std::fs::remove_file(dir.join("LOCK")).expect("remove");
        for make in [&without_lock as &dyn Fn(), &with_lock] {
            make();
            let _read_only = Permitted::only(&dir, 0o500);
            assert!(is_denied(std::fs::write(dir.join("x"), b"")), "the permissions do not bite");
            let says = [dir.to_str().expect("UTF-8"), "let that user write"];
            refused(Db::open(&dir, options()), ErrorKind::PermissionDenied, &says);
            let new = dir.join("new");
            let says = [new.to_str().expect("UTF-8"), "let that user write"];
            refused(Db::open(&new, options()), ErrorKind::PermissionDenied, &says);
        }
        assert!(image(&dir) == before, "something was changed");
        assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
    });
}

/// One file of another user keeps the whole database from being opened: it is
/// not taken for damage, and nothing is lost.
#[test]
fn a_file_nobody_may_open() {
    in_child("directory::a_file_nobody_may_open", |place| {
        drop_root();
        let dir = place.join("db");
        sample(&dir);
        let before = image(&dir);
        let shard = dir.join("shard-000");
        for path in [
            dir.join("LOCK"),
            dir.join("IDENTITY"),
            manifest(&dir),
            manifest(&shard),
            files(&dir, "", ".wal").remove(0),
            files(&dir, "", ".sst").remove(0),
            dir.join("wal"),
            shard,
        ] {
            let closed = Permitted::only(&path, 0o000);
            let says = [path.to_str().expect("UTF-8"), "the user that owns the database"];
            refused(Db::open(&dir, options()), ErrorKind::PermissionDenied, &says);
            drop(closed);
            assert!(image(&dir) == before, "something was changed");
        }
        assert_holds(&Db::open(&dir, options()).expect("open"), SAMPLE);
    });
}

#[test]
fn a_second_opener_in_the_same_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), options()).expect("open");
    put(&db, 0..3);
    let says = [dir.path().to_str().expect("UTF-8"), "close the other", "Options::lock_wait"];
    refused(Db::open(dir.path(), options()), ErrorKind::Locked, &says);
    put(&db, 3..6);

    let closing = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let db = Db::open(dir.path(), options().lock_wait(PATIENT)).expect("open");
            assert!(closing.load(Ordering::SeqCst), "two handles are open at once");
            assert_holds(&db, 0..6);
        });
        closing.store(true, Ordering::SeqCst);
        db.close().expect("close");
        second.join().expect("the second opener");
    });
}

#[test]
fn a_second_opener_in_another_process() {
    let test = "directory::a_second_opener_in_another_process";
    let is_child = be_child(test, |dir| {
        refused(Db::open(dir, options()), ErrorKind::Locked, &["process", "--lock-wait"]);
        println!("refused");
        std::io::stdout().flush().expect("flush");
        let db = Db::open(dir, options().lock_wait(PATIENT)).expect("open");
        assert_holds(&db, 0..6);
        put(&db, 6..9);
    });
    if is_child {
        return;
    }
    let dir = place();
    let db = Db::open(dir.path(), options()).expect("open");
    put(&db, 0..3);
    let mut child = Child::start(test, dir.path());
    child.wait_for("refused");
    put(&db, 3..6);
    db.close().expect("close");
    child.finish();
    assert_holds(&Db::open(dir.path(), options()).expect("open"), 0..9);
}
