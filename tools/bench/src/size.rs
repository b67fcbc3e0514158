//! Sizes on the command line: `512MiB`, `64KiB`, or plain bytes.
//!
//! Relies on nothing else of this crate, so that other tools can share it.

/// The units a size may end with, and what each multiplies by.
const UNITS: [(&str, u64); 5] =
    [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a size in bytes: a whole number, then nothing, `B`, `KiB`, `MiB` or
/// `GiB`. A message that says what is accepted, otherwise.
///
/// ```
/// use ouro_bench::size::parse_size;
/// assert_eq!(parse_size("64KiB"), Ok(65_536));
/// assert_eq!(parse_size("400"), Ok(400));
/// assert!(parse_size("64KB").is_err());
/// ```
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, f)| *f);
    match (number.is_empty(), factor) {
        (false, Some(factor)) => number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .ok_or_else(|| format!("{text} does not fit into 64 bits")),
        _ => Err("a size is a whole number of bytes, or of KiB, MiB or GiB: 512MiB".to_owned()),
    }
}

/// Writes a size for people: the largest unit that leaves at least 1, with
/// three digits.
///
/// ```
/// use ouro_bench::size::format_size;
/// assert_eq!(format_size(256 << 20), "256 MiB");
/// assert_eq!(format_size(1500), "1.46 KiB");
/// ```
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) if bytes.is_multiple_of(factor) => {
            format!("{} {unit}", bytes / factor)
        }
        Some((unit, factor)) => {
            let value = bytes as f64 / factor as f64;
            let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
            format!("{value:.decimals$} {unit}")
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("7B"), Ok(7));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("3 GiB"), Ok(3 << 30));
        assert_eq!(parse_size(&u64::MAX.to_string()), Ok(u64::MAX));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "MiB", "-1", "1.5MiB", "1MB", "1mib", "1 MiB x", "+3"] {
            assert!(parse_size(text).unwrap_err().contains("512MiB"), "{text}");
        }
        for text in ["18446744073709551616", "18446744073709551615KiB"] {
            assert!(parse_size(text).unwrap_err().contains("64 bits"), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_three_digits() {
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_size(1023), "1023 B");
        assert_eq!(format_size(12_345), "12.1 KiB");
        assert_eq!(format_size(123_456_789), "118 MiB");
        assert_eq!(format_size(5 << 30), "5 GiB");
    }
}
