//! Flushes, compactions, writes that are held up, and poisonings are events.

mod common;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex};

use common::tiny;
use ourodb::sim::{FaultKind, Faults, Sim};
use ourodb::{Db, Durability, ErrorKind};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber, span};

#[derive(Clone, Debug, Default)]
struct Event {
    level: Option<Level>,
    fields: BTreeMap<&'static str, String>,
}

impl Event {
    fn message(&self) -> &str {
        &self.fields["message"]
    }

    fn number(&self, field: &str) -> u64 {
        let value = self.fields.get(field).unwrap_or_else(|| panic!("{field} of {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{field} of {self:?}"))
    }
}

impl Visit for Event {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Keeps the engine's events.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Event>>>);

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("ourodb")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let level = Some(*event.metadata().level());
        let mut kept = Event { level, ..Event::default() };
        event.record(&mut kept);
        self.0.lock().expect("no panic").push(kept);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The events of what `work` does on the simulated machine, which is all on this thread.
fn events_of(work: impl FnOnce()) -> Events {
    let kept = Kept::default();
    tracing::subscriber::with_default(kept.clone(), work);
    let events = kept.0.lock().expect("no panic").clone();
    Events(events)
}

struct Events(Vec<Event>);

impl Events {
    /// Those with a message that begins so.
    fn of(&self, message: &str) -> Vec<&Event> {
        self.0.iter().filter(|event| event.message().starts_with(message)).collect()
    }
}

impl Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[test]
fn flushes_and_compactions_begin_and_end() {
    let sim = Sim::new(1);
    let db = Db::open("/db", tiny(&sim).shards(2).owners(1)).unwrap();
    let events = events_of(|| {
        for round in 0..2u8 {
            for i in 0..20u8 {
                db.put(&[i], &[round; 100]).wait().unwrap();
            }
            db.flush().wait().unwrap();
        }
        db.compact(..).wait().unwrap();
    });
    let stats = db.stats();
    let (begun, ended) = (events.of("a flush begins"), events.of("a flush ended"));
    assert_eq!(begun.len(), ended.len());
    assert_eq!(ended.len() as u64, stats.flushes);
    for (begun, ended) in begun.into_iter().zip(&ended) {
        assert_eq!((begun.level, ended.level), (Some(Level::INFO), Some(Level::INFO)));
        for field in ["shard", "bytes_in"] {
            assert_eq!(begun.number(field), ended.number(field));
        }
        assert_eq!((ended.number("level"), ended.number("tables_out")), (0, 1));
        assert!(ended.number("duration_us") > 0);
    }
    let bytes_out = |events: &[&Event]| events.iter().map(|e| e.number("bytes_out")).sum::<u64>();
    assert_eq!(bytes_out(&ended), stats.flushed_bytes);

    let (begun, ended) = (events.of("a compaction begins"), events.of("a compaction ended"));
    assert_eq!(begun.len(), ended.len());
    assert_eq!(ended.len() as u64, stats.compactions);
    assert!(ended.len() >= 2, "{events:?}");
    for (begun, ended) in begun.into_iter().zip(&ended) {
        assert_eq!((begun.level, ended.level), (Some(Level::INFO), Some(Level::INFO)));
        for field in ["shard", "level", "tables_in", "tables_moved", "tables_dropped", "bytes_in"] {
            assert_eq!(begun.number(field), ended.number(field));
        }
        assert!(ended.number("duration_us") > 0);
    }
    assert_eq!(bytes_out(&ended), stats.compaction_written_bytes);
    assert!(ended.iter().any(|ended| ended.number("tables_out") == 1));
}

#[test]
fn writes_that_are_held_up_are_told_once_a_second() {
    let sim = Sim::new(2);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    let began_ns = sim.now_ns();
    let events = events_of(|| {
        sim.set_faults(Faults::default().delay_ns(500_000..=500_000));
        for i in 0..3000u32 {
            let key = i.to_be_bytes();
            let put = db.put(&key, &[7; 1000]).durability(Durability::ProcessSafe);
            put.wait().unwrap();
        }
        db.flush().wait().unwrap();
        sim.set_faults(Faults::default());
        sim.run_for(10_000_000_000);
    });
    let seconds = (sim.now_ns() - began_ns) / 1_000_000_000;
    let stats = db.stats();
    let pairs = [
        ("writes stand still", Level::WARN, "writes go on", stats.write_stalls),
        ("writes are slowed down", Level::INFO, "writes have full speed", stats.writes_delayed),
    ];
    for (begins, level, ends, held_up) in pairs {
        let (begun, ended) = (events.of(begins), events.of(ends));
        assert!(!begun.is_empty() && begun.len() as u64 <= seconds + 1, "{begins}: {events:?}");
        assert!(begun.len() as u64 * 10 < held_up, "{} of {held_up}", begun.len());
        assert_eq!(begun.len(), ended.len(), "{begins}");
        for (begun, ended) in begun.into_iter().zip(ended) {
            assert_eq!((begun.level, ended.level), (Some(level), Some(Level::INFO)));
            assert_eq!((begun.number("shard"), ended.number("shard")), (0, 0));
            assert!(begun.number("immutable_memtables") + begun.number("level_0_tables") > 0);
            assert!(ended.number("writes") > 0 && ended.number("duration_us") > 0);
        }
    }
}

#[test]
fn a_poisoning_is_told_once_with_its_cause() {
    let sim = Sim::new(3);
    let db = Db::open("/db", tiny(&sim).shards(1).owners(1)).unwrap();
    db.put(b"key", b"value").wait().unwrap();
    let events = events_of(|| {
        sim.set_faults(Faults::default().fail_kth(1, FaultKind::Io, true));
        for _ in 0..3 {
            db.put(b"key", b"value").wait().unwrap_err();
        }
    });
    let poisonings = events.of("the log is poisoned");
    assert_eq!(poisonings.len(), 1, "{events:?}");
    assert_eq!(poisonings[0].level, Some(Level::ERROR));
    assert_eq!(poisonings[0].number("stream"), 0);
    assert!(poisonings[0].fields["error"].contains("/db/wal/"), "{poisonings:?}");
    assert_eq!(db.put(b"key", b"value").wait().unwrap_err().kind(), ErrorKind::Poisoned);
}
