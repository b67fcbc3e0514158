//! First in, first out: nothing is merged, the oldest tables are dropped, and
//! what they held is gone. For data that is worth nothing after some time, such
//! as a cache, or measurements.

use crate::lsm::compaction::bytes;
use crate::lsm::compaction::plan::Plan;
use crate::lsm::levels::Levels;
use crate::lsm::member::Member;

/// Drops what is beyond `bytes_max`, or was written to a table before
/// `written_s_min`.
pub(super) fn pick(
    levels: &Levels,
    bytes_max: Option<u64>,
    written_s_min: Option<u64>,
) -> Option<Plan> {
    // The oldest last. One that is damaged says nothing of its age.
    let mut tables: Vec<(u8, &Member)> = levels.tables().collect();
    tables.sort_by_key(|(level, member)| (*level, std::cmp::Reverse(member.meta().seq_max)));
    let mut all = bytes(tables.iter().map(|(_, member)| *member));
    let mut drops = Vec::new();
    let mut undecided = Vec::new();
    while let Some((level, member)) = tables.pop() {
        let is_beyond = bytes_max.is_some_and(|max| all > max);
        let is_past = match member {
            Member::Sound(table) => {
                written_s_min.is_some_and(|min| table.contents().written_s < min)
            }
            Member::Damaged { .. } => false,
        };
        undecided.push((level, member));
        if is_beyond || is_past {
            // And all that is older.
            for (level, member) in undecided.drain(..) {
                all -= member.meta().file_bytes;
                drops.push((level, member.clone()));
            }
        } else if matches!(member, Member::Sound(_)) {
            break;
        }
    }
    (!drops.is_empty()).then(|| Plan::drop_tables(drops))
}

/// When the newest entry of the oldest table was written.
pub(super) fn oldest_written_s(levels: &Levels) -> Option<u64> {
    let written = levels.tables().filter_map(|(_, member)| match member {
        Member::Sound(table) => Some(table.contents().written_s),
        Member::Damaged { .. } => None,
    });
    written.min()
}
