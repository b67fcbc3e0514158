//! See `ourodb::fuzz`.
#![no_main]

ouro_fuzz::target!("record");
