//! Rows as lines of text, in either format.

use ourodb::KEY_BYTES_MAX;

use crate::escape::{escape_into, unescape_into};
use crate::jsonl;

/// How rows are written as lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Key, tab, value, newline; escapes \t \n \r \0 \\ \xHH in both
    Tsv,
    /// {"key":…,"value":…}, with key_b64 or value_b64 where it is not UTF-8
    Jsonl,
}

/// A byte takes at most this much of a line: `\u001b` in JSON.
const TEXT_BYTES_PER_BYTE_MAX: usize = 6;

/// The longest line that can hold a row with a value of that many bytes, with
/// room for the names of a JSON object's fields and some white space.
pub(crate) const fn line_bytes_max(value_bytes_max: usize) -> usize {
    TEXT_BYTES_PER_BYTE_MAX * (KEY_BYTES_MAX + value_bytes_max) + 4096
}

/// One key and its value; reused from line to line.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Row {
    /// Reads `line`, which is without its newline, or says why it is bad: also
    /// for a value above `value_bytes_max`.
    pub(crate) fn parse(
        &mut self,
        format: Format,
        line: &[u8],
        value_bytes_max: usize,
    ) -> Result<(), String> {
        self.key.clear();
        self.value.clear();
        match format {
            Format::Tsv => self.parse_tsv(line)?,
            Format::Jsonl => jsonl::parse(line, &mut self.key, &mut self.value)?,
        }
        within_limit("key", self.key.len(), KEY_BYTES_MAX)?;
        within_limit("value", self.value.len(), value_bytes_max)
    }

    fn parse_tsv(&mut self, line: &[u8]) -> Result<(), String> {
        let tab = memchr::memchr(b'\t', line).ok_or("no tab between key and value")?;
        let (key, value) = (&line[..tab], &line[tab + 1..]);
        if memchr::memchr(b'\t', value).is_some() {
            return Err("a second tab (a tab within a value is written \\t)".to_owned());
        }
        unescape_into(&mut self.key, key).map_err(|bad| format!("in the key: {bad}"))?;
        unescape_into(&mut self.value, value).map_err(|bad| format!("in the value: {bad}"))
    }
}

fn within_limit(name: &str, bytes: usize, bytes_max: usize) -> Result<(), String> {
    if bytes > bytes_max {
        return Err(format!("a {name} of {bytes} bytes; the limit is {bytes_max}"));
    }
    Ok(())
}

/// Appends a row as a line to `out`; without a value, the key alone.
pub(crate) fn write_line(out: &mut Vec<u8>, format: Format, key: &[u8], value: Option<&[u8]>) {
    match format {
        Format::Tsv => {
            escape_into(out, key);
            if let Some(value) = value {
                out.push(b'\t');
                escape_into(out, value);
            }
            out.push(b'\n');
        }
        Format::Jsonl => jsonl::write(out, key, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE_MAX: usize = 100_000;

    fn bad(line: &[u8]) -> String {
        Row::default().parse(Format::Tsv, line, VALUE_MAX).unwrap_err()
    }

    #[test]
    fn tsv_rows() {
        let mut row = Row::default();
        row.parse(Format::Tsv, b"a\\tb\tc\\\\d\r", VALUE_MAX).unwrap();
        assert_eq!((&row.key[..], &row.value[..]), (&b"a\tb"[..], &b"c\\d\r"[..]));
        row.parse(Format::Tsv, b"\t", VALUE_MAX).unwrap();
        assert_eq!((&row.key[..], &row.value[..]), (&b""[..], &b""[..]));
        row.parse(Format::Tsv, b"\xff\t\xfe", VALUE_MAX).unwrap();
        assert_eq!((&row.key[..], &row.value[..]), (&b"\xff"[..], &b"\xfe"[..]));
    }

    #[test]
    fn bad_tsv_rows() {
        assert!(bad(b"").contains("no tab"));
        assert!(bad(b"key").contains("no tab"));
        assert!(bad(b"a\tb\tc").contains("second tab"));
        assert!(bad(b"a\\q\tb").contains("in the key: unknown escape"));
        assert!(bad(b"a\tb\\").contains("in the value: it ends within"));
    }

    #[test]
    fn limits() {
        let mut row = Row::default();
        let line = |key: usize, value: usize| [vec![b'k'; key], vec![b'v'; value]].join(&b'\t');
        row.parse(Format::Tsv, &line(KEY_BYTES_MAX, VALUE_MAX), VALUE_MAX).unwrap();
        assert!(bad(&line(KEY_BYTES_MAX + 1, 1)).contains("key of 65536 bytes"));
        assert!(bad(&line(1, VALUE_MAX + 1)).contains("the limit is"));
    }

    #[test]
    fn the_longest_rows_fit_a_line() {
        for byte in [0x1b, 0xff, b'\\', b'"'] {
            for format in [Format::Tsv, Format::Jsonl] {
                let mut line = Vec::new();
                let (key, value) = (vec![byte; KEY_BYTES_MAX], vec![byte; VALUE_MAX]);
                write_line(&mut line, format, &key, Some(&value));
                assert!(
                    line.len() <= line_bytes_max(VALUE_MAX),
                    "{format:?} {byte}: {}",
                    line.len()
                );
            }
        }
    }
}
