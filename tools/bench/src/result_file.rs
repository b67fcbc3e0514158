//! Result files of this tool, when they are read again.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;
use crate::report::RESULT_FORMAT;

/// Reads the result of one of these commands, which `made_by` has in words.
pub(crate) fn read<T: DeserializeOwned>(
    path: &Path,
    commands: &[&str],
    made_by: &str,
) -> Result<T, Failure> {
    let shown = path.display();
    let text = fs::read(path).map_err(Failure::os(format!("cannot read {shown}")))?;
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::Usage(format!("{shown} is not a result of {made_by}: {why}; make one with --json"))
    };
    let value: Value = serde_json::from_slice(&text).map_err(|error| unusable(&error))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(RESULT_FORMAT) => {}
        Some(format) => {
            return Err(Failure::Unsupported(format!(
                "{shown} is of format {format}, and this version of ouro-bench reads format \
                 {RESULT_FORMAT}: measure again, or use the version that wrote it"
            )));
        }
        None => return Err(unusable(&"it has no number as its format")),
    }
    match value.get("command").and_then(Value::as_str) {
        Some(command) if commands.contains(&command) => {}
        command => {
            let command = command.unwrap_or("no command");
            return Err(unusable(&format_args!("it is of {command}")));
        }
    }
    serde_json::from_value(value).map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_or_it_is_said_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read::<Value>(&path, &["load", "run"], "`load` or `run`")
        };
        assert!(read(r#"{"format": 1, "command": "run"}"#).is_ok());
        for (text, code, says) in [
            ("x", 2, "not a result of `load` or `run`: expected value"),
            ("{}", 2, "it has no number as its format"),
            (r#"{"format": 1}"#, 2, "it is of no command"),
            (r#"{"format": 1, "command": "device"}"#, 2, "it is of device"),
            (r#"{"format": 2, "command": "run"}"#, 6, "is of format 2"),
        ] {
            let failure = read(text).unwrap_err();
            assert_eq!(failure.exit_code(), code, "{text}");
            assert!(failure.to_string().contains(says), "{failure}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(super::read::<Value>(&path, &["run"], "it").unwrap_err().exit_code(), 7);
    }
}
