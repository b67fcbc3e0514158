//! Identity files and manifests in words.

use crate::base::limits::UNIT_U64;
use crate::format::chain::{Step, Walk};
use crate::format::edit::{self, Edit};
use crate::format::header::Header;
use crate::format::record::{RecordKind, u64_at};
use crate::io::{Dump, File, Halt, Io};
use crate::manifest::{FILE_BYTES_MAX, seed, verify};

/// Tells what each copy of an identity says.
pub(crate) async fn dump_identity<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    len: u64,
) -> Result<(), Halt> {
    for (offset, identity) in verify::copies(&mut dump.inspection, file, len).await? {
        let hash_key = u128::from_be_bytes(identity.hash_key);
        let (db, shards) = (identity.db, identity.shards);
        let text =
            format!("copy at {offset}: database {db:?}, {shards} shards, hash key {hash_key:032x}");
        dump.text(1, &text)?;
    }
    Ok(())
}

/// Tells each record of a manifest, and each edit in it.
pub(crate) async fn dump_manifest<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    len: u64,
    header: &Header,
) -> Result<(), Halt> {
    let stated = match header.extra.len() {
        8 => u64_at(&header.extra, 0),
        _ => {
            dump.inspection.fault(file.path(), 0, "the manifest's header makes no sense")?;
            0
        }
    };
    if stated > 0 {
        dump.text(1, &format!("complete up to offset {stated} when it got its name"))?;
    }
    verify::length(&mut dump.inspection, file.path(), len)?;
    let end = len.min(FILE_BYTES_MAX) / UNIT_U64 * UNIT_U64;
    let bytes = dump.inspection.read_range(file, UNIT_U64..end.max(UNIT_U64)).await?;
    records(dump, file, &bytes, header, stated)
}

fn records<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    bytes: &[u8],
    header: &Header,
    stated: u64,
) -> Result<(), Halt> {
    let path = file.path();
    let (db, id) = (header.db, header.file);
    let mut walk = Walk::new(seed(db, id), id.epoch(), UNIT_U64, u64::MAX);
    walk.feed(UNIT_U64, bytes, |step| match step {
        Step::Record(record) => {
            let (at, mark) = (record.header.position, record.header.mark);
            let what = match record.header.kind {
                RecordKind::Edit => "edits",
                RecordKind::Mark => "mark",
                RecordKind::Write => "writes",
            };
            let len = record.payload.len();
            let text =
                format!("record at offset {at}: {what}, {len} bytes, durable up to {mark} before");
            dump.text(1, &text)?;
            let rest = &bytes[(record.end() - UNIT_U64) as usize..];
            verify::padding(&mut dump.inspection, path, rest, record.end())?;
            match record.header.kind {
                RecordKind::Edit => {}
                RecordKind::Mark => return Ok(()),
                RecordKind::Write => {
                    let reason = "a record of the log in a manifest";
                    return dump.inspection.fault(path, at, reason);
                }
            }
            let edits = edit::decode_all(record.payload);
            let edits = edits.map_err(|unusable| unusable.into_error(path, at));
            for edit in dump.inspection.sound(edits)?.into_iter().flatten() {
                tell(dump, &edit)?;
            }
            Ok(())
        }
        Step::Missing(place) => {
            dump.inspection.fault(path, place.suspect, "records are missing or damaged")
        }
        Step::Unusable(at, unusable) => dump.inspection.error(unusable.into_error(path, at)),
    })?;
    let reached = walk.reached();
    dump.text(1, &format!("the records end at offset {}", reached.end))?;
    let durable = reached.mark_max.max(stated);
    if durable > reached.end {
        let reason = format!(
            "a manifest record is missing or damaged; the manifest was durable up to offset \
             {durable}"
        );
        dump.inspection.fault(path, walk.missing().suspect, reason)?;
    }
    Ok(())
}

/// Tells one edit.
fn tell<I: Io>(dump: &Dump<'_, I>, edit: &Edit) -> Result<(), Halt> {
    let text = match edit {
        Edit::StreamCut { stream, cut } => {
            format!("{stream}: what is at position {cut} and behind it is void")
        }
        Edit::StreamStart { stream, start, flushed } => {
            let shards: String =
                flushed.iter().map(|(shard, seq)| format!(", shard {shard} up to {seq}")).collect();
            let known = if shards.is_empty() { "" } else { "; in tables" };
            format!("{stream}: starts at position {start}{known}{shards}")
        }
        Edit::StreamMap { stream, map } => {
            let dir = map.dir.as_ref().map_or("wal", |dir| &dir.path);
            let boot = u128::from_be_bytes(map.boot);
            format!("{stream}: has the mapping {} in {dir}, of boot {boot:032x}", map.id)
        }
        Edit::MapDir(dir) => {
            let place = u128::from_be_bytes(dir.place);
            format!("mappings may be in {}, their names with {place:032x}", dir.path)
        }
        Edit::StreamFreed { stream } => format!("{stream}: is not needed any more"),
        Edit::Keyspace { id, name } => format!("keyspace {id} is called {name}"),
        Edit::Clean => "the database was closed".to_owned(),
        Edit::Table { level, meta } => {
            let (id, entries, bytes) = (meta.id, meta.entries, meta.file_bytes);
            let (min, max) = (meta.seq_min, meta.seq_max);
            let table = u128::from_be_bytes(meta.table_id);
            format!(
                "level {level} gets table {id} ({table:032x}): {bytes} bytes, {entries} entries, \
                 sequence numbers {min} to {max}"
            )
        }
        Edit::TableRemoved { level, id } => format!("level {level} loses table {id}"),
        Edit::Flushed { seq } => format!("every write up to {seq} is in tables"),
        Edit::ValueFile { id, bytes } => {
            format!("tables refer to {bytes} more bytes of value file {id}")
        }
        Edit::ValuesDropped { first, extents } => {
            let bytes: u128 = extents.iter().map(|extent| u128::from(extent.bytes)).sum();
            let places = extents.len();
            format!(
                "{bytes} bytes in {places} places of value files are dropped, from number {first} on"
            )
        }
        Edit::ValuesReclaimed { below } => {
            format!("what was dropped with numbers below {below} was given back")
        }
    };
    dump.text(2, &text)?;
    if let Edit::Table { meta, .. } = edit {
        dump.key(3, "smallest key", &meta.smallest)?;
        dump.key(3, "largest key", &meta.largest)?;
    }
    Ok(())
}
