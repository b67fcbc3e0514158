//! The rows of `ouro import`: what can be read is written, and then read again.
#![no_main]
#![allow(dead_code, unreachable_pub, reason = "the parsers are part of a program")]

#[path = "../../cli/src/escape.rs"]
mod escape;
#[path = "../../cli/src/jsonl.rs"]
mod jsonl;
#[path = "../../cli/src/rows.rs"]
mod rows;

use rows::{Format, Row, write_line};

/// Longer values are refused.
const VALUE_BYTES_MAX: usize = 1000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[format], line)) = data.split_first_chunk::<1>() else { return };
    let format = if format & 1 == 0 { Format::Tsv } else { Format::Jsonl };
    let mut row = Row::default();
    if row.parse(format, line, VALUE_BYTES_MAX).is_err() {
        return;
    }
    assert!(row.value.len() <= VALUE_BYTES_MAX && row.key.len() <= line.len());
    let mut written = Vec::new();
    write_line(&mut written, format, &row.key, Some(&row.value));
    let (last, line) = written.split_last().expect("a newline");
    assert!(*last == b'\n' && !line.contains(&b'\n'), "one line");
    let mut again = Row::default();
    again.parse(format, line, VALUE_BYTES_MAX).expect("it was written");
    assert_eq!((again.key, again.value), (row.key, row.value));
});
