//! Floor 6: one shard's tree, as far as it does not change: immutable
//! memtables and tables, how a key is found in them, how they are walked over
//! in order, and how a memtable becomes a table.

mod cursor;
mod flush;
mod levels;
mod run;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use cursor::{Cursor, Direction, Mutable, Row, Step};
pub(crate) use flush::{Retain, TablePlace, write_table};
pub(crate) use levels::{Levels, Lookup, Member};
pub(crate) use view::{Frozen, View};
