//! Who has the turn after whom.

/// The order of `count` contestants in a round, by their numbers. Each is the first in one
/// round of so many, and from round to round comes after another one, as far as that goes:
/// what one leaves behind (dirty pages, a disk that catches its breath) is not always the
/// same other's.
///
/// Contestants are taken in steps that have no divisor in common with `count`, so that all
/// have a turn.
pub(crate) fn order(count: usize, round: u32) -> impl Iterator<Item = usize> {
    let before = (round.max(1) - 1) as usize;
    let steps: Vec<usize> = (1..count.max(2)).filter(|step| divisor(*step, count) == 1).collect();
    let step = steps[before % steps.len()];
    (0..count).map(move |turn| (before + turn * step) % count)
}

/// The greatest that both have in common.
fn divisor(one: usize, other: usize) -> usize {
    if other == 0 { one } else { divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_a_turn_in_each_round() {
        for count in 0..8 {
            for round in 1..10 {
                let mut turns: Vec<usize> = order(count, round).collect();
                turns.sort_unstable();
                assert!(turns.into_iter().eq(0..count), "{count} in round {round}");
            }
        }
    }

    #[test]
    fn nobody_always_follows_the_same() {
        for count in [3, 4, 5, 6, 7] {
            let before = |round, one: usize| {
                let turns: Vec<usize> = order(count, round).collect();
                let place = turns.iter().position(|turn| *turn == one).unwrap();
                place.checked_sub(1).map(|place| turns[place])
            };
            for one in 0..count {
                let all: BTreeSet<usize> = (1..=4).filter_map(|round| before(round, one)).collect();
                assert!(all.len() > 1, "{one} of {count} always follows {all:?}");
            }
        }
        let first = (1..=5).map(|round| order(5, round).next().unwrap());
        assert!(first.eq(0..5));
    }
}
