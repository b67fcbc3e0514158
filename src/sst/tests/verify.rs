//! What verification finds where all checksums are right: a table that says
//! something else than its entries, or than the manifest.

use std::ops::ControlFlow;
use std::path::Path;

use super::memory::{Memory, now};
use super::{
    Compression, DB, Entry, Kept, NewTable, Random, ReadCounters, SEQ_MAX, TableMeta, TableWriter,
    get, hasher, new_table, open_as, random_entries, sorted,
};
use crate::base::fault::Finding;
use crate::base::hash::KeyHasher;
use crate::base::limits::UNIT;
use crate::base::ranges::RangeTombstones;
use crate::format::table::{Footer, Properties, seed_at};
use crate::io::{BufferPool, Inspection};
use crate::sst::verify::{TableCheck, verify_table};

/// A table of the only shard, whose writer took these hashes for those of the
/// keys.
fn write(entries: &[Entry], hasher: &KeyHasher, compression: Compression) -> (Memory, TableMeta) {
    let io = Memory::of(Vec::new());
    let pool = BufferPool::new(64 << 10, 2);
    let new = NewTable { shard: 0, ..new_table(compression) };
    let meta = now(async {
        let mut writer = TableWriter::new(&io, io.file(), 0, new, &pool);
        for (key, tag, value) in entries {
            writer.add(key, *tag, value, hasher.hash(key)).await?;
        }
        writer.finish(0, &RangeTombstones::default()).await
    });
    (io, meta.expect("memory takes everything").0)
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

/// Properties that know other numbers of blocks than the partitions have.
#[test]
fn other_numbers_of_blocks_than_there_are() {
    let key = |i: u32| (i.to_be_bytes().to_vec(), super::put(u64::from(i) + 1), vec![0; 10]);
    let entries: Vec<Entry> = (0..40_000).map(key).collect();
    let (io, meta) = write(&entries, &hasher(), Compression::None);
    let bytes = io.bytes();
    let footer_at = bytes.len() - UNIT;
    let footer =
        Footer::decode(&bytes[footer_at..], &meta.table_id, footer_at as u64).expect("sound");
    let region = footer.properties.offset as usize..footer.properties.end() as usize;
    let properties = Properties::decode(&bytes[region.clone()][..footer.properties.bytes as usize]);
    let properties = properties.expect("sound");
    assert_eq!(properties.partition_blocks.len(), 3);
    let with_blocks = |change: &dyn Fn(&mut Vec<u32>)| {
        let (mut other, mut bytes, mut footer) =
            (properties.clone(), bytes.clone(), footer.clone());
        change(&mut other.partition_blocks);
        let encoded = other.encode();
        footer.properties.bytes = encoded.len() as u64;
        let stored = &mut bytes[region.clone()];
        stored.fill(0);
        stored[..encoded.len()].copy_from_slice(&encoded);
        footer.properties.crc = seed_at(&meta.table_id, footer.properties.offset).checksum(stored);
        footer.encode(&mut bytes[footer_at..], &meta.table_id);
        Memory::of(bytes)
    };
    let says = |io: &Memory, faults: usize, reason: &str| {
        let (reasons, entries_seen) = verify(io, &meta, 1);
        assert_eq!((reasons.len(), entries_seen), (faults, 40_000), "{reasons:?}");
        assert!(reasons.iter().all(|other| other.contains(reason)), "{reason}: {reasons:?}");
        assert!(open_as(Kept::Pinned, io, &meta, None).is_err());
    };
    says(&with_blocks(&|blocks| blocks.truncate(2)), 1, "the properties know 2 partitions");
    // As many all told: only who reads the partitions can tell.
    let moved = with_blocks(&|blocks| {
        blocks[1] += 1;
        blocks[2] -= 1;
    });
    says(&moved, 2, "and the properties say");
    let table = open_as(Kept::Cached(1 << 20), &moved, &meta, None).expect("nothing was read");
    let counters = ReadCounters::default();
    for (i, is_sound) in [(0u32, true), (20_000, false), (39_999, false)] {
        let found = get(&moved, &table, &counters, &i.to_be_bytes(), SEQ_MAX);
        assert_eq!(found.is_ok(), is_sound, "{i}");
    }
}
