//! Clients against a map in memory: what is right passes, and each kind of
//! wrong answer is counted.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::distribution::RecordChooser;
use crate::inserts::RecordCounter;
use crate::keys::KeySizes;
use crate::script::Presence;
use crate::shape::Shape;
use crate::sizes::Sizes;
use crate::target::Rows;
use crate::workload::{BuiltIn, Mix, OpKind};

const RECORDS: u64 = 500;

/// What a lying store does to an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    Lose,
    FlipLastByte,
    OtherRecord,
    Invent,
    SkipFirstRow,
    Reverse,
    TooManyRows,
    SkipLastRow,
}

struct MapStore {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    lie: Lie,
}

impl Handle for &MapStore {
    type Bytes = Vec<u8>;

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let map = self.map.lock().unwrap();
        let mut value = map.get(key).cloned();
        match self.lie {
            Lie::Lose => value = None,
            Lie::OtherRecord | Lie::Invent => value = map.values().next().cloned(),
            Lie::FlipLastByte => {
                if let Some(last) = value.as_mut().and_then(|value| value.last_mut()) {
                    *last ^= 1;
                }
            }
            _ => {}
        }
        Ok(value)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.map.lock().unwrap().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        self.map.lock().unwrap().remove(key);
        Ok(())
    }

    fn delete_range(&mut self, from: &[u8], end: &[u8]) -> Result<(), Failure> {
        self.map.lock().unwrap().retain(|key, _| !(from..end).contains(&&key[..]));
        Ok(())
    }

    fn scan(&mut self, from: &[u8], rows: usize, found: &mut Rows) -> Result<(), Failure> {
        let map = self.map.lock().unwrap();
        let skip = usize::from(self.lie == Lie::SkipFirstRow);
        let rows = match self.lie {
            Lie::TooManyRows => rows + 1,
            Lie::SkipLastRow => rows - 1,
            _ => rows,
        };
        let range = map.range(from.to_vec()..).skip(skip).take(rows);
        let mut range: Vec<_> = range.map(|(key, value)| (key.clone(), value.clone())).collect();
        match self.lie {
            Lie::Reverse => range.reverse(),
            Lie::FlipLastByte => {
                if let Some(last) = range.last_mut().and_then(|(_, value)| value.last_mut()) {
                    *last ^= 1;
                }
            }
            _ => {}
        }
        for (key, value) in range {
            found.push(&key, &value);
        }
        Ok(())
    }
}

/// Loads a store, then runs `operations` operations of the workload on it.
fn faults(workload: BuiltIn, lie: Lie, operations: u32) -> (Faults, MapStore, u64) {
    let data = Arc::new(Data::new(
        Shape::new(RECORDS, KeySizes::fixed(24), Sizes::Fixed(100), 3).unwrap(),
    ));
    let mut store = MapStore { map: Mutex::default(), lie: Lie::None };
    let load = Task {
        mix: Mix::LOAD,
        chooser: RecordChooser::Uniform { records: RECORDS },
        presence: Presence::Always,
        inserts: Inserts::strided(0, 1, RECORDS),
        seed: 1,
        own: None,
        trace: None,
        last_keys: Arc::default(),
    };
    let mut client = Client::new(&store, Arc::clone(&data), load);
    while client.prepare().is_some() {
        client.execute().unwrap();
        client.verify();
    }
    let (found, inserts, _) = client.finish();
    assert_eq!((found, inserts.acknowledged()), (Faults::default(), RECORDS));
    assert_eq!(store.map.get_mut().unwrap().len() as u64, RECORDS);

    store.lie = lie;
    let counter = Arc::new(RecordCounter::new(RECORDS, data.keys.capacity()));
    let choice = workload.mix().choice();
    let task = Task {
        mix: workload.mix(),
        chooser: RecordChooser::new(choice, RECORDS, false, data.keys.capacity(), 3).unwrap(),
        presence: match choice {
            crate::distribution::KeyChoice::Absent => Presence::Never,
            _ if workload.mix().kinds().any(OpKind::deletes) => Presence::Maybe,
            _ => Presence::Always,
        },
        inserts: Inserts::Shared(counter),
        seed: 2,
        own: None,
        trace: None,
        last_keys: data.last_keys(workload.mix().scan_rows_max()).into(),
    };
    let mut client = Client::new(&store, Arc::clone(&data), task);
    for _ in 0..operations {
        client.prepare().unwrap();
        client.execute().unwrap();
        client.verify();
    }
    let (faults, inserts, _) = client.finish();
    let records = inserts.acknowledged();
    (faults, store, records)
}

#[test]
fn honest_stores_have_no_faults() {
    use clap::ValueEnum;
    for workload in BuiltIn::value_variants() {
        let (faults, mut store, records) = faults(*workload, Lie::None, 2000);
        assert_eq!(faults, Faults::default(), "{workload:?}");
        let left = store.map.get_mut().unwrap().len() as u64;
        let deletes = workload.mix().kinds().any(OpKind::deletes);
        assert_eq!(left < records, deletes, "{workload:?}");
        let inserts = workload.mix().kinds().any(|kind| kind == OpKind::Insert);
        assert_eq!(records > RECORDS, inserts, "{workload:?}");
    }
}

#[test]
fn every_wrong_get_is_counted() {
    for (lie, word) in [
        (Lie::Lose, "is missing"),
        (Lie::FlipLastByte, "wrong value"),
        (Lie::OtherRecord, "wrong value"),
    ] {
        for workload in [BuiltIn::C, BuiltIn::F, BuiltIn::GetUniform] {
            let (faults, ..) = faults(workload, lie, 200);
            // The other record may by chance be the right one.
            assert!((170..=200).contains(&faults.count), "{}", faults.count);
            assert!(faults.first.unwrap().contains(word));
        }
    }
    let (faults, ..) = faults(BuiltIn::GetAbsent, Lie::Invent, 200);
    assert_eq!(faults.count, 200);
    assert!(faults.first.unwrap().contains("never written"));
}

#[test]
fn every_wrong_scan_is_counted() {
    for (lie, word) in [
        (Lie::SkipFirstRow, "does not begin"),
        (Lie::FlipLastByte, "wrong row"),
        (Lie::Reverse, "order"),
        (Lie::TooManyRows, "more than"),
        (Lie::SkipLastRow, "rows of"),
    ] {
        let (faults, ..) = faults(BuiltIn::Scan, lie, 200);
        // A scan of one row cannot be out of order, nor one at the end too long.
        assert!(faults.count > 150, "{word}: {}", faults.count);
        assert!(faults.count <= 200);
        assert!(faults.first.unwrap().contains(word), "{word}");
    }
}

#[test]
fn faults_are_added_up_and_the_first_is_kept() {
    let mut all = Faults::default();
    all.merge(Faults { count: 2, first: Some("one".to_owned()) });
    all.merge(Faults { count: 3, first: Some("two".to_owned()) });
    assert_eq!(all, Faults { count: 5, first: Some("one".to_owned()) });
}
