//! Reads are judged by what they may find, and by nothing else.

use super::*;
use crate::durability::Mode;
use crate::script::{Operation, key_bytes};

const CLIENT: usize = 1;
const STREAMS: usize = 3;

fn script() -> Script {
    let streams = vec![(0..KEYS_PER_CLIENT).map(|key| (key % STREAMS) as u16).collect(); 2];
    Script::new(4, 7, Mode::Durable, streams)
}

/// What a client's keys hold after so many operations.
fn state(done: u64) -> State {
    let history = History::new(vec![None; KEYS_PER_CLIENT]);
    for number in 0..done {
        let operation = script().operation(CLIENT, number);
        history.acknowledge(operation.parts(&script().streams()[CLIENT]));
    }
    history.state(ALL)
}

fn judge(found: &Values, keys: Range<usize>, keys_only: bool, done: u64, begun: u64) -> bool {
    let values = found[keys.clone()].iter().map(Option::as_deref).collect();
    let found = Found { client: CLIENT, keys, values, keys_only };
    found.judge(&script(), state(done), begun).is_ok()
}

const ALL: Range<usize> = 0..KEYS_PER_CLIENT;

/// The first operation from `number` on that `is` so.
fn next(number: u64, is: impl Fn(&Operation) -> bool) -> u64 {
    (number..).find(|number| is(&script().operation(CLIENT, *number))).unwrap()
}

#[test]
fn a_read_finds_nothing_older_and_nothing_newer() {
    let number = next(300, |operation| {
        matches!(operation, Operation::Single(change)
            if change.value.is_some() && state(300).values[change.key].is_some())
    });
    let (old, new) = (state(number).values, state(number + 1).values);
    assert!(judge(&old, ALL, false, number, number));
    assert!(judge(&old, ALL, false, number, number + 1));
    assert!(judge(&new, ALL, false, number, number + 1));
    assert!(judge(&new, ALL, false, number, number + 3));
    assert!(!judge(&old, ALL, false, number + 1, number + 1));
    assert!(!judge(&new, ALL, false, number, number));
    // Of keys alone one cannot tell.
    assert!(judge(&old, ALL, true, number + 1, number + 1));
}

#[test]
fn a_missing_and_a_changed_value_are_seen_and_others_not_looked_at() {
    let mut found = state(300).values;
    let key = found.iter().position(Option::is_some).unwrap();
    let value = found[key].take();
    for keys_only in [false, true] {
        assert!(!judge(&found, ALL, keys_only, 300, 300));
        assert!(judge(&found, key + 1..KEYS_PER_CLIENT, keys_only, 300, 300));
    }
    found[key] = value.map(|mut value| {
        value.push(b'!');
        value
    });
    assert!(!judge(&found, ALL, false, 300, 300));
    assert!(judge(&found, ALL, true, 300, 300));
}

#[test]
fn operations_are_seen_in_order() {
    let (before, after) = (state(300).values, state(310).values);
    let changed: Vec<usize> = ALL.filter(|key| before[*key] != after[*key]).collect();
    assert!(changed.len() > 2);
    assert!(judge(&after, ALL, false, 300, 310));
    // The last one without one of those before it.
    let mut found = after.clone();
    let last = script().operation(CLIENT, 309).parts(&script().streams()[CLIENT]);
    let last_keys: Vec<usize> = last[0].changes.iter().map(|change| change.key).collect();
    let other = *changed.iter().find(|key| !last_keys.contains(key)).unwrap();
    found[other].clone_from(&before[other]);
    assert!(!judge(&found, ALL, false, 300, 310));
}

#[test]
fn a_batch_is_seen_wholly_or_not_at_all() {
    let number = next(300, |operation| matches!(operation, Operation::Batch(_)));
    let (before, after) = (state(number).values, state(number + 1).values);
    let changed: Vec<usize> = ALL.filter(|key| before[*key] != after[*key]).collect();
    assert!(changed.len() > 1);
    let mut found = before.clone();
    found[changed[0]].clone_from(&after[changed[0]]);
    assert!(!judge(&found, ALL, false, number, number + 1));
    assert!(judge(&after, ALL, false, number, number + 1));
}

#[test]
fn a_range_delete_is_seen_stream_by_stream() {
    let of_stream = |key: &usize| key.is_multiple_of(STREAMS);
    let number = next(
        300,
        |operation| matches!(operation, Operation::DeleteRange(keys) if keys.clone().count() > 20),
    );
    let (before, after) = (state(number).values, state(number + 1).values);
    let mut found = before.clone();
    for key in ALL.filter(of_stream) {
        found[key].clone_from(&after[key]);
    }
    assert_ne!(found, before);
    assert_ne!(found, after);
    assert!(judge(&found, ALL, false, number, number + 1));
    assert!(!judge(&found, ALL, false, number + 1, number + 1));
    let changed = ALL.filter(of_stream).find(|key| before[*key] != after[*key]).unwrap();
    found[changed].clone_from(&before[changed]);
    assert!(!judge(&found, ALL, false, number, number + 1), "half of a stream's keys");
}

#[test]
fn rows_are_in_order_and_of_keys_that_there_are() {
    let keys: Vec<Vec<u8>> = (0..4).map(|key| key_bytes(1, key)).collect();
    let rows = |indexes: &[usize]| -> Vec<(Vec<u8>, Vec<u8>)> {
        indexes.iter().map(|index| (keys[*index].clone(), Vec::new())).collect()
    };
    assert_eq!(indexes(&keys, &rows(&[0, 2, 3]), false), Ok(vec![0, 2, 3]));
    assert_eq!(indexes(&keys, &rows(&[3, 1]), true), Ok(vec![3, 1]));
    for (order, reverse) in [([0, 2, 1], false), ([0, 1, 1], false), ([0, 1, 2], true)] {
        assert!(indexes(&keys, &rows(&order), reverse).unwrap_err().contains("out of order"));
    }
    let stray = [(b"stray".to_vec(), Vec::new())];
    assert!(indexes(&keys, &stray, false).unwrap_err().contains("never written"));
    assert_eq!(of_client(1, &(KEYS_PER_CLIENT + 3..500)), 3..KEYS_PER_CLIENT);
    assert!(of_client(0, &(KEYS_PER_CLIENT..500)).is_empty());
}
