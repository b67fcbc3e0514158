//! `ouro-bench`: the load generator of OuroDB.
//!
//! It loads a database with known data, runs a workload on it from several
//! clients, checks every value that it reads, and reports latencies as
//! percentiles of HDR histograms.
//!
//! From the bottom up:
//!
//! * What is written and read: [`permutation`], [`keys`], [`sizes`], [`values`],
//!   [`shape`].
//! * Which operations, on which records: [`workload`], [`distribution`],
//!   [`inserts`]; or as they were done: [`trace`].
//! * What is measured: [`target`], of which OuroDB ([`engine`]) is one.
//! * One client: [`script`] says which operations, and checks what came back;
//!   [`schedule`] says when they are due, [`pacing`] sends them, [`recorder`] has how
//!   long they took.
//! * A client that is a thread: [`client`]. One that has several operations in
//!   flight: [`asynchronous`] over [`pipeline`], [`in_flight`] and [`alarm`].
//! * All clients: [`runner`] for threads, [`crowd`] for all others.
//! * What a phase is like second by second: [`intervals`] for latencies, [`timeline`] with
//!   what engine and process do meanwhile, [`steady`] for whether that goes on as it is.
//! * The result: [`report`] (as JSON), [`table`] (in a terminal), [`hlog`] (for tools of
//!   HdrHistogram), [`page`] (in a browser), [`output`], [`machine`]; `result_file` reads it
//!   again.
//! * The commands: [`cli`], [`clients`], [`directory`], [`commands`], [`session`], [`read_first`],
//!   [`find_max`], [`quick`],
//!   [`compare`], [`soak`], [`failure`], [`program`].
//! * What the disk can do without the engine: [`device`]; and how much of that the engine does:
//!   [`device_share`].
//! * For tools that are built on this one: [`cgroup`], which limits memory, and [`mounts`].
//!
//! A library so that tests and examples can reach the parts, `tools/compare` can
//! drive other engines with them, and `tools/crash` makes its data, reads sizes and limits
//! memory as they do; other programs have no use for it.

pub mod alarm;
pub mod asynchronous;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod clients;
pub mod commands;
pub mod compare;
pub mod crowd;
pub mod device;
pub mod device_share;
pub mod directory;
pub mod distribution;
pub mod engine;
pub mod failure;
pub mod find_max;
pub mod hlog;
pub mod in_flight;
pub mod inserts;
pub mod intervals;
pub mod keys;
pub mod machine;
pub mod mounts;
pub mod output;
pub mod overwriting;
pub mod pacing;
pub mod page;
pub mod permutation;
pub mod pipeline;
pub mod program;
pub mod quick;
pub mod read_first;
pub mod recorder;
pub mod report;
mod result_file;
pub mod runner;
pub mod schedule;
pub mod script;
pub mod session;
pub mod shape;
pub mod size;
pub mod sizes;
pub mod soak;
pub mod steady;
pub mod table;
pub mod target;
pub mod timeline;
pub mod trace;
pub mod values;
pub mod workload;
