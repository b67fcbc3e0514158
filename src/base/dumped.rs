//! What a dump of a file consists of, for whoever prints it.

use crate::base::fault::Fault;

/// How much [`dump`](crate::dump()) tells of a file.
///
/// ```
/// use ourodb::DumpDetail;
/// assert!(DumpDetail::Summary < DumpDetail::Blocks && DumpDetail::Blocks < DumpDetail::Entries);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DumpDetail {
    /// Header and properties, the records of a log, all of a manifest.
    #[default]
    Summary,
    /// Also each partition and block of a table.
    Blocks,
    /// Also each entry.
    Entries,
}

/// A part of a file, as [`dump`](crate::dump()) tells it. `depth` says how far
/// to indent it: what belongs to something is one deeper.
///
/// ```
/// use ourodb::Dumped;
/// fn print(part: Dumped<'_>) {
///     match part {
///         Dumped::Text { depth, text } => println!("{:1$}{text}", "", 2 * depth),
///         Dumped::Damage(fault) => println!("DAMAGE {fault}"),
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Dumped<'a> {
    /// Words.
    Text {
        /// See the type.
        depth: usize,
        /// One line.
        text: &'a str,
    },
    /// A key that something is said of.
    Key {
        /// See the type.
        depth: usize,
        /// What the key is.
        name: &'a str,
        /// The key.
        key: &'a [u8],
    },
    /// A version of a key.
    Entry {
        /// See the type.
        depth: usize,
        /// Its sequence number.
        seq: u64,
        /// `put`, `delete`, `range delete` or `put in a value file`.
        kind: &'a str,
        /// The key; of a range delete the first one.
        key: &'a [u8],
        /// The value of a put; of one in a value file, words that say where it
        /// is: file, offset, length; where a range delete ends, exclusive, empty
        /// for nowhere.
        value: Option<&'a [u8]>,
    },
    /// What cannot be read.
    Damage(&'a Fault),
}
