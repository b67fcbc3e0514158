//! Makes a seed that fails smaller: leaves out whatever it fails without, and
//! looks for fewer operations. What it fails with may change on the way.

use crate::manner::{Manner, Without};

/// The least that was found with which it still fails.
pub(crate) fn shrink(
    manner: &Manner,
    everything: &[Without],
    fails: impl Fn(&Manner) -> bool,
) -> Manner {
    let mut least = manner.clone();
    for &what in everything {
        if !least.without.contains(&what) {
            let mut less = least.clone();
            less.without.push(what);
            if fails(&less) {
                least = less;
            }
        }
    }
    // More operations need not fail where fewer do: what is found is not the least for
    // certain.
    let (mut passes, mut step) = (0, least.operations / 2);
    while step > 0 {
        let less = Manner { operations: least.operations - step, ..least.clone() };
        if less.operations > passes && fails(&less) {
            least = less;
        } else {
            passes = passes.max(less.operations);
        }
        step = (least.operations - passes) / 2;
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_takes_to_fail_is_left() {
        let everything = [Without::Delay, Without::Scan, Without::Crash, Without::Vary];
        let manner = Manner { operations: 2000, without: vec![Without::Delay] };
        let fails = |m: &Manner| m.operations >= 37 && !m.without.contains(&Without::Crash);
        let least = shrink(&manner, &everything, fails);
        assert_eq!(least.operations, 37);
        assert_eq!(least.without, [Without::Delay, Without::Scan, Without::Vary]);
        // With one that always fails.
        assert_eq!(shrink(&manner, &[], |_| true).operations, 1);
    }
}
