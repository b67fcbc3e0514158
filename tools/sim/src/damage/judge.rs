//! Whether damage is noticed, and harms nothing else.
//!
//! What verification finds no fault in must harm nothing: the database opens, and
//! holds all it did. That can be, and is allowed, for these bytes alone, as nothing
//! says what was there:
//!
//! * log segments, behind the header: what fills a group up to whole units, what lies
//!   behind the end of the log (zeroes, or what a recycled segment held before), what
//!   is in a mapping of the same stream too, and the last record, if nothing later
//!   tells that it was durable: it counts as torn, and so does its write;
//! * mappings, behind the header: slots whose groups are in segments, a watermark that
//!   became lower, and all of it once the machine was started anew. A watermark that
//!   goes together with slots, by one cut or one lost write, takes what only these held
//!   along: nothing else tells that it was there;
//! * manifests, behind the header: the last record, which was witnessed elsewhere
//!   before anything was relied on, and the room behind it;
//! * value files, behind the header: what fills a place up to whole units, and places
//!   that nothing refers to;
//! * files that nothing needs, `LOCK`, which is empty, and a segment that nothing was
//!   written to since it was used again: as a whole it may be what it was before.
//!
//! A shard's manifest that has lost its end, together with what proved that it had one,
//! may name tables that are gone: they are `Corruption` then, as if they had been
//! damaged.
//!
//! What verification and openings name must be where the damage is, as `extents` has it, with
//! the few exceptions that are stated here where they are made.
//!
//! Of tables and the identity every byte counts. Where verification does find
//! something, tables and value files are opened nevertheless, and only what depends on
//! the damage is refused; with all else the opening is refused, or nothing is missed:
//! it does not look at padding.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use ourodb::sim::Sim;
use ourodb::{Db, Error, ErrorKind, Fault, Finding};

use super::harm::{self, Harm, UNIT};
use super::layouts::{Image, Rows, kind};
use crate::fail::DIR;

/// A value of this length, and longer, is in a value file.
const LONG: usize = 64 << 10;

/// What damage came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It changes nothing: the bytes were so before.
    Nothing,
    /// Named, and the opening refused.
    Refused,
    /// Named, and what does not depend on it is there.
    Contained,
    /// All is there.
    Harmless,
}

/// Damages the file, and looks what becomes of the database. `goes_on` says whether to
/// write on, too, where it opens.
pub(crate) fn judge(
    image: &Image,
    path: &Path,
    harm: &Harm,
    goes_on: bool,
) -> Result<Verdict, String> {
    let sound = image.bytes(path).ok_or("there is no such file")?;
    let bytes = harm.apply(image, path).ok_or("there is no such place in it")?;
    if bytes == sound {
        return Ok(Verdict::Nothing);
    }
    let sim = image.machine();
    harm::put(&sim, path, &bytes, sound);
    let damaged =
        Damaged { image, path, harm, bytes: &bytes, changed: changed(sound, &bytes), sim: &sim };
    let judged = damaged.judge(goes_on);
    sim.kill();
    judged
}

/// From the first byte that differs to the last one.
fn changed(sound: &[u8], bytes: &[u8]) -> Range<usize> {
    let differs = |at: &usize| sound.get(*at) != bytes.get(*at);
    let len = sound.len().max(bytes.len());
    let first = (0..len).find(differs).unwrap_or(len);
    let last = (first..len).rev().find(differs).map_or(first, |last| last + 1);
    first..last
}

struct Damaged<'a> {
    image: &'a Image,
    path: &'a Path,
    harm: &'a Harm,
    /// What is in the file now.
    bytes: &'a [u8],
    changed: Range<usize>,
    sim: &'a Sim,
}

