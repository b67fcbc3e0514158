//! `ouro stats`: the engine's counters, for people or as JSON.

use ourodb::Stats;
use serde_json::{Map, Value};

/// The counters as one JSON object, under the names that the text has.
pub(crate) fn to_json(stats: &Stats) -> Value {
    let counters = stats.fields().into_iter().map(|(name, count)| (name.to_owned(), count.into()));
    let format = ("format".to_owned(), Value::from(1));
    let ratios = stats.ratios().into_iter().map(|(name, ratio)| (name.to_owned(), ratio.into()));
    Value::Object(std::iter::once(format).chain(counters).chain(ratios).collect::<Map<_, _>>())
}
