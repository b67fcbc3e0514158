//! The oracle must see every kind of damage, and nothing else.

use super::*;
use crate::durability::{ALLOWANCE, Mode};
use crate::script::Change;

const CLIENTS: u8 = 2;

/// When records are read in these tests, and how long the worker lives on.
const AT: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_millis(5);
const RELAXED: Mode = Mode::Relaxed { within: WITHIN };

fn script(mode: Mode) -> Script {
    Script::new(1, 0, mode, vec![vec![0; KEYS_PER_CLIENT]; usize::from(CLIENTS)])
}

/// An oracle after 200 acknowledged operations of each client, and the rows it
/// expects.
fn worked() -> (Oracle, Rows) {
    let (mut oracle, script) = (Oracle::new(CLIENTS, Fault::Kill), script(Mode::Durable));
    for number in 0..200 {
        for client in 0..CLIENTS {
            for step in [Step::Start, Step::Done] {
                oracle.take(Record { step, client, number }, &script, AT).unwrap();
            }
        }
    }
    let rows = rows(&oracle);
    (oracle, rows)
}

/// What all acknowledged writes lead to.
fn rows(oracle: &Oracle) -> Rows {
    let mut rows = BTreeMap::new();
    for (number, client) in oracle.clients.iter().enumerate() {
        for (key, value) in client.values.iter().enumerate() {
            change(&mut rows, number, &Change { key, value: value.clone() });
        }
        for write in client.writes.iter().filter(|write| write.acknowledged.is_some()) {
            write.changes.iter().for_each(|made| change(&mut rows, number, made));
        }
    }
    rows.into_iter().collect()
}

fn change(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, client: usize, Change { key, value }: &Change) {
    match value {
        Some(value) => rows.insert(key_bytes(client, *key), value.clone()),
        None => rows.remove(&key_bytes(client, *key)),
    };
}

/// Rows as the operation in flight of client 1 leaves them, or part of it.
fn rows_after(oracle: &Oracle, changes: &[Change]) -> Rows {
    let mut rows: BTreeMap<_, _> = rows(oracle).into_iter().collect();
    changes.iter().for_each(|made| change(&mut rows, 1, made));
    rows.into_iter().collect()
}

fn put(key: usize, value: &str) -> Change {
    Change { key, value: Some(value.as_bytes().to_vec()) }
}

fn batch() -> Vec<Change> {
    vec![put(3, "new 3"), put(50, "new 50"), put(7, "new 7")]
}

impl Oracle {
    fn begin(&mut self, client: usize, changes: &[Change], mode: Mode) {
        let begun = self.records;
        self.records += 1;
        let of = &mut self.clients[client];
        assert_eq!(of.in_flight.replace(InFlight::Write), None);
        let durability = mode.draw(&mut fastrand::Rng::with_seed(1));
        of.writes.push(Write {
            number: of.next_number,
            stream: of.streams[changes[0].key],
            changes: changes.to_vec(),
            due: due(durability, self.fault),
            begun,
            acknowledged: None,
        });
    }

    fn acknowledge(&mut self, client: usize) {
        let number = self.clients[client].next_number;
        let record = Record { step: Step::Done, client: client as u8, number };
        assert_eq!(self.take(record, &script(RELAXED), AT), Ok(true));
    }

    fn write(&mut self, client: usize, changes: &[Change], mode: Mode) {
        self.begin(client, changes, mode);
        self.acknowledge(client);
    }
}

fn with_batch_in_flight() -> (Oracle, Vec<Change>) {
    let (mut oracle, _) = worked();
    oracle.begin(1, &batch(), Mode::Durable);
    (oracle, batch())
}

