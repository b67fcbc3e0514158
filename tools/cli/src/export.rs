//! Rows out to stdout: `ouro scan` and `ouro export`.

use std::io::{self, Write};

use ourodb::{Scan, Value};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::rows::{Format, write_line};

/// Lines are gathered up to this size, then written.
const WRITE_BYTES: usize = 64 << 10;

/// Prints the rows of a scan, or only their keys. What was read before a failure
/// is printed too.
pub(crate) fn print_rows(
    scan: Scan,
    format: Format,
    keys_only: bool,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    if keys_only {
        print(scan.keys().iter().map(|key| Ok((key?, None))), format, interrupt)
    } else {
        let rows = scan.iter().map(|row| row.map(|(key, value)| (key, Some(value))));
        print(rows, format, interrupt)
    }
}

fn print(
    rows: impl Iterator<Item = ourodb::Result<(Value, Option<Value>)>>,
    format: Format,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let mut lines = Vec::with_capacity(2 * WRITE_BYTES);
    let mut result = Ok(());
    for row in rows {
        match row {
            Ok((key, value)) => write_line(&mut lines, format, &key, value.as_deref()),
            Err(error) => result = Err(error.into()),
        }
        if interrupt.requested() {
            result = result.and(Err(interrupt.failure()));
        }
        if result.is_err() {
            break;
        }
        if lines.len() >= WRITE_BYTES {
            stdout.write_all(&lines).map_err(Failure::Output)?;
            lines.clear();
        }
    }
    stdout.write_all(&lines).and_then(|()| stdout.flush()).map_err(Failure::Output)?;
    result
}
