//! The shape of a loaded database: what `load` writes beside it as
//! `ouro-bench.json` and `run` reads, and the keys and values that follow from
//! it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ourodb::Compression;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::keys::{self, KEY_BYTES_MIN, KeySizes, KeySpace};
use crate::sizes::Sizes;
use crate::values::{COMPRESSIBLE, ValueSource};

/// The format of `ouro-bench.json` that this version reads and writes.
pub const FORMAT: u32 = 1;

/// What is in the database.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Records 0 to this are there. 0 while a load has not ended.
    pub records: u64,
    /// The length of every key, or of the shortest.
    pub key_bytes: usize,
    /// The length of the longest, if they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_bytes_max: Option<usize>,
    /// The length of every value, or what they have on average.
    pub value_bytes: usize,
    /// How long they are, if not all alike.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_text")]
    pub value_sizes: Option<Sizes>,
    /// The share of each value that can be compressed.
    #[serde(default = "half")]
    pub compressible: f64,
    /// Chooses the order of keys and the bytes of values.
    pub seed: u64,
    /// A trace was replayed: there may be any keys, and values of any length.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_traced: bool,
    /// Some of the records may have been deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_gaps: bool,
    /// How its tables are compressed.
    #[serde(default, serialize_with = "by_name", deserialize_with = "from_name")]
    pub compression: Compression,
}

/// Writes what has a name as that.
pub fn by_name<T: std::fmt::Display, S: Serializer>(
    named: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(named)
}

fn half() -> f64 {
    COMPRESSIBLE
}

/// Lengths of values, as on the command line.
mod as_text {
    use super::{Deserialize, Deserializer, Serializer, Sizes};
    use serde::de::Error;

    pub(super) fn serialize<S: Serializer>(
        sizes: &Option<Sizes>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match sizes {
            Some(sizes) => serializer.collect_str(sizes),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Sizes>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

fn from_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Compression, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

impl Shape {
    /// Checks what a user asked for; without compression. The message says what
    /// would do.
    pub fn new(records: u64, keys: KeySizes, values: Sizes, seed: u64) -> Result<Self, String> {
        let key_bytes = keys.min;
        let key_bytes_max = ourodb::KEY_BYTES_MAX;
        if !(KEY_BYTES_MIN..=key_bytes_max).contains(&key_bytes) || keys.max > key_bytes_max {
            return Err(format!("--key-bytes must be {KEY_BYTES_MIN} to {key_bytes_max}"));
        }
        if values.max() > ourodb::VALUE_BYTES_MAX {
            return Err(format!("--value-bytes must be at most {}", ourodb::VALUE_BYTES_MAX));
        }
        let capacity = keys::capacity(key_bytes);
        if !(1..=capacity).contains(&records) {
            return Err(format!(
                "--records must be 1 to {capacity} with keys of {key_bytes} bytes; longer keys \
                 have room for more"
            ));
        }
        let compression = Compression::None;
        Ok(Self {
            format: FORMAT,
            records,
            key_bytes,
            key_bytes_max: Some(keys.max).filter(|max| *max > keys.min),
            value_bytes: values.mean(),
            value_sizes: Some(values).filter(|values| !matches!(values, Sizes::Fixed(_))),
            compressible: COMPRESSIBLE,
            seed,
            is_traced: false,
            has_gaps: false,
            compression,
        })
    }

    /// How long keys are.
    #[must_use]
    pub fn keys(&self) -> KeySizes {
        let max = self.key_bytes_max.unwrap_or(self.key_bytes);
        KeySizes { min: self.key_bytes, max: max.max(self.key_bytes) }
    }

    /// How long values are.
    #[must_use]
    pub fn values(&self) -> Sizes {
        self.value_sizes.unwrap_or(Sizes::Fixed(self.value_bytes))
    }

    /// Bytes of one key and its value, on average.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        let keys = self.keys();
        (keys.min.midpoint(keys.max) + self.value_bytes) as u64
    }
}

/// The keys and values of a database of some shape.
pub struct Data {
    /// The shape they follow from.
    pub shape: Shape,
    /// Its keys.
    pub keys: KeySpace,
    /// Its values.
    pub values: ValueSource,
}

impl Data {
    /// Keys and values for `shape`, which [`Shape::new`] accepts.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            keys: KeySpace::new(shape.keys(), shape.seed),
            values: ValueSource::with(shape.values(), shape.compressible, shape.seed),
        }
    }
}

impl Data {
    /// The highest keys of what was loaded, in their order, so many if there are as many.
    #[must_use]
    pub fn last_keys(&self, count: usize) -> Vec<Vec<u8>> {
        let mut last = BinaryHeap::new();
        let mut key = Vec::new();
        for record in 0..self.shape.records {
            self.keys.write(record, &mut key);
            if last.len() < count {
                last.push(Reverse(key.clone()));
            } else if let Some(mut least) = last.peek_mut()
                && least.0 < key
            {
                least.0.clone_from(&key);
            }
        }
        let mut last: Vec<Vec<u8>> = last.into_iter().map(|Reverse(key)| key).collect();
        last.sort_unstable();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_keys_are_the_highest_of_all() {
        let shape = Shape::new(300, KeySizes { min: 20, max: 40 }, Sizes::Fixed(0), 9).unwrap();
        let data = Data::new(shape);
        let mut all = vec![Vec::new(); 300];
        all.iter_mut().zip(0..).for_each(|(key, record)| data.keys.write(record, key));
        all.sort_unstable();
        for count in [0, 1, 100, 300, 301] {
            assert_eq!(data.last_keys(count), all[300_usize.saturating_sub(count)..]);
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(Shape::new(10_000, KeySizes::fixed(8), Sizes::Fixed(0), 1).is_ok());
        assert!(Shape::new(1, KeySizes::fixed(65_535), Sizes::Fixed(65_536), 1).is_ok());
        let refused = [
            (Shape::new(10_001, KeySizes::fixed(8), Sizes::Fixed(400), 1), "1 to 10000"),
            (Shape::new(0, KeySizes::fixed(24), Sizes::Fixed(400), 1), "--records"),
            (Shape::new(1, KeySizes::fixed(7), Sizes::Fixed(400), 1), "--key-bytes"),
            (Shape::new(1, KeySizes::fixed(65_536), Sizes::Fixed(400), 1), "--key-bytes"),
            (Shape::new(1, KeySizes::fixed(24), Sizes::Fixed(1 << 40), 1), "--value-bytes"),
        ];
        for (shape, message) in refused {
            let found = shape.unwrap_err();
            assert!(found.contains(message), "{found}");
        }
    }
}
