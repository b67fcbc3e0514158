//! The versions of a shard's keys, from all tables and from the log, merged: of each
//! key the newest one is copied, if it has a value that nothing deletes.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;

use crate::base::ids::ShardId;
use crate::base::ranges::RangeTombstones;
use crate::base::seq::{Kind, SEQ_MAX, Tag, compare_internal};
use crate::io::{Halt, Inspection, Io};
use crate::shard::salvage::Sink;
use crate::shard::salvage::identity::Damaged;
use crate::shard::salvage::log::Place;
use crate::shard::salvage::report::{Meaning, SharedReporter};
use crate::shard::salvage::tables::Tables;
use crate::sst::{Entry, FoundTable, TableScan};
use crate::value::read_value;

/// A walk over a shard.
pub(super) struct Merge<'a> {
    damaged: &'a Damaged,
    shard: ShardId,
    /// Tables that were not come to, with their first keys, which descend.
    waiting: Vec<(Vec<u8>, FoundTable)>,
    /// Those that were, by number.
    open: BTreeMap<usize, TableScan>,
    opened: usize,
    heads: BinaryHeap<Reverse<Head>>,
    ranges: RangeTombstones,
    /// The last key that was dealt with.
    done: Option<Vec<u8>>,
}

/// The next entry of a table.
struct Head {
    entry: Entry,
    /// The table's number.
    from: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.entry, &other.entry);
        compare_internal((&a.key, a.tag), (&b.key, b.tag)).then(self.from.cmp(&other.from))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl<'a> Merge<'a> {
    /// `log` has the range tombstones of the shard's log.
    pub(super) fn new(
        damaged: &'a Damaged,
        shard: ShardId,
        tables: Tables,
        log: &RangeTombstones,
    ) -> Self {
        let mut waiting = tables.tables;
        waiting.sort_by(|a, b| b.0.cmp(&a.0));
        let ranges = RangeTombstones::union(&[&tables.ranges, log]);
        let (open, heads) = (BTreeMap::new(), BinaryHeap::new());
        Self { damaged, shard, waiting, open, opened: 0, heads, ranges, done: None }
    }

    /// Copies the keys that come next, before `until`. Those of the log are taken
    /// out of `rows`.
    pub(super) async fn run<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        rows: &mut BTreeMap<Place, (Tag, Vec<u8>)>,
        until: Option<&[u8]>,
        reporter: &SharedReporter<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Halt> {
        // What cannot be read shows in what is lost.
        reporter.borrow_mut().faults_mean(Meaning::Silent);
        loop {
            self.open_tables(inspection, reporter).await?;
            let of_shard = rows.first_key_value().filter(|((shard, _), _)| *shard == self.shard);
            let in_log = of_shard.map(|((_, key), _)| key);
            let in_tables = self.heads.peek().map(|Reverse(head)| &head.entry.key);
            let Some(key) = in_log.into_iter().chain(in_tables).min().cloned() else {
                return Ok(());
            };
            if until.is_some_and(|until| *key >= *until) {
                return Ok(());
            }
            let place = (self.shard, key);
            let mut newest = rows.remove(&place);
            let (_, key) = place;
            while self.heads.peek().is_some_and(|Reverse(head)| head.entry.key == key) {
                let Some(Reverse(Head { entry, from })) = self.heads.pop() else { break };
                self.advance(inspection, from, reporter).await?;
                if newest.as_ref().is_none_or(|(tag, _)| *tag < entry.tag) {
                    newest = Some((entry.tag, entry.value));
                }
            }
            if let Some((tag, value)) = newest {
                self.copy(inspection, &key, tag, value, reporter, sink).await?;
            }
            self.done = Some(key);
        }
    }

    /// Opens the tables that may have the next key.
    async fn open_tables<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        reporter: &SharedReporter<'_>,
    ) -> Result<(), Halt> {
        loop {
            let next = self.heads.peek().map(|Reverse(head)| &head.entry.key);
            let is_due = |(first, _): &mut (Vec<u8>, FoundTable)| next.is_none_or(|k| *first <= *k);
            let Some((_, table)) = self.waiting.pop_if(is_due) else { return Ok(()) };
            let path = table.path().to_owned();
            match table.scan(inspection).await? {
                Some(scan) => {
                    let number = self.opened;
                    self.opened += 1;
                    self.open.insert(number, scan);
                    self.advance(inspection, number, reporter).await?;
                }
                None => {
                    let reason = "the table cannot be opened any more: its keys are lost";
                    reporter.borrow_mut().lost(&path, 0, reason, None)?;
                }
            }
        }
    }

    /// Moves a table to its next entry, or closes it.
    async fn advance<I: Io>(
        &mut self,
        inspection: &mut Inspection<'_, I>,
        number: usize,
        reporter: &SharedReporter<'_>,
    ) -> Result<(), Halt> {
        let Some(scan) = self.open.get_mut(&number) else { return Ok(()) };
        let mut next = scan.next(inspection).await?;
        // What could not be read when the table's first key was looked for.
        let is_late = |entry: &Entry| self.done.as_ref().is_some_and(|done| entry.key <= *done);
        if let Some(late) = next.take_if(|entry| is_late(entry)) {
            let reason = "it could not be read at first: keys are lost, or come back older";
            let to = Bound::Included(self.done.clone().unwrap_or_default().into());
            let keys = Some((Bound::Included(late.key.into()), to));
            reporter.borrow_mut().lost(scan.path(), 0, reason, keys)?;
            next = scan.next(inspection).await?;
            while next.as_ref().is_some_and(is_late) {
                next = scan.next(inspection).await?;
            }
        }
        let lost = std::mem::take(&mut scan.lost);
        reporter.borrow_mut().lost_of_table(scan.path(), lost)?;
        match next {
            Some(entry) => self.heads.push(Reverse(Head { entry, from: number })),
            None => drop(self.open.remove(&number)),
        }
        Ok(())
    }

    /// Copies a key whose newest version this is.
    async fn copy<I: Io>(
        &self,
        inspection: &mut Inspection<'_, I>,
        key: &[u8],
        tag: Tag,
        value: Vec<u8>,
        reporter: &SharedReporter<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Halt> {
        if self.ranges.newest(key, SEQ_MAX).is_some_and(|deleted| deleted > tag.seq()) {
            return Ok(());
        }
        let value = match tag.kind() {
            Some(Kind::Put) => value,
            Some(Kind::Indirect) => {
                let dir = self.damaged.shard_dir(self.shard);
                match read_value(inspection, self.damaged.db, &dir, &value).await? {
                    Ok(value) => value,
                    Err(lost) => {
                        let bound = || Bound::Included(key.into());
                        let reason = format!("{}: its key is lost", lost.reason);
                        let keys = Some((bound(), bound()));
                        return reporter.borrow_mut().lost(&lost.path, lost.offset, reason, keys);
                    }
                }
            }
            _ => return Ok(()),
        };
        sink.put(key, &value).await?;
        let counts = &mut reporter.borrow_mut().counts;
        counts.rows += 1;
        counts.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }
}
