//! Scans that hand rows out where they lie: the rows of the iterator, wherever
//! they are, and nothing allocated for them.

mod common;

use common::{Model, Rng, change_some};
use ourodb::{Db, Durability, Options, Scan};

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn in_place(scan: Scan) -> Rows {
    let mut iter = scan.iter();
    std::iter::from_fn(|| iter.next_with(|key, value| (key.to_vec(), value.to_vec())))
        .map(|row| row.expect("a row"))
        .collect()
}

fn copied(scan: Scan) -> Rows {
    let row = |(key, value): (ourodb::Value, ourodb::Value)| (key.into_vec(), value.into_vec());
    scan.iter().map(|found| row(found.expect("a row"))).collect()
}

#[test]
fn rows_in_place_are_those_of_the_iterator_wherever_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::default().shards(3).owners(2).memtable_bytes(16 << 10);
    let db = Db::open(dir.path(), options.durability(Durability::ProcessSafe)).expect("open");
    let (mut model, mut rng) = (Model::new(), Rng(1));
    for round in 0..4 {
        // In memtable or table, shared with a memtable, and a few in value files.
        let lens: &[usize] = if round == 2 { &[0, 20, 5000, 70_000] } else { &[0, 20, 5000] };
        change_some(&db, &mut model, &mut rng, lens);
        if round == 1 {
            db.flush().wait().expect("a flush");
        }
        let all: Rows = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut reversed = all.clone();
        reversed.reverse();
        assert!(in_place(db.scan(..)) == all && copied(db.scan(..)) == all);
        assert!(in_place(db.scan(..).reverse()) == reversed);
        assert!(copied(db.scan(..).reverse()) == reversed);
        assert!(in_place(db.scan(..).limit(7)) == all[..7]);
        // Both ways in turn.
        let mut iter = db.scan(..).iter();
        for pair in all.chunks_exact(2) {
            let row = iter.next_with(|key, value| *key == pair[0].0 && *value == pair[0].1);
            assert!(row.expect("one more").expect("a row"));
            let (key, value) = iter.next().expect("one more").expect("a row");
            assert!(key[..] == pair[1].0 && value[..] == pair[1].1);
        }
    }
}

#[test]
fn rows_in_place_of_cached_blocks_allocate_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), Options::default().shards(2).owners(1)).expect("open");
    for i in 0..1000 {
        db.put(format!("{i:020}").as_bytes(), &[7; 400]).wait().expect("a put");
    }
    db.flush().wait().expect("a flush");
    // It brings the blocks into the cache.
    for i in 0..1000 {
        assert!(db.get(format!("{i:020}").as_bytes()).wait().expect("a get").is_some());
    }
    let mut iter = db.scan(..).iter();
    let mut next = || iter.next_with(|key, value| key.len() + value.len());
    // The first row of each shard makes its buffers.
    for _ in 0..20 {
        assert_eq!(next().expect("one more").expect("a row"), 420);
    }
    let allocated = allocation_counter::measure(|| {
        for _ in 20..1000 {
            assert_eq!(next().expect("one more").expect("a row"), 420);
        }
        assert!(next().is_none());
    });
    assert_eq!(allocated.count_total, 0);
}
