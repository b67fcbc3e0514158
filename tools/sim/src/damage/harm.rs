//! Ways to damage a file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ourodb::sim::Sim;

use super::layouts::Image;

pub(crate) const UNIT: usize = 4096;
pub(crate) const SECTOR: usize = 512;

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The byte there has another value.
    Byte { at: usize, to: u8 },
    /// It ends there.
    Cut { len: usize },
    /// From there on are zeroes.
    Zero { from: usize },
    /// From there on is what stood there once, or stands in another file.
    Stale { from: usize },
    /// Two units have changed places.
    Swap { a: usize, b: usize },
    /// A unit was written to the place of another one.
    Misdirect { from: usize, to: usize },
    /// A unit was written to the same place of another file.
    Foreign { unit: usize, from: PathBuf },
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte { at, to } => write!(f, "byte:{at}:{to}"),
            Self::Cut { len } => write!(f, "cut:{len}"),
            Self::Zero { from } => write!(f, "zero:{from}"),
            Self::Stale { from } => write!(f, "stale:{from}"),
            Self::Swap { a, b } => write!(f, "swap:{a}:{b}"),
            Self::Misdirect { from, to } => write!(f, "misdirect:{from}:{to}"),
            Self::Foreign { unit, from } => write!(f, "foreign:{unit}:{}", from.display()),
        }
    }
}

impl FromStr for Harm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let number = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is no number"));
        Ok(match parts[..] {
            ["byte", at, to] => {
                let to = to.parse().map_err(|_| format!("\"{to}\" is no byte"))?;
                Self::Byte { at: number(at)?, to }
            }
            ["cut", len] => Self::Cut { len: number(len)? },
            ["zero", from] => Self::Zero { from: number(from)? },
            ["stale", from] => Self::Stale { from: number(from)? },
            ["swap", a, b] => Self::Swap { a: number(a)?, b: number(b)? },
            ["misdirect", from, to] => Self::Misdirect { from: number(from)?, to: number(to)? },
            ["foreign", unit, from] => Self::Foreign { unit: number(unit)?, from: from.into() },
            _ => return Err("what a replay: line says is wanted, such as byte:17:255".to_owned()),
        })
    }
}

impl Harm {
    /// The file's bytes after it; `None` where it is not possible.
    pub(crate) fn apply(&self, image: &Image, path: &Path) -> Option<Vec<u8>> {
        let sound = image.bytes(path)?;
        let mut bytes = sound.to_vec();
        let unit = |at: usize| sound.get(at * UNIT..(at + 1) * UNIT);
        match self {
            Self::Byte { at, to } => *bytes.get_mut(*at)? = *to,
            Self::Cut { len } => bytes.truncate(*len),
            Self::Zero { from } => bytes.get_mut(*from..)?.fill(0),
            Self::Stale { from } => {
                let stale = image.stale(path);
                let tail = bytes.get_mut(*from..)?;
                // A file that was shorter then had nothing there.
                let known = stale.get(*from..).unwrap_or_default();
                tail.fill(0);
                let len = known.len().min(tail.len());
                tail[..len].copy_from_slice(&known[..len]);
            }
            Self::Swap { a, b } => {
                bytes.get_mut(a * UNIT..(a + 1) * UNIT)?.copy_from_slice(unit(*b)?);
                bytes.get_mut(b * UNIT..(b + 1) * UNIT)?.copy_from_slice(unit(*a)?);
            }
            Self::Misdirect { from, to } => {
                bytes.get_mut(to * UNIT..(to + 1) * UNIT)?.copy_from_slice(unit(*from)?);
            }
            Self::Foreign { unit, from } => {
                let place = unit * UNIT..(unit + 1) * UNIT;
                let other = image.bytes(from)?.get(place.clone())?;
                bytes.get_mut(place)?.copy_from_slice(other);
            }
        }
        Some(bytes)
    }

    /// Whether one byte, of what only one checksum is for, is damaged.
    pub(crate) fn is_byte(&self) -> bool {
        matches!(self, Self::Byte { .. })
    }
}

/// Puts these bytes in place of a file's.
pub(crate) fn put(sim: &Sim, path: &Path, bytes: &[u8], sound: &[u8]) {
    if bytes.len() != sound.len() {
        sim.truncate(path, bytes.len() as u64);
    }
    // Only what differs, so that images go on sharing the rest.
    for (at, (new, old)) in bytes.chunks(UNIT).zip(sound.chunks(UNIT)).enumerate() {
        if new != old && !new.is_empty() {
            sim.overwrite(path, (at * UNIT) as u64, new);
        }
    }
}

/// Three other values of a byte: a flipped bit, all bits alike, anything.
pub(crate) fn patterns(at: usize, byte: u8) -> [u8; 3] {
    let bit = byte ^ 1 << (mix(at) % 8);
    let alike = if byte == 0 { 0xff } else { 0 };
    let mut any = mix(at + 1) as u8;
    while any == byte || any == bit || any == alike {
        any = any.wrapping_add(1);
    }
    [bit, alike, any]
}

/// Small numbers that look random.
pub(crate) fn mix(seed: usize) -> usize {
    let x = (seed as u64 ^ 0x9e37_79b9).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 32) as usize
}

/// What can become of a file from a length on.
pub(crate) fn truncations(at: usize) -> [Harm; 3] {
    [Harm::Cut { len: at }, Harm::Zero { from: at }, Harm::Stale { from: at }]
}

/// The lengths that are tried in any case: where a device may tear, and where what is under
/// one checksum begins and ends, with those next to it.
pub(crate) fn lengths(image: &Image, path: &Path) -> BTreeSet<usize> {
    let len = image.bytes(path).map_or(0, <[u8]>::len);
    let around = |bound: usize| bound.saturating_sub(1)..bound + 2;
    let bounds = image.extents.bounds(path).flat_map(around);
    (0..len).step_by(SECTOR).chain(bounds).filter(|&at| at < len).collect()
}

/// The ways to put whole units where they do not belong.
pub(crate) fn swaps(image: &Image, path: &Path) -> Vec<Harm> {
    let units = image.bytes(path).map_or(0, <[u8]>::len) / UNIT;
    let mut harms = Vec::new();
    let alike = image.alike(path);
    for unit in 0..units {
        let other = mix(unit) % units;
        harms.extend([
            Harm::Swap { a: unit, b: (unit + 1) % units },
            Harm::Swap { a: unit, b: other },
            Harm::Misdirect { from: unit, to: (unit + 1) % units },
            Harm::Misdirect { from: other, to: unit },
        ]);
        let has_it = |other: &&&Path| image.bytes(other).is_some_and(|b| b.len() > unit * UNIT);
        let alike: Vec<_> = alike.iter().filter(has_it).collect();
        if let Some(from) = alike.get(mix(unit) % alike.len().max(1)) {
            harms.push(Harm::Foreign { unit, from: from.to_path_buf() });
        }
    }
    harms
}
