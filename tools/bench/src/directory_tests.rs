//! What is replaced, what is refused, and what a marker must say.

use super::*;
use crate::engine::OuroDb;

fn shape(records: u64) -> Shape {
    let compression = ourodb::Compression::Lz4;
    Shape {
        format: FORMAT,
        records,
        key_bytes: 24,
        key_bytes_max: None,
        value_bytes: 400,
        value_sizes: None,
        compressible: 0.5,
        seed: 1,
        is_traced: false,
        has_gaps: false,
        compression,
    }
}

/// A directory as a load leaves it.
fn loaded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["wal", "shard-000", "shard-001"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    for file in [
        "LOCK",
        "IDENTITY",
        "IDENTITY.tmp",
        "MANIFEST-00000001000000ab",
        "MANIFEST-00000001000000ac.tmp",
        "ouro-bench.json.new",
        "wal/000000000001.wal",
        "wal/00000001-0000002.wal",
        "wal/000000000001.map",
        "shard-000/MANIFEST-000001",
        "shard-000/000000000002.sst",
        "shard-001/000000000003.val",
    ] {
        fs::write(dir.path().join(file), "x").unwrap();
    }
    write_shape(dir.path(), &shape(10)).unwrap();
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_earlier_load_is_replaced_only_when_told() {
    let dir = loaded();
    let before = names(dir.path());
    let refused = make_room::<OuroDb>(dir.path(), &shape(7), false).unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains("--overwrite"));
    assert_eq!(names(dir.path()), before);

    make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap();
    assert_eq!(names(dir.path()), ["LOCK", "ouro-bench.json"]);
    assert!(read_shape(dir.path()).unwrap_err().to_string().contains("did not end"));
    // As after a removal that was cut short.
    make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap();
}

#[test]
fn foreign_files_are_never_removed() {
    for foreign in [
        "notes.txt",
        "wal/notes.txt",
        "wal/x.wal",
        "wal/1.sst",
        "shard-000/1.wal",
        "shard-000/IDENTITY",
        "MANIFEST-",
        "MANIFEST-x",
        "1.sst",
        ".hidden",
        "shard-00x",
    ] {
        let dir = loaded();
        let path = dir.path().join(foreign);
        fs::write(&path, "precious").unwrap();
        for overwrite in [false, true] {
            let refused = make_room::<OuroDb>(dir.path(), &shape(7), overwrite).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{foreign}");
            assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(dir.path().join("wal/000000000001.wal").exists());
    }
    for foreign in ["empty", "wal/more", "shard-000/shard-001", "ouro-bench.json.new", "1.wal"] {
        let dir = loaded();
        fs::create_dir(dir.path().join(foreign)).unwrap();
        assert_eq!(
            make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap_err().exit_code(),
            2,
            "{foreign}"
        );
        assert!(dir.path().join(foreign).exists());
    }
}

/// What an earlier load is compared with survives its replacement.
#[test]
fn results_beside_a_database_stay_when_it_is_replaced() {
    let dir = loaded();
    for name in ["before.json", "before.hlog", "before.html"] {
        fs::write(dir.path().join(name), "precious").unwrap();
    }
    make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap();
    assert!(!dir.path().join("wal/000000000001.wal").exists());
    for name in ["before.json", "before.hlog", "before.html"] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"precious");
    }
    // They do not make a directory this tool's.
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("before.json"), "precious").unwrap();
    assert_eq!(make_room::<OuroDb>(foreign.path(), &shape(7), true).unwrap_err().exit_code(), 2);
}

#[test]
fn links_are_not_followed() {
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("1.wal"), "precious").unwrap();
    let dir = loaded();
    std::os::unix::fs::symlink(target.path(), dir.path().join("shard-002")).unwrap();
    assert_eq!(make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap_err().exit_code(), 2);
    assert!(target.path().join("1.wal").exists());
}

#[test]
fn a_database_without_marker_is_somebody_elses() {
    let dir = loaded();
    fs::remove_file(dir.path().join(MARKER)).unwrap();
    let refused = make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains(MARKER));
    assert!(dir.path().join("IDENTITY").exists());
}

