//! How much of a shard's tables nobody can read any more: an estimate, from what
//! the tables say of themselves.

use crate::base::ranges::{RangeTombstones, is_before};
use crate::lsm::levels::Levels;
use crate::lsm::member::Member;

/// Bytes of table files that merging everything would free, about.
///
/// In entries: tombstones; what older tables have under their keys, and under
/// those of newer versions, as their writers estimated (`Contents::hidden`); and
/// versions that were kept for snapshots (`Contents::old_versions`). Each is
/// taken to be as long as the shard's average entry. What only range tombstones
/// cover, and damaged tables, count as used.
pub(crate) fn garbage_bytes(levels: &Levels) -> u64 {
    let (mut bytes, mut entries, mut garbage) = (0, 0, 0);
    for (_, member) in levels.tables() {
        if let Member::Sound(table) = member {
            let contents = table.contents();
            bytes += table.meta().file_bytes;
            entries += table.meta().entries;
            // Each tombstone is there since it hides something.
            let hidden = contents.hidden.max(contents.tombstones);
            garbage += hidden + contents.tombstones + contents.old_versions;
        }
    }
    let share = u128::from(bytes) * u128::from(garbage.min(entries));
    share.checked_div(u128::from(entries)).unwrap_or(0) as u64
}

/// Bytes of blocks of these tables, all of them older, that range tombstones cover,
/// about. Damaged tables count as not covered.
pub(crate) fn covered_bytes<'a>(
    ranges: &RangeTombstones,
    older: impl IntoIterator<Item = &'a Member>,
) -> u64 {
    let fragments = ranges.fragments();
    let mut covered = 0;
    for member in older {
        let Member::Sound(table) = member else { continue };
        let meta = table.meta();
        let first = fragments.partition_point(|f| !is_before(&meta.smallest, &f.end));
        for fragment in fragments[first..].iter().take_while(|f| *f.start <= *meta.largest) {
            covered += table.bytes_between(&fragment.start, &fragment.end);
        }
    }
    covered
}

/// Bytes of blocks of a shard's tables that range tombstones of newer ones cover,
/// about. Those under several may count for each.
pub(crate) fn covered_in(levels: &Levels) -> u64 {
    if levels.tables().all(|(_, member)| member.ranges().is_none()) {
        return 0;
    }
    let members: Vec<(u8, &Member)> = levels.tables().collect();
    let mut covered = 0;
    for (at, (level, member)) in members.iter().enumerate() {
        let Some(ranges) = member.ranges() else { continue };
        // Level 0 is in the order of age.
        let is_older = |(other, _): &&(u8, &Member)| *other > *level || *level == 0;
        let older = members[at + 1..].iter().filter(is_older).map(|(_, member)| *member);
        covered += covered_bytes(ranges, older);
    }
    covered
}
