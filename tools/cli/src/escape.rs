//! The escapes of the TSV format, both ways.
//!
//! A key or value is any bytes; in text, tab, newline, carriage return, NUL,
//! backslash and the other ASCII control characters are escaped, and all other
//! bytes stand for themselves, also where they are not UTF-8. So a row is one
//! line whatever it holds, and a terminal is safe from what a database holds.
//! Reading takes `\t \n \r \0 \\ \xHH` and every unescaped byte as it is.

use std::fmt;

const HEX_DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Why a text is not a valid escaped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadEscape {
    /// The text ends within an escape.
    Cut,
    /// No escape begins with this byte.
    Unknown(u8),
    /// `\x` without two hexadecimal digits.
    NotHex,
}

impl fmt::Display for BadEscape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("it ends within an escape")?,
            Self::Unknown(byte) => write!(f, "unknown escape \\{}", byte.escape_ascii())?,
            Self::NotHex => f.write_str("\\x without two hexadecimal digits")?,
        }
        f.write_str(" (a backslash itself is written \\\\)")
    }
}

fn must_be_escaped(byte: u8) -> bool {
    byte.is_ascii_control() || byte == b'\\'
}

/// Appends `bytes` to `out`, escaped.
pub(crate) fn escape_into(out: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(at) = bytes.iter().position(|byte| must_be_escaped(*byte)) {
        out.extend_from_slice(&bytes[..at]);
        match bytes[at] {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\0' => out.extend_from_slice(b"\\0"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => {
                let digits =
                    [HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&digits);
            }
        }
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
}

/// Appends what the escaped `text` stands for to `out`.
pub(crate) fn unescape_into(out: &mut Vec<u8>, mut text: &[u8]) -> Result<(), BadEscape> {
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let (byte, length) = match text.get(at + 1).ok_or(BadEscape::Cut)? {
            b't' => (b'\t', 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b'0' => (b'\0', 2),
            b'\\' => (b'\\', 2),
            b'x' => (hex_byte(text.get(at + 2..at + 4).ok_or(BadEscape::Cut)?)?, 4),
            byte => return Err(BadEscape::Unknown(*byte)),
        };
        out.push(byte);
        text = &text[at + length..];
    }
    out.extend_from_slice(text);
    Ok(())
}

/// `bytes` escaped, for a message.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    escape_into(&mut out, bytes);
    String::from_utf8_lossy(&out).into_owned()
}

/// A text that may hold escapes, as it was given; only what would harm a
/// terminal is written as an escape.
pub(crate) fn printable(text: &[u8]) -> String {
    text.split_inclusive(|byte| *byte == b'\\')
        .map(|part| match part.strip_suffix(b"\\") {
            Some(part) => escaped(part) + "\\",
            None => escaped(part),
        })
        .collect()
}

fn hex_byte(digits: &[u8]) -> Result<u8, BadEscape> {
    let mut byte = 0;
    for digit in digits {
        let half = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(BadEscape::NotHex),
        };
        byte = byte << 4 | half;
    }
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escape(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape_into(&mut out, bytes);
        out
    }

    fn unescape(text: &[u8]) -> Result<Vec<u8>, BadEscape> {
        let mut out = Vec::new();
        unescape_into(&mut out, text).map(|()| out)
    }

    #[test]
    fn each_escape_both_ways() {
        assert_eq!(escape(b"a\tb\nc\rd\0e\\f\x1bg\x7f"), b"a\\tb\\nc\\rd\\0e\\\\f\\x1bg\\x7f");
        assert_eq!(unescape(b"\\t\\n\\r\\0\\\\\\x41\\xFf").unwrap(), b"\t\n\r\0\\A\xff");
        assert_eq!(escape("größe".as_bytes()), "größe".as_bytes());
        assert_eq!(escape(b"\xff\xfe"), b"\xff\xfe");
    }

    #[test]
    fn unescaped_control_bytes_are_data() {
        assert_eq!(unescape(b"a\r").unwrap(), b"a\r");
        assert_eq!(unescape(b"\0\x1b").unwrap(), b"\0\x1b");
    }

    #[test]
    fn a_text_is_shown_as_given() {
        assert_eq!(printable(b"t\\qb\\\\"), "t\\qb\\\\");
        assert_eq!(printable(b"\x1b\\t\t"), "\\x1b\\t\\t");
    }

    #[test]
    fn bad_escapes() {
        assert_eq!(unescape(b"a\\"), Err(BadEscape::Cut));
        assert_eq!(unescape(b"\\x4"), Err(BadEscape::Cut));
        assert_eq!(unescape(b"\\x4g"), Err(BadEscape::NotHex));
        assert_eq!(unescape(b"\\x+1"), Err(BadEscape::NotHex));
        assert_eq!(unescape(b"\\q"), Err(BadEscape::Unknown(b'q')));
        assert_eq!(unescape(b"\\T"), Err(BadEscape::Unknown(b'T')));
    }

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>) {
            let text = escape(&bytes);
            prop_assert!(!text.iter().any(u8::is_ascii_control));
            prop_assert_eq!(unescape(&text).unwrap(), bytes);
        }

        #[test]
        fn any_text_is_read_or_refused(text: Vec<u8>) {
            if let Ok(bytes) = unescape(&text) {
                prop_assert_eq!(unescape(&escape(&bytes)).unwrap(), bytes);
            }
        }
    }
}
