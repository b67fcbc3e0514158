//! Log segments and mappings in words.

use crate::base::dumped::DumpDetail;
use crate::base::limits::{UNIT, UNIT_U64};
use crate::base::seq::Tag;
use crate::format::chain::{Step, Walk};
use crate::format::header::{ByteReader, Header};
use crate::format::record::{Record, RecordKind, Unusable, stream_seed, u64_at};
use crate::io::{Dump, File, Halt, Io};
use crate::wal::map::{MapUse, group};
use crate::wal::scan::Stop;
use crate::wal::segment::SegmentUse;

/// Tells each record of a segment.
pub(crate) async fn dump_segment<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    len: u64,
    header: &Header,
) -> Result<(), Halt> {
    let path = file.path();
    let Some(usage) = SegmentUse::decode(&header.extra) else {
        return dump.inspection.fault(path, 0, "the segment's header makes no sense");
    };
    let SegmentUse { stream, start, capacity } = usage;
    dump.text(1, &format!("{stream}: positions {start} to {}", start + capacity))?;
    let want = UNIT_U64 + capacity;
    if len != want {
        let reason = format!("the segment has {len} bytes, and its header says {want}");
        dump.inspection.fault(path, len.min(want), reason)?;
    }
    let end = len.min(want) / UNIT_U64 * UNIT_U64;
    let bytes = dump.inspection.read_range(file, UNIT_U64..end.max(UNIT_U64)).await?;
    let offset = |position: u64| UNIT_U64 + (position - start).min(capacity);
    let seed = stream_seed(header.db, stream.epoch, stream.stream);
    let mut walk = Walk::new(seed, stream.epoch, start, u64::MAX);
    walk.feed(start, &bytes, |step| match step {
        Step::Record(record) => tell(dump, file, &record, offset(record.header.position)),
        Step::Missing(place) => {
            let reason = format!("records from position {} on are missing or damaged", place.from);
            dump.inspection.fault(path, offset(place.suspect), reason)
        }
        Step::Unusable(at, unusable) => {
            dump.inspection.error(unusable.into_error(path, offset(at)))
        }
    })?;
    let reached = walk.reached();
    let (end, mark) = (reached.end, reached.mark_max);
    let at = offset(end);
    dump.text(1, &format!("the records end at position {end}, offset {at}, durable up to {mark}"))?;
    if mark > end {
        dump.inspection.fault(path, at, "more was durable than is there")?;
    }
    Ok(())
}

/// Tells the records in each slot of a mapping.
pub(crate) async fn dump_map<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    len: u64,
    header: &Header,
) -> Result<(), Halt> {
    let path = file.path();
    let Some(MapUse { stream, sizes }) = MapUse::decode(&header.extra) else {
        return dump.inspection.fault(path, 0, "the mapping's header makes no sense");
    };
    dump.text(1, &format!("{stream}: {} slots of {} bytes", sizes.slots, sizes.slot_bytes))?;
    if len != sizes.file_bytes() {
        let reason = format!("the mapping has {len} bytes, and its header says otherwise");
        dump.inspection.fault(path, len.min(sizes.file_bytes()), reason)?;
    }
    if let Some(unit) = dump.inspection.read(file, UNIT_U64, UNIT).await? {
        dump.text(1, &format!("acknowledged up to position {}", u64_at(&unit, 0)))?;
        let rest = ByteReader::new(&unit[8..]).zeroes_to_end();
        dump.inspection.sound(rest.map_err(|error| error.at(path, UNIT_U64 + 8)))?;
    }
    let seed = stream_seed(header.db, stream.epoch, stream.stream);
    for slot in 0..sizes.slots {
        let start = sizes.offset(slot);
        let range = start..start + u64::from(sizes.slot_bytes);
        let bytes = dump.inspection.read_range(file, range).await?;
        let found =
            group(&bytes, seed, stream).map_err(|unusable| unusable.into_error(path, start));
        let Some(found) = dump.inspection.sound(found)? else { continue };
        let Some((position, len)) = found else {
            dump.text(1, &format!("slot {slot} at offset {start}: no records"))?;
            continue;
        };
        dump.text(1, &format!("slot {slot} at offset {start}: {len} bytes of records"))?;
        let mut at = 0;
        while at < len {
            let next = position + at as u64;
            let Ok(Some(record)) = Record::decode(&bytes[at..], seed, stream.epoch, next) else {
                break;
            };
            tell(dump, file, &record, start + at as u64)?;
            at = (record.end() - position) as usize;
        }
    }
    Ok(())
}

/// Tells one record, at `offset` of the file.
fn tell<I: Io>(
    dump: &mut Dump<'_, I>,
    file: &File,
    record: &Record<'_>,
    offset: u64,
) -> Result<(), Halt> {
    let header = &record.header;
    let what = match header.kind {
        RecordKind::Write => format!("writes in {} sections", header.sections),
        RecordKind::Mark => "mark".to_owned(),
        RecordKind::Edit => "edits".to_owned(),
    };
    let (position, end) = (header.position, record.end());
    let (epoch, mark, gap) = (header.epoch, header.mark, header.gap);
    let text = format!(
        "record at offset {offset}: position {position} to {end}, {what}, epoch {epoch}, gap {gap}, \
         durable up to {mark} before"
    );
    dump.text(1, &text)?;
    if header.kind != RecordKind::Write {
        return Ok(());
    }
    // Sections first: of a shard, the writes follow each other.
    let mut sections: Vec<(u16, u32, u64, u64)> = Vec::new();
    let counted = record.for_each_write(|write| {
        match sections.last_mut() {
            Some((shard, keyspace, first, count))
                if (*shard, *keyspace, *first + *count)
                    == (write.shard, write.keyspace, write.seq) =>
            {
                *count += 1;
            }
            _ => sections.push((write.shard, write.keyspace, write.seq, 1)),
        }
        Ok::<_, Unusable>(())
    });
    for (shard, keyspace, first, count) in &sections {
        let last = first + count - 1;
        let text =
            format!("shard {shard}, keyspace {keyspace}: sequence numbers {first} to {last}");
        dump.text(2, &text)?;
    }
    if let Err(unusable) = counted {
        dump.inspection.error(unusable.into_error(file.path(), offset))?;
    }
    if dump.detail < DumpDetail::Entries {
        return Ok(());
    }
    let mut halted = Ok(());
    let told = record.for_each_write(|write| {
        halted = dump.entry(3, Tag::new(write.seq, write.kind), write.key, write.value);
        match halted {
            Ok(()) => Ok(()),
            Err(_) => Err(Stop::Unusable(Unusable::malformed("nobody wants more"))),
        }
    });
    // That it does not end well was said above.
    drop(told);
    halted
}
