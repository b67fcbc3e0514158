//! Files of a newer version of the engine: they are refused, and kept.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ourodb::{Db, ErrorKind};

use super::{SAMPLE, assert_holds, files, manifest, opening_refused, options, sample};

const UNIT: usize = 4096;
const HEADER_BYTES: usize = 512;
const VERSION_AT: usize = 8;
const READ_ONLY_COMPATIBLE_AT: usize = 24;
const INCOMPATIBLE_AT: usize = 32;

/// Changes a byte of a header, and makes its checksum right again.
fn change(header: &mut [u8], at: usize) {
    let (checked, crc) = header[..HEADER_BYTES].split_at_mut(HEADER_BYTES - 4);
    let sum = |checked: &[u8]| crc32c::crc32c_append(crc32c::crc32c(checked), &[0; 4]);
    assert_eq!(crc, sum(checked).to_le_bytes(), "the test knows how headers are checked");
    checked[at] ^= 0x40;
    crc.copy_from_slice(&sum(checked).to_le_bytes());
}

/// Changes each of the headers at the start of a file.
fn change_file(path: &Path, headers: usize, at: usize) {
    let file = std::fs::File::options().read(true).write(true).open(path).expect("open");
    for i in 0..headers {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, (i * UNIT) as u64).expect("read");
        change(&mut header, at);
        file.write_all_at(&header, (i * UNIT) as u64).expect("write");
    }
}

fn refuses_newer(path_of: impl Fn(&Path) -> PathBuf, headers: usize, at: &[usize]) {
    let dir = tempfile::tempdir().expect("a directory");
    sample(dir.path());
    let path = path_of(dir.path());
    for &at in at {
        change_file(&path, headers, at);
        let says = [path.to_str().expect("UTF-8"), "use a newer ouro"];
        opening_refused(dir.path(), ErrorKind::Unsupported, &says);
        change_file(&path, headers, at);
    }
    assert_holds(&Db::open(dir.path(), options()).expect("open"), SAMPLE);
}

const ALL: [usize; 3] = [VERSION_AT, INCOMPATIBLE_AT, READ_ONLY_COMPATIBLE_AT];

#[test]
fn a_newer_identity() {
    refuses_newer(|dir| dir.join("IDENTITY"), 2, &ALL);
}

#[test]
fn a_newer_root_manifest() {
    refuses_newer(manifest, 1, &ALL);
}

#[test]
fn a_newer_shard_manifest() {
    refuses_newer(|dir| manifest(&dir.join("shard-000")), 1, &ALL);
}

#[test]
fn a_newer_log() {
    refuses_newer(|dir| files(dir, "", ".wal").remove(0), 1, &ALL);
}

/// A table is only ever read.
#[test]
fn a_newer_table() {
    let at = [VERSION_AT, INCOMPATIBLE_AT];
    refuses_newer(|dir| files(dir, "", ".sst").remove(0), 1, &at);
    let dir = tempfile::tempdir().expect("a directory");
    sample(dir.path());
    change_file(&files(dir.path(), "", ".sst")[0], 1, READ_ONLY_COMPATIBLE_AT);
    assert_holds(&Db::open(dir.path(), options()).expect("open"), SAMPLE);
}
