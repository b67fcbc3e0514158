//! What there may be: the versions of every key, and when they were written.
//!
//! Each key has one writer, which waits for one write before it begins the next,
//! so the versions of a key are in order. Moments are drawn from one counter: a
//! write took effect at some moment between its begin and its end, if it ended,
//! and otherwise perhaps never.
//!
//! * A read finds a version that was not replaced by one that had ended before the
//!   read began, that had begun before the read ended, and that is no older than
//!   what any read found that had ended before this one began.
//! * A scan finds what there was at the moment at which it began: of writes that
//!   were under way then, each wholly or not at all.
//! * After a crash each WAL stream has a prefix of its history: there is a moment
//!   at which all of its keys had what was found of them; and no version is
//!   missing that was promised to be there.
//!
//! What was found may be several versions at once, as all deletes look alike. A
//! check passes if it does with any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use ourodb::Durability;

/// What is acknowledged as safe from the death of the process is durable after so long.
const PROCESS_SAFE_NS: u64 = 1_000_000_000;

/// A point in the order of all that happens.
pub(crate) type Moment = u64;

/// The bytes of a version; `None` is a key that is not there.
pub(crate) type Content = Option<Arc<[u8]>>;

/// How the process that wrote ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// By a close, by a kill, or by itself: the machine went on.
    Process,
    /// The machine lost its power at this time, in nanoseconds.
    Power(u64),
}

#[derive(Clone)]
struct Version {
    content: Content,
    begun: Moment,
    /// `None` while it is under way, and of a write whose outcome is unknown.
    ended: Option<Moment>,
    /// When it ended, in nanoseconds of the machine.
    ended_ns: u64,
    /// It survives the loss of power.
    is_durable: bool,
    /// It does from so long after its end on, on a disk that keeps up.
    within_ns: u64,
    /// It was refused, and never was.
    is_refused: bool,
    /// The write it is a part of.
    write: u64,
}

impl Version {
    /// The same, as what there may be at an opening.
    fn as_base(&self) -> Self {
        Self { is_refused: self.is_refused, ..base(self.content.clone()) }
    }
}

struct Key {
    /// The first one is what was found at the opening.
    versions: Vec<Version>,
    /// Later reads find no version before this one.
    floor: usize,
    /// The WAL stream of the present opening.
    stream: usize,
}

impl Key {
    /// The last version whose write had ended.
    fn ended(&self) -> usize {
        self.versions.iter().rposition(|version| version.ended.is_some()).unwrap_or(0)
    }

    /// The moment at which something later than this version was there for certain.
    fn gone_at(&self, version: usize) -> Moment {
        let later = self.versions[version + 1..].iter().filter_map(|version| version.ended);
        later.min().unwrap_or(Moment::MAX)
    }

    /// The versions among these with this content.
    fn candidates(&self, among: Range<usize>, content: Option<&[u8]>) -> Vec<usize> {
        let is_one =
            |version: &Version| !version.is_refused && version.content.as_deref() == content;
        among.filter(|&i| is_one(&self.versions[i])).collect()
    }

    fn describe(&self, found: Option<&[u8]>, among: &Range<usize>) -> String {
        let known = self.candidates(0..self.versions.len(), found);
        format!(
            "{} was found, which is version {known:?}; it may be one of {among:?}",
            short(found)
        )
    }
}

fn short(content: Option<&[u8]>) -> String {
    match content {
        None => "nothing".to_owned(),
        Some(bytes) => {
            format!("{} bytes ({}…)", bytes.len(), bytes[..bytes.len().min(12)].escape_ascii())
        }
    }
}

/// A read under way.
pub(crate) struct Read {
    key: usize,
    floor: usize,
}

/// A scan under way: of each key in its range the versions it may find.
pub(crate) struct Scan {
    moment: Moment,
    among: BTreeMap<usize, Range<usize>>,
}

/// Every version of every key.
pub(crate) struct History {
    /// In order.
    names: Vec<Vec<u8>>,
    keys: Vec<Key>,
    moment: Moment,
    writes: u64,
    /// The keys of writes under way.
    under_way: BTreeMap<u64, Vec<usize>>,
    /// How much later than that it may be so; `None` where the disk does not keep up.
    late_ns: Option<u64>,
}

/// What was found and may not be.
pub(crate) type Wrong = String;

