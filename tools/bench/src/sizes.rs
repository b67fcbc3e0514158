//! How long values are: all alike, or each as it is drawn.

use std::fmt;
use std::str::FromStr;

use crate::size::parse_size;

/// Lengths of values that differ leave room for what tells them apart.
pub const DRAWN_BYTES_MIN: usize = 16;
/// What is longer than so many times the mean is drawn as this.
const EXPONENTIAL_MAX: usize = 20;
/// Lengths that may be mixed.
const PARTS_MAX: usize = 4;

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// `400`: all of them.
    Fixed(usize),
    /// `100..4000`: any length between these alike, both included.
    Uniform {
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// `exponential:400`: exponentially distributed with this mean, 16 bytes at least and 20
    /// times the mean at most.
    Exponential {
        /// The mean, without those bounds.
        mean: usize,
    },
    /// `90%:400,10%:100KiB`: some of one length, and some of others.
    Mixed([(u8, usize); PARTS_MAX]),
}

impl Sizes {
    /// The length that belongs to a hash.
    #[must_use]
    pub fn draw(&self, hash: u64) -> usize {
        match *self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform { min, max } => {
                let count = (max - min + 1) as u128;
                min + ((u128::from(hash) * count) >> 64) as usize
            }
            Self::Exponential { mean } => {
                // Above 0, and at most 1.
                let point = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                let bytes = (-point.ln() * mean as f64) as usize;
                bytes.clamp(DRAWN_BYTES_MIN, self.max())
            }
            Self::Mixed(parts) => {
                let mut point = ((u128::from(hash) * 100) >> 64) as u8;
                for (percent, bytes) in parts {
                    if point < percent {
                        return bytes;
                    }
                    point -= percent;
                }
                unreachable!("the parts are 100 % together")
            }
        }
    }

    /// The shortest.
    #[must_use]
    pub fn min(&self) -> usize {
        match *self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform { min, .. } => min,
            Self::Exponential { .. } => DRAWN_BYTES_MIN,
            Self::Mixed(_) => self.parts().map(|(_, bytes)| bytes).min().unwrap_or(0),
        }
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> usize {
        match *self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform { max, .. } => max,
            Self::Exponential { mean } => mean.saturating_mul(EXPONENTIAL_MAX),
            Self::Mixed(_) => self.parts().map(|(_, bytes)| bytes).max().unwrap_or(0),
        }
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> usize {
        match *self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform { min, max } => min.midpoint(max),
            Self::Exponential { mean } => mean,
            Self::Mixed(_) => {
                let sum = |(percent, bytes): (u8, usize)| usize::from(percent) * bytes;
                self.parts().map(sum).sum::<usize>() / 100
            }
        }
    }

    fn parts(&self) -> impl Iterator<Item = (u8, usize)> {
        let parts = if let Self::Mixed(parts) = self { *parts } else { Default::default() };
        parts.into_iter().filter(|(percent, _)| *percent > 0)
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| -> Result<usize, String> {
            let bytes = parse_size(text.trim()).map_err(|error| {
                format!("{error}; or lengths that differ: 100..4000, exponential:400, 90%:400,10%:100KiB")
            })?;
            usize::try_from(bytes).map_err(|error| error.to_string())
        };
        let sizes = if let Some((min, max)) = text.split_once("..") {
            Self::Uniform { min: size(min)?, max: size(max)? }
        } else if let Some(mean) = text.strip_prefix("exponential:") {
            Self::Exponential { mean: size(mean)? }
        } else if text.contains('%') {
            let mut parts = [(0, 0); PARTS_MAX];
            let mut given = text.split(',');
            for part in &mut parts {
                let Some(one) = given.next() else { break };
                let (percent, bytes) = one.split_once("%:").ok_or("a part is 90%:400, say")?;
                let percent = percent.trim().parse().ok().filter(|one| (1..=100).contains(one));
                *part = (percent.ok_or("a part has 1 to 100 %")?, size(bytes)?);
            }
            let sum: u32 = parts.iter().map(|(percent, _)| u32::from(*percent)).sum();
            if sum != 100 || given.next().is_some() {
                return Err(format!("at most {PARTS_MAX} parts, 100 % together, are needed"));
            }
            Self::Mixed(parts)
        } else {
            return size(text).map(Self::Fixed);
        };
        match sizes.min() < DRAWN_BYTES_MIN || sizes.max() < sizes.min() {
            true => Err(format!(
                "values of lengths that differ have {DRAWN_BYTES_MIN} bytes at least, and the \
                 longest is not shorter than the shortest"
            )),
            false => Ok(sizes),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(f, "{bytes}"),
            Self::Uniform { min, max } => write!(f, "{min}..{max}"),
            Self::Exponential { mean } => write!(f, "exponential:{mean}"),
            Self::Mixed(_) => {
                let parts = self.parts().map(|(percent, bytes)| format!("{percent}%:{bytes}"));
                f.write_str(&parts.collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutation::mix64;

    #[test]
    fn lengths_are_read_and_written() {
        for text in ["400", "100..4000", "exponential:400", "90%:400,10%:102400", "100%:16"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        assert_eq!("1KiB..64KiB".parse(), Ok(Sizes::Uniform { min: 1024, max: 65_536 }));
        for text in [
            "",
            "400..",
            "15..400",
            "400..100",
            "exponential:",
            "exponential:0",
            "90%:400",
            "50%:400,60%:500",
            "90%:400,10%:8",
            "0%:400,100%:16",
            "x%:400",
            "25%:16,25%:16,25%:16,15%:16,10%:16",
        ] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_distributed_as_they_say() {
        for (text, mean, sigma) in [
            ("100..299", 199.5, 57.7),
            ("exponential:1000", 1000.0, 1000.0),
            ("75%:100,25%:900", 300.0, 346.4),
            ("400", 400.0, 0.0),
        ] {
            let sizes: Sizes = text.parse().unwrap();
            let count = 100_000;
            let drawn = (0..count).map(|i| sizes.draw(mix64(i)));
            let sum: usize = drawn
                .inspect(|bytes| assert!((sizes.min()..=sizes.max()).contains(bytes), "{text}"))
                .sum();
            let found = sum as f64 / count as f64;
            let allowed = 4.0 * sigma / (count as f64).sqrt() + 1.0;
            assert!((found - mean).abs() <= allowed, "{text}: {found}");
            assert!((sizes.mean() as f64 - mean).abs() <= 1.0, "{text}");
        }
        let uniform = Sizes::Uniform { min: 16, max: 17 };
        assert_eq!((uniform.draw(0), uniform.draw(u64::MAX)), (16, 17));
    }
}