impl Damaged<'_> {
    fn judge(&self, goes_on: bool) -> Result<Verdict, String> {
        let faults = self.verify()?;
        if faults.is_empty() && !self.may_be_silent() {
            return Err("verify finds nothing".to_owned());
        }
        let is_named = |fault: &Fault| self.is_here(fault.file(), fault.offset());
        if !faults.is_empty() && !faults.iter().any(is_named) {
            return Err(format!("verify does not name the place, but {}", faults[0]));
        }
        let options = self.image.options_on(self.sim);
        match Db::open(DIR, options) {
            Err(error) => {
                self.unchanged()?;
                self.refused(&error, &faults)
            }
            Ok(db) if self.is_in_table() && !faults.is_empty() => self.contained(&db),
            Ok(db) if !faults.is_empty() && self.lacks_tables(&faults) => self.contained(&db),
            Ok(db) => {
                self.harmless(&db).map_err(|wrong| match faults.first() {
                    Some(fault) => format!("the database opens in spite of {fault}: {wrong}"),
                    None => format!("verify finds nothing: {wrong}"),
                })?;
                if goes_on {
                    self.go_on(db)?;
                }
                Ok(Verdict::Harmless)
            }
        }
    }

    fn verify(&self) -> Result<Vec<Fault>, String> {
        let mut faults = Vec::new();
        let options = self.image.options_on(self.sim);
        let verified = ourodb::verify(DIR, &options, |finding| {
            if let Finding::Fault(fault) = finding {
                faults.push(fault.clone());
            }
            ControlFlow::Continue(())
        });
        verified.map_err(|error| format!("verify fails: {error}"))?;
        Ok(faults)
    }

    fn kind(&self) -> &str {
        kind(self.path)
    }

    fn is_in_table(&self) -> bool {
        matches!(self.kind(), "sst" | "val")
    }

    fn may_be_silent(&self) -> bool {
        let is_covered = match self.kind() {
            "sst" | "IDENTITY" => true,
            "LOCK" | "tmp" => false,
            "wal" if *self.bytes == self.image.stale(self.path)[..] => false,
            _ => self.changed.start < UNIT,
        };
        !is_covered || self.image.unneeded.contains(self.path)
    }

    /// Whether that is where the damage is: something has changed of what is under the same
    /// checksum as the byte there; or of a record that is looked for there, which a mapping
    /// may hold in place of a segment.
    fn is_here(&self, file: &Path, offset: u64) -> bool {
        let has_changed = |place: Range<usize>| {
            let part = |bytes: &[u8]| {
                let end = place.end.min(bytes.len());
                bytes.get(place.start..end).map(<[u8]>::to_vec)
            };
            part(self.bytes) != self.image.bytes(self.path).and_then(part)
        };
        let (extents, at) = (&self.image.extents, offset as usize);
        (file == self.path && has_changed(extents.around(file, at)))
            || extents.sought_at(self.path, file, at).any(has_changed)
            || (self.claims_more() && extents.is_behind_all(self.path, file, at))
    }

    /// The watermark of a mapping, which has no checksum, says that more was acknowledged than
    /// there ever was: it looks as if the log had lost its end.
    fn claims_more(&self) -> bool {
        let watermark = |bytes: &[u8]| {
            let word = bytes.get(UNIT..UNIT + 8).and_then(|word| word.try_into().ok());
            word.map_or(0, u64::from_le_bytes)
        };
        let sound = self.image.bytes(self.path).map_or(0, watermark);
        self.kind() == "map" && watermark(self.bytes) > sound
    }

    /// The root manifest has lost that log was freed: an opening, which names one place, finds
    /// that the log is missing.
    fn is_forgotten(&self, file: &Path) -> bool {
        let is_root = self.path.parent() == Some(Path::new(DIR));
        self.kind() == "MANIFEST" && is_root && kind(file) == "wal"
    }

    fn refused(&self, error: &Error, faults: &[Fault]) -> Result<Verdict, String> {
        if error.kind() != ErrorKind::Corruption {
            return Err(format!("the opening fails otherwise than it should: {error}"));
        }
        if self.is_in_table() {
            return Err(format!("what is no part of the log refuses the opening: {error}"));
        }
        if faults.is_empty() {
            return Err(format!("verify finds nothing, and the opening fails: {error}"));
        }
        let (file, offset) = place(error).ok_or_else(|| format!("no place is named: {error}"))?;
        let file = Path::new(&file);
        if !self.is_here(file, offset) && !self.is_forgotten(file) {
            return Err(format!("the opening does not name the place, but: {error}"));
        }
        Ok(Verdict::Refused)
    }

    /// An opening that is refused has changed no file.
    fn unchanged(&self) -> Result<(), String> {
        let paths = self.sim.paths();
        let is_lock = |path: &PathBuf| kind(path) == "LOCK";
        let before = |path: &Path| match path == self.path {
            true => Some(self.bytes),
            false => self.image.bytes(path),
        };
        let is_changed = |path: &&PathBuf| {
            !is_lock(path) && self.sim.file_bytes(path).as_deref() != before(path)
        };
        let gone = self.image.paths().find(|path| !is_lock(path) && !paths.contains(path));
        match gone.or_else(|| paths.iter().find(is_changed)) {
            None => Ok(()),
            Some(path) => Err(format!("the opening is refused, and changes {}", path.display())),
        }
    }

    /// What may be found.
    fn states(&self) -> impl Iterator<Item = &Rows> {
        let without = self.image.without_mapping.iter().filter(|_| self.has_lost_mapping());
        self.image.states.iter().chain(without)
    }

    /// The watermark of a mapping is damaged, together with what it vouches for.
    fn has_lost_mapping(&self) -> bool {
        let watermark = self.changed.start < 2 * UNIT && self.changed.end > UNIT;
        self.kind() == "map" && watermark && !self.harm.is_byte()
    }

    /// All is there.
    fn harmless(&self, db: &Db) -> Result<(), String> {
        for reverse in [false, true] {
            let (rows, failed) = scan(db, reverse);
            if let Some(error) = failed {
                return Err(format!("a scan fails: {error}"));
            }
            let rows: Rows = rows.into_iter().collect();
            // Of several streams one may lack what its mapping held, and the others not.
            let is_one_of_many = self.has_lost_mapping() && self.image.mappings() > 1;
            if !self.states().any(|state| *state == rows) && !is_one_of_many {
                return Err(format!("silently other data: {}", self.difference(&rows)));
            }
        }
        for key in (0..super::layouts::KEYS).map(super::layouts::name) {
            let found = db.get(&key).wait().map_err(|error| format!("a get fails: {error}"))?;
            let found = found.as_deref();
            if !self.states().any(|rows| rows.get(&key).map(|v| &v[..]) == found) {
                return Err(format!("silently another value of {}", key.escape_ascii()));
            }
        }
        Ok(())
    }

    /// What is written to such a database is found again.
    fn go_on(&self, db: Db) -> Result<(), String> {
        let mut rows: Rows = scan(&db, false).0.into_iter().collect();
        db.put(b"later", b"x").wait().map_err(|error| format!("a put fails: {error}"))?;
        rows.insert(b"later".to_vec(), b"x".to_vec());
        self.sim.power_cut();
        drop(db);
        let db = Db::open(DIR, self.image.options_on(self.sim))
            .map_err(|error| format!("the opening after it fails: {error}"))?;
        let (found, failed) = scan(&db, false);
        match failed {
            Some(error) => Err(format!("after another write a scan fails: {error}")),
            None if found.into_iter().collect::<Rows>() == rows => Ok(()),
            None => Err("after another write there are other data".to_owned()),
        }
    }

    /// What is in tables and depends on what is damaged is refused; nothing else is.
    fn contained(&self, db: &Db) -> Result<Verdict, String> {
        let rows = self.image.newest();
        let mut failed = 0;
        for number in 0..super::layouts::KEYS {
            let key = super::layouts::name(number);
            let expected = rows.get(&key).map(|value| &value[..]);
            match db.get(&key).wait() {
                Ok(found) if found.as_deref() == expected => {}
                Ok(_) => return Err(format!("a wrong value of {}", key.escape_ascii())),
                Err(error) => {
                    failed += 1;
                    self.may_fail(&key, expected, &error)?;
                }
            }
        }
        for reverse in [false, true] {
            let expected: Vec<_> = rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            let expected: Vec<_> = match reverse {
                false => expected,
                true => expected.into_iter().rev().collect(),
            };
            let (found, error) = scan(db, reverse);
            if !expected.starts_with(&found) {
                return Err("a scan finds wrong rows".to_owned());
            }
            match error {
                None if found.len() < expected.len() => {
                    return Err("a scan ends early, without an error".to_owned());
                }
                None if failed > 0 && self.kind() == "sst" => {
                    // A get may ask a table for what is deleted, as a scan does.
                    return Err("gets fail, and a scan does not".to_owned());
                }
                None => {}
                Some(error) => self.is_told(&error)?,
            }
        }
        Ok(Verdict::Contained)
    }

    /// The end of a shard's manifest is lost, and what it names is gone.
    fn lacks_tables(&self, faults: &[Fault]) -> bool {
        let is_table = |fault: &Fault| kind(fault.file()) == "sst";
        self.kind() == "MANIFEST" && !self.harm.is_byte() && faults.iter().any(is_table)
    }

    /// The error is of the kind, and names the place.
    fn is_told(&self, error: &Error) -> Result<(), String> {
        let is_here = |(file, offset): (String, u64)| {
            let path = Path::new(&file);
            self.is_here(path, offset) || self.kind() == "MANIFEST" && kind(path) == "sst"
        };
        match error.kind() == ErrorKind::Corruption && place(error).is_some_and(is_here) {
            true => Ok(()),
            false => Err(format!("a read fails otherwise than it should: {error}")),
        }
    }

    /// A get of this key may fail, and so.
    fn may_fail(&self, key: &[u8], value: Option<&[u8]>, error: &Error) -> Result<(), String> {
        self.is_told(error)?;
        let may = match self.kind() {
            "MANIFEST" => true,
            "val" => {
                let is_long = value.is_some_and(|value| value.len() > LONG);
                is_long && self.image.blocks.may_hold(self.path, &self.changed, key)
            }
            _ => self.image.blocks.may_need(self.path, &self.changed, key),
        };
        match may {
            true => Ok(()),
            false => Err(format!("{} is not in what is damaged: {error}", key.escape_ascii())),
        }
    }

    fn difference(&self, rows: &Rows) -> String {
        let newest = self.image.newest();
        let keys: BTreeMap<_, _> = newest.iter().chain(rows).collect();
        let differs = |key: &&&Vec<u8>| newest.get(**key) != rows.get(**key);
        match keys.keys().find(differs) {
            Some(key) => format!("of {}", key.escape_ascii()),
            None => "none is lost".to_owned(),
        }
    }
}

