//! The oracle must see every kind of damage, and nothing else.

use super::*;
use crate::script::Change;

const CLIENTS: u8 = 2;

fn script() -> Script {
    Script::new(1, 0, vec![vec![0; KEYS_PER_CLIENT]; usize::from(CLIENTS)])
}

/// An oracle after 200 acknowledged operations of each client, and the rows it
/// expects.
fn worked() -> (Oracle, Rows) {
    let (mut oracle, script) = (Oracle::new(CLIENTS), script());
    for number in 0..200 {
        for client in 0..CLIENTS {
            for step in [Step::Start, Step::Done] {
                oracle.take(Record { step, client, number }, &script).unwrap();
            }
        }
    }
    let rows = rows(&oracle);
    (oracle, rows)
}

fn rows(oracle: &Oracle) -> Rows {
    let mut rows = Rows::new();
    for (number, client) in oracle.clients.iter().enumerate() {
        for (key, value) in client.values.iter().enumerate() {
            rows.extend(value.iter().map(|value| (key_bytes(number, key), value.clone())));
        }
    }
    rows.sort();
    rows
}

/// Rows as the operation in flight of client 1 leaves them, or part of it.
fn rows_after(oracle: &Oracle, changes: &[Change]) -> Rows {
    let mut rows: BTreeMap<_, _> = rows(oracle).into_iter().collect();
    for change in changes {
        match &change.value {
            Some(value) => rows.insert(key_bytes(1, change.key), value.clone()),
            None => rows.remove(&key_bytes(1, change.key)),
        };
    }
    rows.into_iter().collect()
}

fn batch() -> Vec<Change> {
    let put = |key| Change { key, value: Some(format!("new {key}").into_bytes()) };
    vec![put(3), put(50), put(7)]
}

fn with_batch_in_flight() -> (Oracle, Vec<Change>) {
    let (mut oracle, _) = worked();
    oracle.clients[1].in_flight = Some(Operation::Batch(batch()));
    (oracle, batch())
}

#[test]
fn the_acknowledged_state_passes() {
    let (mut oracle, rows) = worked();
    assert!(!rows.is_empty() && !oracle.has_writes_in_flight());
    assert_eq!(oracle.check(&rows), Ok(InFlight::default()));
}

#[test]
fn a_lost_a_changed_and_a_stray_row_are_seen() {
    let (mut oracle, rows) = worked();
    for at in [0, rows.len() / 2, rows.len() - 1] {
        let mut lost = rows.clone();
        lost.remove(at);
        assert!(oracle.check(&lost).unwrap_err().contains("found no value"));
        let mut changed = rows.clone();
        changed[at].1.push(b'!');
        assert!(oracle.check(&changed).unwrap_err().contains("acknowledged was a value"));
    }
    let mut stray = rows.clone();
    stray.push((b"~stray".to_vec(), vec![]));
    assert!(oracle.check(&stray).unwrap_err().contains("~stray was never written"));
    let mut swapped = rows.clone();
    swapped.swap(1, 2);
    assert!(oracle.check(&swapped).unwrap_err().contains("out of order"));
    assert_eq!(oracle.check(&rows), Ok(InFlight::default()));
}

#[test]
fn what_was_in_flight_is_there_wholly_or_not_at_all() {
    let (mut oracle, changes) = with_batch_in_flight();
    assert!(oracle.has_writes_in_flight());
    let all = rows_after(&oracle, &changes);
    assert_eq!(oracle.check(&all).unwrap().written, 1);
    assert_eq!(oracle.check(&all), Ok(InFlight::default()));

    let (mut oracle, changes) = with_batch_in_flight();
    let (none, all) = (rows(&oracle), rows_after(&oracle, &changes));
    assert_eq!(oracle.check(&none).unwrap().not_written, 1);
    assert!(oracle.check(&all).is_err(), "what was lost came back later");

    for part in [&batch()[..1], &batch()[..2], &batch()[1..]] {
        let (mut oracle, _) = with_batch_in_flight();
        let half = rows_after(&oracle, part);
        assert!(oracle.check(&half).unwrap_err().contains("is there in part"));
    }
}

#[test]
fn an_operation_in_flight_excuses_no_other_key() {
    let (mut oracle, changes) = with_batch_in_flight();
    let mut all = rows_after(&oracle, &changes);
    let changed = |key: &Vec<u8>| changes.iter().any(|change| key_bytes(1, change.key) == *key);
    let other = all.iter().rposition(|(key, _)| !changed(key)).unwrap();
    all[other].1.push(b'!');
    let error = oracle.check(&all).unwrap_err();
    assert!(error.contains("acknowledged was a value") && !error.contains("in part"), "{error}");
}

#[test]
fn records_out_of_order_are_refused() {
    let mut oracle = Oracle::new(CLIENTS);
    let mut take = |step, client, number| oracle.take(Record { step, client, number }, &script());
    assert!(take(Step::Done, 0, 0).is_err());
    assert!(take(Step::Start, 0, 1).is_err());
    assert!(take(Step::Start, CLIENTS, 0).is_err());
    assert_eq!(take(Step::Start, 0, 0), Ok(false));
    assert!(take(Step::Start, 0, 0).is_err());
}
