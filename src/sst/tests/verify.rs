//! What verification finds where all checksums are right: a table that says
//! something else than its entries, or than the manifest.

use std::ops::ControlFlow;
use std::path::Path;

use super::memory::{Memory, now};
use super::{
    Compression, DB, Entry, NewTable, Random, TableMeta, TableWriter, hasher, new_table,
    random_entries, sorted,
};
use crate::base::fault::Finding;
use crate::base::hash::KeyHasher;
use crate::base::ranges::RangeTombstones;
use crate::io::{BufferPool, Inspection};
use crate::sst::verify::{TableCheck, verify_table};

/// A table of the only shard, whose writer took these hashes for those of the
/// keys.
fn write(entries: &[Entry], hasher: &KeyHasher, compression: Compression) -> (Memory, TableMeta) {
    let io = Memory::of(Vec::new());
    let pool = BufferPool::new(64 << 10, 2);
    let new = NewTable { shard: 0, ..new_table(compression) };
    let meta = now(async {
        let mut writer = TableWriter::new(&io, io.file(), new, &pool);
        for (key, tag, value) in entries {
            writer.add(key, *tag, value, hasher.hash(key)).await?;
        }
        writer.finish(0, &RangeTombstones::default()).await
    });
    (io, meta.expect("memory takes everything"))
}

/// The reasons of all faults, and the entries that were seen.
fn verify(io: &Memory, meta: &TableMeta, shards: usize) -> (Vec<String>, u64) {
    let mut reasons = Vec::new();
    let mut report = |finding: Finding<'_>| {
        if let Finding::Fault(fault) = finding {
            reasons.push(fault.to_string());
        }
        ControlFlow::Continue(())
    };
    let mut inspection = Inspection::new(io, &mut report);
    let hasher = hasher();
    let check = TableCheck { db: DB, hasher: &hasher, shard: 0, shards, meta };
    let refer = async |_: &mut Inspection<'_, _>, _: &[u8], _| Ok(());
    now(verify_table(&mut inspection, Path::new("table"), &check, refer)).expect("a verdict");
    let entries = inspection.counts.entries;
    (reasons, entries)
}

#[test]
fn what_the_writer_makes_is_sound() {
    let mut random = Random(77);
    for compression in [Compression::None, Compression::Lz4] {
        for count in [1, 2, 40, 3000] {
            let entries = random_entries(&mut random, count);
            let (io, meta) = write(&entries, &hasher(), compression);
            assert_eq!(verify(&io, &meta, 1), (vec![], entries.len() as u64));
        }
    }
    // More than one partition.
    let key = |i: u32| (i.to_be_bytes().to_vec(), super::put(u64::from(i) + 1), vec![0; 10]);
    let entries: Vec<Entry> = (0..40_000).map(key).collect();
    let (io, meta) = write(&entries, &hasher(), Compression::None);
    assert_eq!(verify(&io, &meta, 1), (vec![], 40_000));
}

#[test]
fn hashes_of_another_database() {
    let entries = sorted(random_entries(&mut Random(5), 400));
    let (io, meta) = write(&entries, &KeyHasher::new(&[9; 16]), Compression::None);
    let (reasons, _) = verify(&io, &meta, 1);
    for reason in ["hash index says", "the filter denies a key of the block"] {
        assert!(reasons.iter().any(|other| other.contains(reason)), "{reason}: {reasons:?}");
    }
}

#[test]
fn keys_of_another_shard() {
    let entries = random_entries(&mut Random(6), 400);
    let (io, meta) = write(&entries, &hasher(), Compression::None);
    let (reasons, entries_seen) = verify(&io, &meta, 2);
    assert!(!reasons.is_empty() && entries_seen == entries.len() as u64);
    assert!(reasons.iter().all(|reason| reason.contains("keys of another shard")), "{reasons:?}");
}

#[test]
fn a_manifest_that_says_otherwise() {
    let entries = random_entries(&mut Random(8), 100);
    let (io, meta) = write(&entries, &hasher(), Compression::None);
    let says = |change: &dyn Fn(&mut TableMeta), reason: &str| {
        let mut other = meta.clone();
        change(&mut other);
        let (reasons, _) = verify(&io, &other, 1);
        assert!(reasons.iter().any(|other| other.contains(reason)), "{reason}: {reasons:?}");
    };
    says(&|meta| meta.entries += 1, "number of entries");
    says(&|meta| meta.smallest = vec![1, 2, 3].into(), "another smallest key");
    says(&|meta| meta.largest = vec![255; 99].into(), "another largest key");
    says(&|meta| meta.seq_min += 1, "another smallest sequence number");
    says(&|meta| meta.seq_max += 1, "another largest sequence number");
    says(&|meta| meta.table_id[3] ^= 1, "another table");
    says(&|meta| meta.file_bytes += 4096, "the file ends here");
    says(&|meta| meta.file_bytes -= 4096, "the table ends here");
    says(&|meta| meta.file_bytes = 0, "which no table has");
    says(&|meta| meta.id = crate::base::ids::FileId::new(9, 9), "another epoch");
}