#[test]
fn an_open_database_is_not_removed() {
    let dir = loaded();
    let holder = lock(dir.path()).unwrap();
    let refused = make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap_err();
    assert_eq!(refused.exit_code(), 4);
    assert!(dir.path().join("IDENTITY").exists());
    drop(holder);
    make_room::<OuroDb>(dir.path(), &shape(7), true).unwrap();
}

#[test]
fn room_that_was_not_used_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    make_room::<OuroDb>(&deep, &shape(7), false).unwrap().give_back::<OuroDb>();
    assert_eq!(names(dir.path()), [""; 0]);
    // What was there stays, and what somebody put there; not what the engine did.
    fs::create_dir_all(&deep).unwrap();
    make_room::<OuroDb>(&deep, &shape(7), false).unwrap().give_back::<OuroDb>();
    assert_eq!(names(&deep), [""; 0]);
    let room = make_room::<OuroDb>(&deep, &shape(7), false).unwrap();
    fs::create_dir(deep.join("wal")).unwrap();
    for file in ["IDENTITY", "LOCK", "wal/000000000001.wal"] {
        fs::write(deep.join(file), "x").unwrap();
    }
    room.give_back::<OuroDb>();
    assert_eq!(names(&deep), [""; 0]);
    let room = make_room::<OuroDb>(&deep, &shape(7), false).unwrap();
    fs::write(deep.join("note"), "precious").unwrap();
    room.give_back::<OuroDb>();
    assert_eq!(names(&deep), ["LOCK", "note", MARKER]);
    let loaded = loaded();
    make_room::<OuroDb>(loaded.path(), &shape(7), true).unwrap().give_back::<OuroDb>();
    assert_eq!(names(loaded.path()), ["LOCK", MARKER]);
}

#[test]
fn room_is_made_where_there_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    make_room::<OuroDb>(dir.path(), &shape(7), false).unwrap();
    assert_eq!(names(dir.path()), ["lost+found", MARKER]);
    let deep = dir.path().join("a/b");
    make_room::<OuroDb>(&deep, &shape(7), false).unwrap();
    assert!(deep.is_dir());
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    for overwrite in [false, true] {
        assert_eq!(make_room::<OuroDb>(&file, &shape(7), overwrite).unwrap_err().exit_code(), 2);
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn the_marker_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for records in [1, 1_000_000] {
        write_shape(dir.path(), &shape(records)).unwrap();
        assert_eq!(read_shape(dir.path()).unwrap(), shape(records));
    }
    assert_eq!(names(dir.path()), [MARKER]);
}

#[test]
fn a_marker_that_does_not_help_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        fs::write(dir.path().join(MARKER), text).unwrap();
        read_shape(dir.path()).unwrap_err()
    };
    let missing = read_shape(&dir.path().join("none")).unwrap_err();
    assert_eq!(missing.exit_code(), 2);
    assert!(missing.to_string().contains("load --dir"), "{missing}");
    assert_eq!(read("").exit_code(), 7);
    assert_eq!(read("{}").exit_code(), 7);
    assert_eq!(read(r#"{"format": 2, "anything": 1}"#).exit_code(), 6);
    let shape = |records: u64, key_bytes: u64| {
        format!(
            r#"{{"format": 1, "records": {records}, "key_bytes": {key_bytes},
                "value_bytes": 400, "seed": 1}}"#
        )
    };
    assert_eq!(read(&shape(10, 3)).exit_code(), 7);
    let unfinished = read(&shape(0, 24));
    assert_eq!(unfinished.exit_code(), 2);
    assert!(unfinished.to_string().contains("did not end"), "{unfinished}");
}

#[test]
fn a_load_that_does_not_fit_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let huge = shape(1 << 50);
    let error = check_space::<OuroDb>(&path, &huge, 64 << 20).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert!(error.to_string().contains("free"), "{error}");
    assert!(!path.exists());
    check_space::<OuroDb>(&path, &shape(10), 64 << 20).unwrap();
}
