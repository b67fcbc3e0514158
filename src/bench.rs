//! What the benches see of the engine.

pub use crate::base::checksum::Seed;
pub use crate::base::seq::{Kind, Tag};
pub use crate::cache::policy::{Frequencies, Policy};
pub use crate::cache::s3fifo::S3Fifo;
pub use crate::format::block::{
    Block, BlockBuilder, BlockCursor, BlockShape, Compression, Layout, Lookup,
};
pub use crate::format::filter::Filter;
pub use crate::format::header::DecodeError;
pub use crate::memtable::{ArenaPool, Entry, Memtable, Payload, Position, ValueRef};

use crate::cache::{Cache, CachedTable, Epochs};
use crate::format::record::{
    HEADER_BYTES, Header, PayloadWriter, Record, RecordKind, Unusable, entry_bytes, seal,
    section_bytes,
};

/// A log record of one put.
#[derive(Debug)]
pub struct RecordBench {
    seed: Seed,
    bytes: Vec<u8>,
}

impl RecordBench {
    /// Room for a put of this key and value, and the record of it.
    #[must_use]
    pub fn new(seed: Seed, key: &[u8], value: &[u8]) -> Self {
        let payload = section_bytes() + entry_bytes(Kind::Put, key.len(), value.len());
        let mut this = Self { seed, bytes: vec![0; HEADER_BYTES + payload] };
        this.encode(key, value);
        this
    }

    /// Bytes of the record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the record anew, for a key and value of the same sizes.
    pub fn encode(&mut self, key: &[u8], value: &[u8]) {
        let mut writer = PayloadWriter::new(&mut self.bytes[HEADER_BYTES..]);
        writer.section(0, 0, 1, 1);
        writer.entry(Kind::Put, key, value);
        writer.finish();
        let header = Header {
            kind: RecordKind::Write,
            epoch: 1,
            sections: 1,
            position: 4096,
            mark: 0,
            gap: 0,
        };
        seal(&mut self.bytes, self.seed, &header);
    }

    /// Checks the record and visits its write: the length of the value.
    ///
    /// # Panics
    /// When the record is not sound.
    #[must_use]
    pub fn decode(&self) -> usize {
        let record = Record::decode(&self.bytes, self.seed, 1, 4096);
        let record = record.expect("known").expect("sound");
        let mut value_bytes = 0;
        let visited = record.for_each_write(|write| {
            value_bytes += write.value.len();
            Ok::<_, Unusable>(())
        });
        visited.expect("well formed");
        value_bytes
    }
}

/// A block cache with one table.
#[derive(Debug)]
pub struct CacheBench {
    table: CachedTable,
    scratch: Vec<u8>,
}

impl CacheBench {
    /// A cache of so many bytes, and a table of so many blocks.
    ///
    /// # Panics
    /// When there is no memory for it.
    #[must_use]
    pub fn new(memory_bytes: usize, blocks: u32) -> Self {
        let cache = Cache::new(&Epochs::new(), memory_bytes, 0).expect("there is memory");
        Self { table: cache.register(1, blocks), scratch: Vec::new() }
    }

    /// Pins and unpins, and nothing else.
    pub fn pin(&self) {
        drop(self.table.cache().epochs().pin());
    }

    /// Looks a block up: its length and last byte, if it is there.
    #[inline]
    pub fn get(&mut self, block: u32) -> Option<(usize, u8)> {
        let guard = self.table.cache().epochs().pin();
        let hit = self.table.get(&guard, block)?;
        let bytes = match hit.whole() {
            Some(whole) => whole,
            None => {
                hit.gather(&mut self.scratch);
                &self.scratch
            }
        };
        Some((bytes.len(), *bytes.last()?))
    }

    /// Puts a block in: whether there was room.
    pub fn insert(&self, block: u32, bytes: &[u8]) -> bool {
        self.table.insert(block, bytes)
    }

    /// Blocks it can hold, of 4096 bytes each.
    #[must_use]
    pub fn frames(&self) -> u32 {
        (self.table.cache().capacity_bytes() / 4096) as u32
    }
}
