//! What an acknowledged write survives, as flags and results name it: `durable`,
//! `process-safe`, or `relaxed:100ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The shortest time that the engine takes at its word.
const WITHIN_MIN: Duration = Duration::from_millis(1);

/// What an acknowledged write survives. Written and read by its name:
///
/// ```
/// use std::time::Duration;
/// use ouro_bench::durability::Durability;
/// let durability: Durability = "relaxed:100ms".parse()?;
/// assert_eq!(durability, Durability::Relaxed { within: Duration::from_millis(100) });
/// assert_eq!(durability.to_string(), "relaxed:100ms");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power.
    Durable,
    /// The death of the process, not of the machine.
    ProcessSafe,
    /// Loss of power, this time after it was acknowledged.
    Relaxed {
        /// At least a millisecond.
        within: Duration,
    },
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Durable => f.write_str("durable"),
            Self::ProcessSafe => f.write_str("process-safe"),
            Self::Relaxed { within } => {
                // Without the spaces it is one word of a command line.
                let within = humantime::format_duration(*within).to_string().replace(' ', "");
                write!(f, "relaxed:{within}")
            }
        }
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "durable" => return Ok(Self::Durable),
            "process-safe" => return Ok(Self::ProcessSafe),
            _ => {}
        }
        let within = text.strip_prefix("relaxed:").map(humantime::parse_duration);
        match within {
            Some(Ok(within)) if within >= WITHIN_MIN => Ok(Self::Relaxed { within }),
            Some(_) => Err("relaxed takes a time of at least 1ms: relaxed:100ms".to_owned()),
            None => Err("it is durable, process-safe or relaxed:100ms".to_owned()),
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<Durability> for ourodb::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Durable => Self::Durable,
            Durability::ProcessSafe => Self::ProcessSafe,
            Durability::Relaxed { within } => Self::Relaxed { within },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        let within = Duration::from_millis(1500);
        for (text, durability, of_engine) in [
            ("durable", Durability::Durable, ourodb::Durability::Durable),
            ("process-safe", Durability::ProcessSafe, ourodb::Durability::ProcessSafe),
            (
                "relaxed:1s500ms",
                Durability::Relaxed { within },
                ourodb::Durability::Relaxed { within },
            ),
        ] {
            assert_eq!(text.parse(), Ok(durability));
            assert_eq!(durability.to_string(), text);
            assert_eq!(serde_json::to_value(durability).unwrap(), text);
            assert_eq!(ourodb::Durability::from(durability), of_engine);
        }
    }

    #[test]
    fn what_is_no_durability_is_refused() {
        for text in ["", "never", "Durable", "relaxed", "relaxed:", "relaxed:soon", "relaxed:999us"]
        {
            let error = text.parse::<Durability>().unwrap_err();
            assert!(error.contains("relaxed:100ms"), "{text}: {error}");
        }
    }
}
