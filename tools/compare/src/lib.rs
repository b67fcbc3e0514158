//! `ouro-compare`: OuroDB beside RocksDB, fjall, redb and LMDB, under the very
//! same workload code.
//!
//! Everything that measures is `ouro-bench`'s. Here are only the other engines
//! as targets of it ([`engines`]), the command line that chooses between them
//! ([`cli`]), the alternation of engines, one process each ([`alternate`], [`child`]), and
//! everything that is compared, as one report ([`suite`]).
//!
//! A library only so that tests can reach the parts.

pub mod alternate;
pub mod child;
pub mod cli;
pub mod engines;
pub mod suite;
mod turns;
