//! What a salvage of a database comes upon, and what it counts.

use std::fmt;
use std::ops::Bound;

use crate::base::fault::Fault;
use crate::base::keys::KeyBounds;

/// Something that a salvage could not copy, or cannot answer for; see
/// [`salvage`](crate::salvage()).
///
/// Printed, it is `FILE offset N: reason: keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub(crate) fault: Fault,
    pub(crate) keys: Option<KeyBounds>,
}

impl Loss {
    /// What is damaged, where, and what that means.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Among which keys it is; `None` when nothing tells. Of the bounds, which are
    /// inclusive, a key may be there all the same: they are the sound neighbours
    /// of what is lost.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyBounds> {
        self.keys.as_ref()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)?;
        let Some((from, to)) = &self.keys else { return Ok(()) };
        let (Bound::Included(from) | Bound::Excluded(from)) = from else {
            return match to {
                Bound::Included(to) | Bound::Excluded(to) => {
                    write!(f, ": keys up to {}", to.escape_ascii())
                }
                Bound::Unbounded => f.write_str(": any key"),
            };
        };
        match to {
            Bound::Included(to) if from == to => write!(f, ": key {}", from.escape_ascii()),
            Bound::Included(to) | Bound::Excluded(to) => {
                write!(f, ": keys from {} to {}", from.escape_ascii(), to.escape_ascii())
            }
            Bound::Unbounded => write!(f, ": keys from {} on", from.escape_ascii()),
        }
    }
}

/// What a salvage reports as it goes; see [`salvage`](crate::salvage()).
///
/// ```
/// use ourodb::Salvaging;
/// fn show(event: Salvaging<'_>) {
///     match event {
///         Salvaging::Lost(loss) => println!("{loss}"),
///         Salvaging::Spared(fault) => eprintln!("{fault}"),
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Salvaging<'a> {
    /// Something was lost, or may have been.
    Lost(&'a Loss),
    /// Something is damaged, and nothing is lost by it.
    Spared(&'a Fault),
    /// So many bytes were read so far.
    Read(u64),
}

/// What a salvage has copied and lost; see [`salvage`](crate::salvage()).
///
/// Printing it gives one `name: value` a line.
///
/// ```
/// use ourodb::{Db, Options};
/// use std::ops::ControlFlow;
/// # let dir = tempfile::tempdir().unwrap();
/// let (old, new) = (dir.path().join("old"), dir.path().join("new"));
/// let db = Db::open(&old, Options::default())?;
/// db.put(b"key", b"value").wait()?;
/// db.close()?;
/// let report = |_: ourodb::Salvaging<'_>| ControlFlow::Continue(());
/// let salvaged = ourodb::salvage(&old, &new, &Options::default(), report)?;
/// assert_eq!((salvaged.rows, salvaged.bytes, salvaged.losses), (1, 8, 0));
/// # Ok::<(), ourodb::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// All that is sound was copied: nobody stopped the salvage.
    pub is_complete: bool,
    /// Rows copied.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Losses reported.
    pub losses: u64,
    /// Damage reported that nothing is lost by.
    pub spared: u64,
}

impl Salvaged {
    /// Names and values of the counts, in the order of the fields.
    ///
    /// ```
    /// let names: Vec<_> = ourodb::Salvaged::default().fields().into_iter().map(|f| f.0).collect();
    /// assert!(names.contains(&"losses"));
    /// ```
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("rows", self.rows),
            ("bytes", self.bytes),
            ("losses", self.losses),
            ("spared", self.spared),
        ]
    }
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.fields().into_iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{name}: {value}")?;
        }
        Ok(())
    }
}
