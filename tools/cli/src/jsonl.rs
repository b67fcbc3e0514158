//! JSON lines: one object a row, `{"key":…,"value":…}`, where what is not
//! UTF-8 is named `key_b64` or `value_b64` and written in base64 (RFC 4648,
//! with padding).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<Cow<'a, str>>,
}

/// Reads one row into `key` and `value`, or says why the line is bad.
pub(crate) fn parse(line: &[u8], key: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<(), String> {
    let object: Object<'_> = serde_json::from_slice(line)
        .map_err(|error| format!("not a row as a JSON object: {}", without_line(&error)))?;
    take("key", object.key, object.key_b64, key)?;
    take("value", object.value, object.value_b64, value)
}

/// What is wrong, and in which column: the line is always the first one to the
/// parser, and another one to the reader of the message.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())) {
        Some(what) if error.column() > 0 => format!("{what} at column {}", error.column()),
        Some(what) => what.to_owned(),
        None => text,
    }
}

fn take(
    name: &str,
    text: Option<Cow<'_, str>>,
    base64: Option<Cow<'_, str>>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (text, base64) {
        (Some(text), None) => out.extend_from_slice(text.as_bytes()),
        (None, Some(base64)) => BASE64
            .decode_vec(base64.as_bytes(), out)
            .map_err(|error| format!("{name}_b64 is not base64: {error}"))?,
        (None, None) => return Err(format!("neither {name} nor {name}_b64")),
        (Some(_), Some(_)) => return Err(format!("both {name} and {name}_b64")),
    }
    Ok(())
}

/// Appends one row and a newline to `out`; without a value, the key alone.
pub(crate) fn write(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let (key, key_b64) = text_or_base64(Some(key));
    let (value, value_b64) = text_or_base64(value);
    let object = Object { key, key_b64, value, value_b64 };
    serde_json::to_writer(&mut *out, &object).expect("strings can be written to a vector");
    out.push(b'\n');
}

fn text_or_base64(bytes: Option<&[u8]>) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text.into()), None),
        Some((bytes, Err(_))) => (None, Some(BASE64.encode(bytes).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        parse(line, &mut key, &mut value).map(|()| (key, value))
    }

    fn line(key: &[u8], value: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        write(&mut out, key, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_and_base64() {
        assert_eq!(line(b"k\n", Some(b"\"v\"")), "{\"key\":\"k\\n\",\"value\":\"\\\"v\\\"\"}\n");
        assert_eq!(
            line(b"\xff", Some(b"\xfe\0")),
            "{\"key_b64\":\"/w==\",\"value_b64\":\"/gA=\"}\n"
        );
        assert_eq!(line(b"k", None), "{\"key\":\"k\"}\n");
        assert_eq!(
            row(b" {\"value_b64\": \"/gA=\", \"key\": \"\\u00e4\\t\"} \r").unwrap(),
            ("ä\t".as_bytes().to_vec(), b"\xfe\0".to_vec())
        );
    }

    #[test]
    fn bad_lines() {
        for (line, reason) in [
            (&b""[..], "EOF"),
            (b"[1]", "not a row"),
            (b"{\"key\":\"k\"}", "neither value nor value_b64"),
            (b"{\"value\":\"v\"}", "neither key nor key_b64"),
            (b"{\"key\":\"k\",\"key_b64\":\"aw==\",\"value\":\"v\"}", "both key"),
            (b"{\"key\":\"k\",\"value\":\"v\",\"extra\":1}", "unknown field"),
            (b"{\"key\":\"k\",\"key\":\"k\",\"value\":\"v\"}", "duplicate field"),
            (b"{\"key\":\"k\",\"value\":1}", "invalid type"),
            (b"{\"key\":\"k\",\"value_b64\":\"a\"}", "not base64"),
            (b"{\"key\":\"\xff\",\"value\":\"v\"}", "unicode"),
            (b"{\"key\":\"k\",\"value\":\"v\"} x", "trailing"),
        ] {
            let error = row(line).unwrap_err();
            assert!(error.contains(reason), "{}: {error}", line.escape_ascii());
            assert!(!error.contains(" line "), "{error}");
        }
        assert!(row(b"nonsense").unwrap_err().ends_with(" at column 2"));
    }

    proptest! {
        #[test]
        fn round_trip(key: Vec<u8>, value: Vec<u8>, text: String) {
            for key in [&key[..], text.as_bytes()] {
                let line = line(key, Some(&value));
                prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
                prop_assert_eq!(row(line.as_bytes()).unwrap(), (key.to_vec(), value.clone()));
            }
        }
    }
}
