//! What is on a disk: in memory, sparse, and cheap to copy, since copies share
//! all that neither of them changes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const UNIT_BYTES: usize = 4096;

type Unit = [u8; UNIT_BYTES];

/// The bytes of a disk; never written ones are zero.
#[derive(Clone)]
pub(crate) struct Image {
    units: Vec<Option<Arc<Unit>>>,
}

impl Image {
    /// All zero; a part of a unit at the end is left out.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { units: vec![None; (bytes / UNIT_BYTES as u64) as usize] }
    }

    /// What a file has.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut image = Self::new(file.metadata()?.len());
        let mut unit = [0; UNIT_BYTES];
        for place in &mut image.units {
            file.read_exact(&mut unit)?;
            *place = (unit != [0; UNIT_BYTES]).then(|| Arc::new(unit));
        }
        Ok(image)
    }

    /// Makes a file of it, as sparse as it is.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.bytes())?;
        for (unit, offset) in self.units.iter().zip((0..).step_by(UNIT_BYTES)) {
            if let Some(unit) = unit {
                file.write_all_at(&unit[..], offset)?;
            }
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.units.len() * UNIT_BYTES) as u64
    }

    /// The bytes from `offset` on, fewer than asked for at the end.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = self.bytes().min(offset.saturating_add(length as u64));
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for part in parts(offset, bytes.len()) {
            if let Some(unit) = &self.units[part.unit] {
                let from = &unit[part.start..part.start + part.length];
                bytes[part.at..part.at + part.length].copy_from_slice(from);
            }
        }
        bytes
    }

    /// Panics beyond the end.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for part in parts(offset, bytes.len()) {
            let unit = self.units[part.unit].get_or_insert_with(|| Arc::new([0; UNIT_BYTES]));
            Arc::make_mut(unit)[part.start..part.start + part.length]
                .copy_from_slice(&bytes[part.at..part.at + part.length]);
        }
    }

    /// Panics beyond the end.
    pub(crate) fn zero(&mut self, offset: u64, length: usize) {
        for part in parts(offset, length) {
            let place = &mut self.units[part.unit];
            if part.length == UNIT_BYTES {
                *place = None;
            } else if let Some(unit) = place {
                Arc::make_mut(unit)[part.start..part.start + part.length].fill(0);
            }
        }
    }
}

/// The part of a range that lies in one unit.
struct Part {
    unit: usize,
    /// Where it begins there, and in the range.
    start: usize,
    at: usize,
    length: usize,
}

fn parts(offset: u64, length: usize) -> impl Iterator<Item = Part> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let place = offset as usize + at;
        let (unit, start) = (place / UNIT_BYTES, place % UNIT_BYTES);
        let part = Part { unit, start, at, length: (UNIT_BYTES - start).min(length - at) };
        at += part.length;
        (part.length > 0).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_copies_stay_as_they_were() {
        let mut image = Image::new(3 * UNIT_BYTES as u64 + 5);
        assert_eq!(image.bytes(), 3 * UNIT_BYTES as u64);
        image.write(4000, &[7; 5000]);
        let before = image.clone();
        image.zero(4100, 100);
        image.zero(0, UNIT_BYTES);
        let expected = |zeroed: &[std::ops::Range<usize>]| -> Vec<u8> {
            let written = |at: &usize| (4000..9000).contains(at);
            let kept = |at: &usize| !zeroed.iter().any(|range| range.contains(at));
            (0..3 * UNIT_BYTES).map(|at| if written(&at) && kept(&at) { 7 } else { 0 }).collect()
        };
        assert_eq!(before.read(0, 1 << 20), expected(&[]));
        assert_eq!(image.read(0, 1 << 20), expected(&[0..UNIT_BYTES, 4100..4200]));
        assert_eq!(image.read(8990, 20), [[7; 10], [0; 10]].concat());
    }

    #[test]
    fn files_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut image = Image::new(8 * UNIT_BYTES as u64);
        image.write(5 * UNIT_BYTES as u64 - 1, b"across");
        image.save(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), image.read(0, 1 << 20));
        let loaded = Image::load(&path).unwrap();
        assert_eq!(loaded.read(0, 1 << 20), image.read(0, 1 << 20));
        assert_eq!(loaded.units.iter().flatten().count(), 2);
    }
}