/// Rows of clients, keys, and values.
fn rows_of(rows: &[(usize, usize, &str)]) -> Rows {
    let row = |(client, key, value): &(usize, usize, &str)| {
        (key_bytes(*client, *key), value.as_bytes().to_vec())
    };
    let mut rows: Rows = rows.iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn the_acknowledged_state_passes() {
    let (mut oracle, rows) = worked();
    assert!(!rows.is_empty() && !oracle.has_writes_in_flight());
    assert_eq!(oracle.check(&rows), Ok(Settled::default()));
    assert_eq!(oracle.check(&rows), Ok(Settled::default()));
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
    assert_eq!(oracle.check(&rows), Ok(Settled::default()));
}

#[test]
fn what_was_in_flight_is_there_wholly_or_not_at_all() {
    let (mut oracle, changes) = with_batch_in_flight();
    assert!(oracle.has_writes_in_flight());
    let all = rows_after(&oracle, &changes);
    assert_eq!(oracle.check(&all).unwrap().written, 1);
    assert_eq!(oracle.check(&all), Ok(Settled::default()));

    let (mut oracle, changes) = with_batch_in_flight();
    let (none, all) = (rows(&oracle), rows_after(&oracle, &changes));
    assert_eq!(oracle.check(&none).unwrap().not_written, 1);
    assert!(oracle.check(&all).is_err(), "what was lost came back later");

    for part in [&batch()[..1], &batch()[..2], &batch()[1..]] {
        let (mut oracle, _) = with_batch_in_flight();
        let half = rows_after(&oracle, part);
        assert!(oracle.check(&half).unwrap_err().contains("is there in part"));
    }

    let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
    oracle.begin(0, &[Change { key: 5, value: None }], Mode::Durable);
    assert_eq!(oracle.check(&Rows::new()).unwrap().without_trace, 1);
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

/// Four writes of client 0 to one stream, which the last two overwrite, and
/// whether the database may be left so.
#[test]
fn relaxed_writes_go_from_the_end() {
    let written = || {
        let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
        for (key, value) in [(1, "a"), (2, "b"), (1, "c"), (3, "d")] {
            oracle.write(0, &[put(key, value)], RELAXED);
        }
        oracle
    };
    let prefixes: [&[_]; 5] = [
        &[],
        &[(0, 1, "a")],
        &[(0, 1, "a"), (0, 2, "b")],
        &[(0, 1, "c"), (0, 2, "b")],
        &[(0, 1, "c"), (0, 2, "b"), (0, 3, "d")],
    ];
    for (length, prefix) in (0..).zip(prefixes) {
        let lost = written().check(&rows_of(prefix)).unwrap().relaxed_lost;
        assert_eq!(lost, 4 - length, "{prefix:?}");
    }
    let others: [&[_]; 4] = [
        &[(0, 2, "b")],
        &[(0, 1, "c")],
        &[(0, 1, "a"), (0, 2, "b"), (0, 3, "d")],
        &[(0, 1, "c"), (0, 3, "d")],
    ];
    for rows in others {
        let error = written().check(&rows_of(rows)).unwrap_err();
        assert!(error.contains("no prefix of the client's writes"), "{error}");
    }
}

#[test]
fn a_write_that_is_safe_keeps_those_before_it() {
    for safe in [Mode::Durable, Mode::ProcessSafe] {
        let written = || {
            let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
            oracle.write(0, &[put(1, "a")], RELAXED);
            oracle.write(0, &[put(2, "b")], safe);
            oracle.write(0, &[put(1, "c")], RELAXED);
            oracle
        };
        let kept = rows_of(&[(0, 1, "a"), (0, 2, "b")]);
        assert_eq!(written().check(&kept).unwrap().relaxed_lost, 1);
        for rows in [rows_of(&[(0, 1, "a")]), Rows::new()] {
            let error = written().check(&rows).unwrap_err();
            assert!(error.contains("operation 1 must be"), "{error}");
        }
    }
}

#[test]
fn a_relaxed_write_must_be_there_in_time() {
    for (lived, promised) in [(WITHIN, false), (WITHIN + ALLOWANCE, false), (2 * ALLOWANCE, true)] {
        let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
        oracle.write(0, &[put(1, "a")], RELAXED);
        oracle.killed(AT + lived);
        assert_eq!(oracle.check(&Rows::new()).is_err(), promised, "{lived:?}");
    }
}

#[test]
fn a_flush_keeps_what_was_acknowledged_before_it_began() {
    let script = script(RELAXED);
    for begun_late in [false, true] {
        let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
        oracle.write(0, &[put(1, "a")], RELAXED);
        oracle.begin(0, &[put(1, "b")], RELAXED);
        if begun_late {
            oracle.acknowledge(0);
        }
        oracle.clients[1].in_flight = Some(InFlight::Flush { begun: oracle.records });
        oracle.records += 1;
        let done = Record { step: Step::Done, client: 1, number: 0 };
        assert_eq!(oracle.take(done, &script, AT), Ok(false));
        if !begun_late {
            oracle.acknowledge(0);
        }
        assert_eq!(oracle.check(&rows_of(&[(0, 1, "a")])).is_err(), begun_late);
    }
}

/// Client 0 wrote before client 1 began: of one stream, the second write is not
/// there without the first.
#[test]
fn no_write_is_there_without_those_before_it_of_its_stream() {
    let second = rows_of(&[(1, 9, "z")]);
    for (streams, at_one_time, refused) in
        [([0, 0], false, true), ([0, 1], false, false), ([0, 0], true, false)]
    {
        let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
        for (client, stream) in oracle.clients.iter_mut().zip(streams) {
            client.streams.fill(stream);
        }
        if at_one_time {
            oracle.begin(1, &[put(9, "z")], RELAXED);
            oracle.write(0, &[put(1, "a")], RELAXED);
            oracle.acknowledge(1);
        } else {
            oracle.write(0, &[put(1, "a")], RELAXED);
            // One in flight that is there proves as much as an acknowledged one.
            oracle.begin(1, &[put(9, "z")], RELAXED);
        }
        let checked = oracle.check(&second);
        assert_eq!(checked.is_err(), refused, "{streams:?} {at_one_time}");
        if let Err(error) = checked {
            assert!(error.contains("began operation 0 of client 1 on WAL stream 0"), "{error}");
        }
    }
}

/// Client 2's write proves the put of client 1, that its key is gone proves the
/// delete after it, and that one proves the write of client 0.
#[test]
fn proof_goes_from_client_to_client() {
    for (delete, refused) in [(true, true), (false, false)] {
        let mut oracle = Oracle::new(3, Fault::Kill);
        oracle.write(1, &[put(5, "x")], RELAXED);
        oracle.begin(2, &[put(9, "z")], RELAXED);
        oracle.write(0, &[put(1, "a")], RELAXED);
        if delete {
            oracle.write(1, &[Change { key: 5, value: None }], RELAXED);
        }
        oracle.acknowledge(2);
        let mut found = vec![(2, 9, "z")];
        found.extend((!delete).then_some((1, 5, "x")));
        assert_eq!(oracle.check(&rows_of(&found)).is_err(), refused);
    }
}

#[test]
fn a_batch_lost_in_part_is_no_prefix() {
    let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
    oracle.write(0, &batch(), RELAXED);
    let error = oracle.check(&rows_of(&[(0, 3, "new 3"), (0, 50, "new 50")])).unwrap_err();
    assert!(error.contains("no prefix"), "{error}");
}

/// A client's operation that deletes a range with keys of two WAL streams,
/// after all keys were written, one operation each.
fn with_range_delete() -> (Oracle, Script, u64, Vec<usize>) {
    let streams = (0..KEYS_PER_CLIENT).map(|key| (key % 2) as u16).collect();
    let script = Script::new(1, 0, Mode::Durable, vec![streams; usize::from(CLIENTS)]);
    let is_long = |number: &u64| match script.operation(0, *number) {
        Operation::DeleteRange(keys) => keys.count() > 4,
        _ => false,
    };
    let number = (0..).find(is_long).expect("range deletes are not that seldom");
    let Operation::DeleteRange(keys) = script.operation(0, number) else { unreachable!() };
    let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
    oracle.begin_cycle(&script);
    for key in 0..KEYS_PER_CLIENT {
        oracle.write(0, &[put(key, "there")], Mode::Durable);
    }
    oracle.clients[0].next_number = number;
    (oracle, script, number, keys.collect())
}

/// What is left if all of these keys are gone.
fn rows_without(gone: impl Fn(usize) -> bool) -> Rows {
    let left = (0..KEYS_PER_CLIENT).filter(|key| !gone(*key)).map(|key| (0, key, "there"));
    rows_of(&left.collect::<Vec<_>>())
}

#[test]
fn a_range_delete_in_flight_is_done_in_each_stream_or_not() {
    for (of_streams, written) in [(&[][..], 0), (&[0], 1), (&[1], 1), (&[0, 1], 2)] {
        let (mut oracle, script, number, keys) = with_range_delete();
        let start = Record { step: Step::Start, client: 0, number };
        assert_eq!(oracle.take(start, &script, AT), Ok(false));
        let gone = |key| keys.contains(&key) && of_streams.contains(&(key % 2));
        let settled = oracle.check(&rows_without(gone)).unwrap();
        assert_eq!((settled.written, settled.not_written), (written, 2 - written));
    }
    let (mut oracle, script, number, keys) = with_range_delete();
    let start = Record { step: Step::Start, client: 0, number };
    oracle.take(start, &script, AT).unwrap();
    let error = oracle.check(&rows_without(|key| key == keys[0])).unwrap_err();
    assert!(error.contains("is there in part"), "{error}");
}

#[test]
fn a_range_delete_that_was_acknowledged_leaves_nothing_of_the_range() {
    let done = || {
        let (mut oracle, script, number, keys) = with_range_delete();
        for (step, acknowledges) in [(Step::Start, false), (Step::Done, true)] {
            let record = Record { step, client: 0, number };
            assert_eq!(oracle.take(record, &script, AT), Ok(acknowledges));
        }
        (oracle, keys)
    };
    let (mut oracle, keys) = done();
    assert_eq!(oracle.check(&rows_without(|key| keys.contains(&key))), Ok(Settled::default()));
    let (mut oracle, keys) = done();
    assert!(oracle.check(&rows_without(|key| keys[1..].contains(&key))).is_err());
    let (mut oracle, keys) = done();
    assert!(oracle.check(&rows_without(|key| key % 2 == 0 && keys.contains(&key))).is_err());
    let (mut oracle, _) = done();
    assert!(oracle.check(&rows_without(|_| false)).is_err());
}

#[test]
fn a_close_keeps_all_that_was_acknowledged() {
    for closed in [false, true] {
        let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
        oracle.write(0, &[put(1, "a")], RELAXED);
        oracle.begin(0, &[put(2, "b")], RELAXED);
        if closed {
            oracle.closed();
        }
        assert_eq!(oracle.check(&Rows::new()).is_err(), closed);
    }
}

#[test]
fn counts_are_the_last_that_came() {
    let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
    for number in [3, 5] {
        let record = Record { step: Step::Flushes, client: 0, number };
        assert_eq!(oracle.take(record, &script(RELAXED), AT), Ok(false));
    }
    assert_eq!((oracle.tally().flushes, oracle.tally().compactions), (5, 0));
    oracle.begin_cycle(&script(RELAXED));
    assert_eq!(oracle.tally().flushes, 0);
}

/// Three writes of client 0, cut after so many records.
fn cut_after(records: u64, lived: Duration, mode: Mode) -> Oracle {
    let mut oracle = Oracle::new(CLIENTS, Fault::PowerCut);
    for (key, value) in [(1, "a"), (2, "b"), (1, "c")] {
        oracle.write(0, &[put(key, value)], mode);
    }
    oracle.at_cut(records, lived)
}

#[test]
fn what_is_acknowledged_after_a_cut_may_be_there() {
    let prefixes = [
        rows_of(&[]),
        rows_of(&[(0, 1, "a")]),
        rows_of(&[(0, 1, "a"), (0, 2, "b")]),
        rows_of(&[(0, 1, "c"), (0, 2, "b")]),
    ];
    // Each write has two records; the second one acknowledges it.
    for records in 0..=6 {
        for (writes, rows) in prefixes.iter().enumerate() {
            let checked = cut_after(records, AT, Mode::Durable).check(rows);
            assert_eq!(checked.is_ok(), writes as u64 >= records / 2, "{records} {writes}");
        }
        let torn = cut_after(records, AT, Mode::Durable).check(&rows_of(&[(0, 2, "b")]));
        assert!(torn.is_err(), "a write is there without the one before it");
    }
}

#[test]
fn what_survives_only_the_process_may_be_lost_with_the_power_for_a_while() {
    let second = Duration::from_secs(1);
    for (mode, promised_after) in [(Mode::ProcessSafe, 2 * second), (RELAXED, WITHIN + second)] {
        let checked = |lived| cut_after(6, AT + lived, mode).check(&Rows::new());
        assert_eq!(checked(promised_after).unwrap().relaxed_lost, 3);
        assert!(checked(promised_after + WITHIN).is_err());
        let unknown = cut_after(0, AT + 2 * promised_after, mode).check(&Rows::new());
        assert_eq!(unknown.unwrap().relaxed_lost, 0);
    }
}

#[test]
fn a_flush_that_ends_after_a_cut_promises_nothing() {
    let mut oracle = Oracle::new(CLIENTS, Fault::PowerCut);
    oracle.write(0, &[put(1, "a")], RELAXED);
    oracle.clients[1].in_flight = Some(InFlight::Flush { begun: oracle.records });
    oracle.records += 1;
    let done = Record { step: Step::Done, client: 1, number: 0 };
    oracle.take(done, &script(RELAXED), AT).unwrap();
    for (records, promised) in [(3, false), (4, true)] {
        assert_eq!(oracle.at_cut(records, AT).check(&Rows::new()).is_err(), promised);
    }
}

#[test]
fn records_out_of_order_are_refused() {
    let mut oracle = Oracle::new(CLIENTS, Fault::Kill);
    let script = script(Mode::Durable);
    let mut take = |step, client, number| oracle.take(Record { step, client, number }, &script, AT);
    assert!(take(Step::Done, 0, 0).is_err());
    assert!(take(Step::Start, 0, 1).is_err());
    assert!(take(Step::Start, CLIENTS, 0).is_err());
    assert_eq!(take(Step::Start, 0, 0), Ok(false));
    assert!(take(Step::Start, 0, 0).is_err());
}