impl History {
    /// Nothing was written yet to these keys, which are in order.
    pub(crate) fn new(names: Vec<Vec<u8>>) -> Self {
        assert!(names.is_sorted_by(|a, b| a < b), "keys in order, each once");
        let keys = names.iter().map(|_| Key { versions: vec![base(None)], floor: 0, stream: 0 });
        let keys = keys.collect();
        Self { names, keys, moment: 0, writes: 0, under_way: BTreeMap::new(), late_ns: None }
    }

    pub(crate) fn name(&self, key: usize) -> &[u8] {
        &self.names[key]
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn stream(&self, key: usize) -> usize {
        self.keys[key].stream
    }

    /// A new opening: where keys go, and how late writes are durable, if that is known.
    pub(crate) fn opened(&mut self, stream_of: impl Fn(&[u8]) -> usize, late_ns: Option<u64>) {
        for (key, name) in self.keys.iter_mut().zip(&self.names) {
            key.stream = stream_of(name);
        }
        self.late_ns = late_ns;
    }

    fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// A write begins. It takes effect at one moment for all of these keys.
    pub(crate) fn begin(&mut self, ops: &[(usize, Content)], durability: Durability) -> u64 {
        let (is_durable, within_ns) = match durability {
            Durability::Durable => (true, 0),
            Durability::Relaxed { within } => (false, within.as_nanos() as u64),
            _ => (false, PROCESS_SAFE_NS),
        };
        let begun = self.tick();
        self.writes += 1;
        for (key, content) in ops {
            self.keys[*key].versions.push(Version {
                content: content.clone(),
                begun,
                ended: None,
                ended_ns: 0,
                is_durable,
                within_ns,
                is_refused: false,
                write: self.writes,
            });
        }
        self.under_way.insert(self.writes, ops.iter().map(|(key, _)| *key).collect());
        self.writes
    }

    /// The write was acknowledged.
    pub(crate) fn acknowledge(&mut self, write: u64, now_ns: u64) {
        let ended = self.tick();
        for key in self.under_way.remove(&write).unwrap_or_default() {
            let versions = &mut self.keys[key].versions;
            for version in versions.iter_mut().filter(|version| version.write == write) {
                version.ended = Some(ended);
                version.ended_ns = now_ns;
            }
        }
    }

    /// The write was refused: it never happens, and nobody has found it.
    pub(crate) fn refuse(&mut self, write: u64) -> Result<(), Wrong> {
        for number in self.under_way.remove(&write).unwrap_or_default() {
            let key = &mut self.keys[number];
            let mut refused = key.versions.iter_mut().enumerate();
            let Some((at, refused)) = refused.find(|(_, version)| version.write == write) else {
                continue;
            };
            refused.is_refused = true;
            if key.floor == at {
                let name = self.names[number].escape_ascii();
                return Err(format!("a write of \"{name}\" was refused, and had been found"));
            }
        }
        Ok(())
    }

    /// The present moment.
    pub(crate) fn now(&mut self) -> Moment {
        self.tick()
    }

    /// All that had ended by this moment survives the loss of power.
    pub(crate) fn harden(&mut self, moment: Moment) {
        for version in self.keys.iter_mut().flat_map(|key| &mut key.versions) {
            version.is_durable |= version.ended.is_some_and(|ended| ended < moment);
        }
    }

    pub(crate) fn begin_read(&mut self, key: usize) -> Read {
        self.tick();
        let of = &self.keys[key];
        Read { key, floor: of.floor.max(of.ended()) }
    }

    pub(crate) fn end_read(&mut self, read: &Read, found: Option<&[u8]>) -> Result<(), Wrong> {
        self.tick();
        let key = &mut self.keys[read.key];
        let among = read.floor..key.versions.len();
        match key.candidates(among.clone(), found).first() {
            Some(&first) => key.floor = key.floor.max(first),
            None => {
                let name = self.names[read.key].escape_ascii();
                return Err(format!("a get of \"{name}\": {}", key.describe(found, &among)));
            }
        }
        Ok(())
    }

    /// A scan of these keys begins.
    pub(crate) fn begin_scan(&mut self, keys: impl IntoIterator<Item = usize>) -> Scan {
        let moment = self.tick();
        let among = keys.into_iter().map(|key| {
            let of = &self.keys[key];
            (key, of.floor.max(of.ended())..of.versions.len())
        });
        Scan { moment, among: among.collect() }
    }

    /// These rows were found. With `up_to`, keys beyond that one were not looked at;
    /// with `values`, keys alone were.
    pub(crate) fn end_scan(
        &mut self,
        scan: &Scan,
        rows: &BTreeMap<Vec<u8>, Vec<u8>>,
        looked_at: impl Fn(&[u8]) -> bool,
        keys_only: bool,
    ) -> Result<(), Wrong> {
        self.tick();
        for name in rows.keys() {
            let known = self.names.binary_search(name).ok();
            if known.is_none_or(|key| !scan.among.contains_key(&key)) {
                return Err(format!("a scan found \"{}\", not in its range", name.escape_ascii()));
            }
        }
        let mut definite: BTreeMap<usize, usize> = BTreeMap::new();
        for (&key, among) in &scan.among {
            let name = &self.names[key];
            if !looked_at(name) {
                continue;
            }
            let found = rows.get(name).map(|value| &value[..]);
            let of = &self.keys[key];
            let candidates = if keys_only {
                let is_there = |&i: &usize| {
                    let version = &of.versions[i];
                    !version.is_refused && version.content.is_some() == found.is_some()
                };
                among.clone().filter(is_there).collect()
            } else {
                of.candidates(among.clone(), found)
            };
            let Some(&first) = candidates.first() else {
                return Err(format!(
                    "a scan, at \"{}\": {}",
                    name.escape_ascii(),
                    of.describe(found, among)
                ));
            };
            if candidates.len() == 1 {
                definite.insert(key, first);
            }
            self.keys[key].floor = of.floor.max(first);
        }
        self.check_wholeness(&definite, Some(scan.moment), "a scan")
    }

    /// Of each write, if it had not ended at `moment`, the keys that are known have all
    /// of it or nothing.
    fn check_wholeness(
        &self,
        definite: &BTreeMap<usize, usize>,
        moment: Option<Moment>,
        what: &str,
    ) -> Result<(), Wrong> {
        let mut seen: BTreeMap<u64, (bool, usize)> = BTreeMap::new();
        for (&key, &found) in definite {
            for (i, version) in self.keys[key].versions.iter().enumerate() {
                let was_under_way = moment.is_none_or(|moment| {
                    version.begun < moment && version.ended.is_none_or(|ended| ended > moment)
                });
                // Of what was replaced later nobody knows whether it ever was.
                if !was_under_way || version.write == 0 || version.is_refused || i < found {
                    continue;
                }
                let has = i == found;
                let (other, at) = *seen.entry(version.write).or_insert((has, key));
                if other != has {
                    let (a, b) = (self.names[at].escape_ascii(), self.names[key].escape_ascii());
                    return Err(format!("{what}: a write of \"{a}\" and \"{b}\" is there in part"));
                }
            }
        }
        Ok(())
    }

    /// The next opening found these rows, and could not read these keys. All that was
    /// written is over: what was found is all there is.
    pub(crate) fn settle(
        &mut self,
        rows: &BTreeMap<Vec<u8>, Vec<u8>>,
        unread: &BTreeSet<usize>,
        loss: Loss,
    ) -> Result<(), Wrong> {
        self.tick();
        for name in rows.keys() {
            if self.names.binary_search(name).is_err() {
                return Err(format!("\"{}\" is there, and was never written", name.escape_ascii()));
            }
        }
        let streams: BTreeSet<usize> = self.keys.iter().map(|key| key.stream).collect();
        for stream in streams {
            self.check_stream(stream, rows, unread, loss)?;
        }
        self.under_way.clear();
        for number in 0..self.keys.len() {
            let found = rows.get(&self.names[number]).map(|value| value[..].into());
            let key = &self.keys[number];
            let versions = if unread.contains(&number) {
                // One of these it is, if it is ever read.
                let left = &key.versions[self.promised(key, loss)..];
                let mut left: Vec<Version> =
                    left.iter().map(|left| Version { ended: None, ..left.as_base() }).collect();
                left[0].ended = Some(0);
                left
            } else {
                vec![base(found)]
            };
            self.keys[number].versions = versions;
            self.keys[number].floor = 0;
        }
        Ok(())
    }

    /// The last version that must be there.
    fn promised(&self, key: &Key, loss: Loss) -> usize {
        let survives = |version: &Version| match loss {
            Loss::Process => version.ended.is_some(),
            Loss::Power(now_ns) => {
                let age_ns = now_ns.saturating_sub(version.ended_ns);
                let was_in_time = |late_ns| age_ns > version.within_ns.saturating_add(late_ns);
                version.ended.is_some()
                    && (version.is_durable || self.late_ns.is_some_and(was_in_time))
            }
        };
        let promised = key.versions.iter().rposition(survives).unwrap_or(0);
        // What a reader found is as safe as what was acknowledged.
        let found = match loss {
            Loss::Process => key.floor,
            Loss::Power(_) => {
                // Of earlier ones nothing is known that nobody acknowledged.
                let is_sure = |i: &usize| {
                    let version = &key.versions[*i];
                    version.is_durable && (version.ended.is_some() || *i == key.floor)
                };
                (0..=key.floor).rev().find(is_sure).unwrap_or(0)
            }
        };
        promised.max(found)
    }

    fn check_stream(
        &self,
        stream: usize,
        rows: &BTreeMap<Vec<u8>, Vec<u8>>,
        unread: &BTreeSet<usize>,
        loss: Loss,
    ) -> Result<(), Wrong> {
        // Of each key, the spans of moments at which it had what was found.
        let mut spans: Vec<(usize, Vec<(Moment, Moment, usize)>)> = Vec::new();
        let is_read = |number: usize, key: &Key| key.stream == stream && !unread.contains(&number);
        for (number, key) in self.keys.iter().enumerate().filter(|(n, key)| is_read(*n, key)) {
            let name = &self.names[number];
            let found = rows.get(name).map(|value| &value[..]);
            let among = self.promised(key, loss)..key.versions.len();
            let candidates = key.candidates(among.clone(), found);
            if candidates.is_empty() {
                return Err(format!(
                    "after {loss:?}, \"{}\": {}",
                    name.escape_ascii(),
                    key.describe(found, &among)
                ));
            }
            let span = |&i: &usize| (key.versions[i].begun, key.gone_at(i), i);
            spans.push((number, candidates.iter().map(span).collect()));
        }
        let holds = |at: Moment, (from, to, _): &(Moment, Moment, usize)| *from <= at && at < *to;
        let mut begins: Vec<Moment> =
            spans.iter().flat_map(|(_, spans)| spans.iter().map(|span| span.0)).collect();
        begins.sort_unstable();
        begins.dedup();
        let earliest = |spans: &Vec<(Moment, Moment, usize)>| spans.iter().map(|s| s.0).min();
        let first = spans.iter().filter_map(|(_, spans)| earliest(spans)).max().unwrap_or(0);
        let is_prefix = begins.iter().any(|&at| {
            at >= first && spans.iter().all(|(_, spans)| spans.iter().any(|span| holds(at, span)))
        });
        if !is_prefix && !spans.is_empty() {
            return Err(format!(
                "after {loss:?}, stream {stream} has no prefix of its history: {}",
                self.contradiction(&spans)
            ));
        }
        let definite = spans.iter().filter(|(_, spans)| spans.len() == 1);
        let definite = definite.map(|(key, spans)| (*key, spans[0].2)).collect();
        // A prefix may end between two writes, and not within one.
        self.check_wholeness(&definite, None, &format!("after {loss:?}"))
    }

    /// Two keys that cannot have been so at one moment, if two are enough.
    fn contradiction(&self, spans: &[(usize, Vec<(Moment, Moment, usize)>)]) -> String {
        let earliest = |(key, spans): &(usize, Vec<(Moment, Moment, usize)>)| {
            (spans.iter().map(|span| span.0).min().unwrap_or(0), *key)
        };
        let latest = |(key, spans): &(usize, Vec<(Moment, Moment, usize)>)| {
            (spans.iter().map(|span| span.1).max().unwrap_or(0), *key)
        };
        let (begun, there) = spans.iter().map(earliest).max().unwrap_or_default();
        let (gone, missing) = spans.iter().map(latest).min().unwrap_or_default();
        format!(
            "what is there of \"{}\" was begun at {begun}, and what is there of \"{}\" was replaced \
             for certain at {gone}",
            self.names[there].escape_ascii(),
            self.names[missing].escape_ascii()
        )
    }
}

fn base(content: Content) -> Version {
    Version {
        content,
        begun: 0,
        ended: Some(0),
        ended_ns: 0,
        is_durable: true,
        within_ns: 0,
        is_refused: false,
        write: 0,
    }
}

#[cfg(test)]
mod tests;
