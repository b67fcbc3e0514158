//! `ouro dump`: what is in one file, for people.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ourodb::{DumpDetail, Dumped, Options};

use crate::escape::{escape_into, escaped};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Longer keys and values are cut here, and followed by their length.
const SHOWN_BYTES: usize = 64;

/// Prints what is in a file. Damage is printed where it is; then the exit code
/// is that of damage.
pub(crate) fn dump(
    file: &Path,
    options: &Options,
    detail: DumpDetail,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let (mut faults, mut printed) = (0, Ok(()));
    let mut line = Vec::new();
    ourodb::dump(file, options, detail, |part| {
        faults += u64::from(matches!(part, Dumped::Damage(_)));
        line.clear();
        write_part(&mut line, part);
        printed = stdout.write_all(&line);
        match interrupt.requested() || printed.is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    printed.and_then(|()| stdout.flush()).map_err(Failure::Output)?;
    match faults {
        _ if interrupt.requested() => Err(interrupt.failure()),
        0 => Ok(()),
        faults => Err(Failure::Faults { faults, is_damaged: true }),
    }
}

/// Writes a part as one line.
fn write_part(line: &mut Vec<u8>, part: Dumped<'_>) {
    let indent = |line: &mut Vec<u8>, depth: usize| line.resize(line.len() + 2 * depth, b' ');
    match part {
        Dumped::Text { depth, text } => {
            indent(line, depth);
            escape_into(line, text.as_bytes());
        }
        Dumped::Key { depth, name, key } => {
            indent(line, depth);
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b": ");
            write_cut(line, key);
        }
        Dumped::Entry { depth, seq, kind, key, value } => {
            indent(line, depth);
            line.extend_from_slice(format!("{seq} {kind} ").as_bytes());
            write_cut(line, key);
            if let Some(value) = value {
                line.push(b'\t');
                write_cut(line, value);
            }
        }
        Dumped::Damage(fault) => {
            let file = escaped(fault.file().as_os_str().as_bytes());
            let reason = escaped(fault.reason().as_bytes());
            let text = format!("DAMAGE {file} offset {}: {reason}", fault.offset());
            line.extend_from_slice(text.as_bytes());
        }
        _ => {}
    }
    line.push(b'\n');
}

fn write_cut(line: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.get(..SHOWN_BYTES) {
        Some(shown) if bytes.len() > SHOWN_BYTES => {
            escape_into(line, shown);
            line.extend_from_slice(format!("... ({} bytes)", bytes.len()).as_bytes());
        }
        _ => escape_into(line, bytes),
    }
}
