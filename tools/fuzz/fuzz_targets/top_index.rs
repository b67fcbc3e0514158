//! See `ourodb::fuzz`.
#![no_main]

ouro_fuzz::target!("top_index");