/// The rows of a scan, and what it ended with.
fn scan(db: &Db, reverse: bool) -> (Vec<(Vec<u8>, Vec<u8>)>, Option<Error>) {
    let scan = db.scan(..);
    let scan = if reverse { scan.reverse() } else { scan };
    let mut rows = Vec::new();
    for row in scan.iter() {
        match row {
            Ok((key, value)) => rows.push((key.into_vec(), value.into_vec())),
            Err(error) => return (rows, Some(error)),
        }
    }
    (rows, None)
}

/// The file and the offset that an error names.
fn place(error: &Error) -> Option<(String, u64)> {
    let text = error.to_string();
    let (before, behind) = text.split_once(" offset ")?;
    let file = before.rsplit(' ').next()?;
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((file.to_owned(), digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::layouts::{LAYOUTS, Layout};

    fn image(name: &str) -> Image {
        let layout: &Layout = LAYOUTS.iter().find(|layout| layout.name == name).expect("one");
        Image::make(layout).expect("a sound engine")
    }

    fn path(image: &Image, of: &str) -> std::path::PathBuf {
        image.paths().find(|path| kind(path) == of).expect("a file").clone()
    }

    #[test]
    fn each_way_to_damage_is_judged() {
        let image = image("killed");
        let mut verdicts = BTreeMap::new();
        for path in image.paths() {
            let lengths = harm::lengths(&image, path).into_iter().step_by(7);
            let swaps = harm::swaps(&image, path).into_iter().step_by(7);
            let coarse = lengths.flat_map(harm::truncations).chain(swaps);
            let len = image.bytes(path).expect("a file").len();
            let bytes = (0..len).step_by(509).map(|at| Harm::Byte { at, to: 0x5a });
            for harm in coarse.chain(bytes) {
                let again: Harm = harm.to_string().parse().expect("what is printed can be read");
                assert_eq!(again, harm);
                let verdict = judge(&image, path, &harm, true);
                let verdict = verdict.unwrap_or_else(|w| panic!("{} {harm}: {w}", path.display()));
                *verdicts.entry(verdict).or_insert(0) += 1;
            }
        }
        assert!(verdicts.len() == 4 && verdicts.values().all(|&n| n > 5), "{verdicts:?}");
    }

    #[test]
    fn a_root_manifest_that_has_forgotten_what_was_freed_is_named() {
        let image = image("closed");
        let is_root = |path: &&PathBuf| path.to_string_lossy().starts_with("/db/MANIFEST");
        let root = image.paths().find(is_root).expect("a root manifest");
        let len = image.bytes(root).expect("a file").len();
        for at in (UNIT..len).step_by(UNIT) {
            for harm in harm::truncations(at) {
                judge(&image, root, &harm, false).unwrap_or_else(|wrong| panic!("{harm}: {wrong}"));
            }
        }
    }

    #[test]
    fn a_row_that_is_not_there_is_missed() {
        let mut image = image("killed");
        let (manifest, table) = (path(&image, "MANIFEST"), path(&image, "sst"));
        let last = image.states.last_mut().expect("a state");
        last.insert(super::super::layouts::name(13), b"never written".to_vec());
        // Room behind the last record; and a block of a table.
        let at = image.bytes(&manifest).expect("a file").len() - 1;
        let silent = judge(&image, &manifest, &Harm::Byte { at, to: 1 }, false);
        assert!(silent.as_ref().is_err_and(|wrong| wrong.contains("other data")), "{silent:?}");
        let told = judge(&image, &table, &Harm::Byte { at: UNIT + 9, to: 0xee }, false);
        assert!(told.as_ref().is_err_and(|wrong| wrong.contains("wrong")), "{told:?}");
    }

    #[test]
    fn damage_that_is_said_to_be_elsewhere_is_seen() {
        let image = image("closed");
        let table = path(&image, "sst");
        let sound = image.bytes(&table).expect("a file");
        let mut bytes = sound.to_vec();
        bytes[UNIT + 9] ^= 1;
        let sim = image.machine();
        harm::put(&sim, &table, &bytes, sound);
        // What is judged claims that it was another byte: right behind what is under the same
        // checksum, or of another file; and much that is not so near, too.
        let next = image.extents.around(&table, UNIT).end;
        let last = sound.len() - 1;
        let log = path(&image, "wal");
        let claims = [
            (&table, Harm::Byte { at: next, to: sound[next] ^ 1 }),
            (&table, Harm::Cut { len: next }),
            (&table, Harm::Swap { a: last / UNIT, b: last / UNIT - 1 }),
            (&log, Harm::Byte { at: 0, to: 0 }),
            (&log, Harm::Zero { from: UNIT }),
        ];
        for (path, harm) in claims {
            let sound = image.bytes(path).expect("a file");
            let bytes = harm.apply(&image, path).expect("it is possible");
            let changed = changed(sound, &bytes);
            let damaged =
                Damaged { image: &image, path, harm: &harm, bytes: &bytes, changed, sim: &sim };
            let judged = damaged.judge(false);
            assert!(
                judged.as_ref().is_err_and(|wrong| wrong.contains("name the place")),
                "{harm}: {judged:?}"
            );
        }
        sim.kill();
    }
}
