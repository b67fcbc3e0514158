//! That wrong is called wrong, and right right.

use super::*;

const NOBODY: &[(&[u8], &[u8])] = &[];

/// Two keys, of one stream.
fn history() -> History {
    History::new(vec![b"a".to_vec(), b"b".to_vec()])
}

fn content(text: &str) -> Content {
    Some(text.as_bytes().into())
}

fn rows(rows: &[(&[u8], &[u8])]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn durability(is_durable: bool) -> Durability {
    if is_durable { Durability::Durable } else { Durability::ProcessSafe }
}

/// A write of one key that was acknowledged.
fn put(history: &mut History, key: usize, text: &str, is_durable: bool) {
    let write = history.begin(&[(key, content(text))], durability(is_durable));
    history.acknowledge(write, 0);
}

#[test]
fn reads_find_nothing_old_and_nothing_refused() {
    let mut history = history();
    put(&mut history, 0, "1", true);
    let read = history.begin_read(0);
    assert!(history.end_read(&read, None).is_err(), "it was replaced before");
    let write = history.begin(&[(0, content("2"))], Durability::Durable);
    for text in ["1", "2"] {
        let read = history.begin_read(0);
        history.end_read(&read, Some(text.as_bytes())).expect("either");
    }
    let read = history.begin_read(0);
    assert!(history.end_read(&read, Some(b"1")).is_err(), "somebody found the newer one");
    assert!(history.refuse(write).is_err(), "the same");
    let write = history.begin(&[(0, content("3"))], Durability::Durable);
    history.refuse(write).expect("nobody found it");
    let read = history.begin_read(0);
    assert!(history.end_read(&read, Some(b"3")).is_err());
}

#[test]
fn scans_see_one_moment() {
    let mut history = history();
    put(&mut history, 0, "1", true);
    let write = history.begin(&[(0, content("2")), (1, content("2"))], Durability::Durable);
    let scan = history.begin_scan([0, 1]);
    history.acknowledge(write, 0);
    let mut judge = |found: &[(&[u8], &[u8])]| {
        // Each on its own: what is found moves what later reads may find.
        history.keys.iter_mut().for_each(|key| key.floor = 0);
        history.end_scan(&scan, &rows(found), |_| true, false)
    };
    judge(&[(b"a", b"1")]).expect("before the write");
    judge(&[(b"a", b"2"), (b"b", b"2")]).expect("behind it");
    assert!(judge(&[(b"a", b"2")]).is_err(), "half of it");
    assert!(judge(&[(b"a", b"1"), (b"b", b"2")]).is_err(), "the other half");
    assert!(judge(NOBODY).is_err(), "the first was there");
    assert!(judge(&[(b"a", b"1"), (b"c", b"1")]).is_err(), "nobody wrote that");
}

/// Found by seed 6906, which called it wrong.
#[test]
fn a_refused_write_is_not_promised_because_a_later_one_was_found() {
    let mut history = history();
    let write = history.begin(&[(0, content("1"))], Durability::Durable);
    history.refuse(write).expect("nobody found it");
    put(&mut history, 0, "2", false);
    let read = history.begin_read(0);
    history.end_read(&read, Some(b"2")).expect("it was acknowledged");
    history.settle(&rows(NOBODY), &BTreeSet::new(), Loss::Power(1)).expect("neither was durable");
}

#[test]
fn a_crash_leaves_a_prefix_that_has_what_was_promised() {
    let judge = |found: &[(&[u8], &[u8])], loss| {
        let mut history = history();
        put(&mut history, 0, "durable", true);
        put(&mut history, 1, "safe", false);
        put(&mut history, 0, "later", false);
        history.begin(&[(1, None)], Durability::Durable);
        history.settle(&rows(found), &BTreeSet::new(), loss)
    };
    let power = Loss::Power(1);
    let durable: (&[u8], &[u8]) = (b"a", b"durable");
    let safe: (&[u8], &[u8]) = (b"b", b"safe");
    let later: (&[u8], &[u8]) = (b"a", b"later");
    for found in [&[durable][..], &[durable, safe], &[later, safe], &[later]] {
        let judged = judge(found, power);
        // The last write may have taken effect, and deleted what was there.
        judged.unwrap_or_else(|wrong| panic!("{found:?}: {wrong}"));
    }
    assert!(judge(NOBODY, power).is_err(), "what is durable is there");
    assert!(judge(&[durable], Loss::Process).is_err(), "the process's death loses nothing");
    judge(&[later, safe], Loss::Process).expect("all of it");
    judge(&[later], Loss::Process).expect("with the write that was under way");

    // What was acknowledged and may be lost is lost as a whole.
    let judge = |found: &[(&[u8], &[u8])]| {
        let mut history = history();
        let write = history.begin(&[(0, content("2")), (1, content("2"))], durability(false));
        history.acknowledge(write, 0);
        history.settle(&rows(found), &BTreeSet::new(), power)
    };
    judge(&[(b"a", b"2"), (b"b", b"2")]).expect("all of it");
    judge(NOBODY).expect("nothing of it");
    assert!(judge(&[(b"a", b"2")]).is_err(), "half of it");

    let mut history = history();
    put(&mut history, 0, "1", false);
    put(&mut history, 1, "2", false);
    let found = rows(&[(b"b", b"2")]);
    let settled = history.settle(&found, &BTreeSet::new(), power);
    assert!(settled.is_err(), "not without the one before");
}

#[test]
fn what_could_not_be_read_may_be_any_version_that_was_promised() {
    let mut history = history();
    for text in ["1", "2", "3"] {
        put(&mut history, 0, text, text == "2");
    }
    let unread = BTreeSet::from([0]);
    history.settle(&rows(NOBODY), &unread, Loss::Power(1)).expect("it was not read");
    let mut judge = |found: &str| {
        let read = history.begin_read(0);
        history.end_read(&read, Some(found.as_bytes()))
    };
    assert!(judge("1").is_err(), "it was replaced by a durable one");
    judge("3").expect("it may have survived");
    assert!(judge("2").is_err(), "it was the newer one before");
    put(&mut history, 0, "4", false);
    let read = history.begin_read(0);
    assert!(history.end_read(&read, Some(b"3")).is_err(), "it was replaced");
}

#[test]
fn what_was_to_be_durable_within_a_time_is() {
    let judge = |durability, age_ns, late_ns| {
        let mut history = history();
        history.opened(|_| 0, late_ns);
        let write = history.begin(&[(0, content("1"))], durability);
        history.acknowledge(write, 1000);
        history.settle(&rows(NOBODY), &BTreeSet::new(), Loss::Power(1000 + age_ns))
    };
    let relaxed = Durability::Relaxed { within: std::time::Duration::from_nanos(500) };
    judge(relaxed, 510, Some(10)).expect("it may still be on its way");
    assert!(judge(relaxed, 511, Some(10)).is_err(), "it was to be there");
    judge(relaxed, 511, None).expect("the disk is slow");
    judge(Durability::ProcessSafe, PROCESS_SAFE_NS, Some(0)).expect("it may be on its way");
    assert!(judge(Durability::ProcessSafe, PROCESS_SAFE_NS + 1, Some(0)).is_err());
}
