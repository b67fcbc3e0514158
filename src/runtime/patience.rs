//! How long an owner waits for its worker, and what it does itself meanwhile.
//!
//! A thread of the idle class gets some thousandths of a core while other
//! threads, of whatever process, want all of them. Work that nobody waits for may
//! take its time, but not a hundred times as much: space is to come back, and
//! level 0 to be merged, also on a machine that is always busy. So an owner whose
//! worker does not get on does the work itself, for a tenth of the time, until
//! the worker is heard of again.
//!
//! This is arithmetic alone: [`background`](super::background) says what
//! happened, and does what is said here.

use super::preempt::SLICE_NS;

/// What is judged, and what the owner's share is of.
pub(super) const PERIOD_NS: u64 = 100_000_000;

/// A worker that came by less often, while it had work for a whole period, is
/// starved: with a tenth of a core it comes by ten times, after slices of a
/// millisecond, and mostly after much shorter ones.
const LOOKS_MIN: u64 = 10;

/// The owner's share of a period, in slices.
const SHARE_NS: u64 = PERIOD_NS / 10;

/// A starved worker is called in each period. It gets work again when it came
/// within the period so many times in a row; one that has a core does at once.
const ANSWERS: u32 = 3;

/// Or after so many periods: what it would do with work shows when it has some.
const DOUBTS_MAX: u32 = 20;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Patience {
    /// When this was last looked at, and whether the worker had work from then
    /// on.
    seen_ns: u64,
    has_work: bool,
    mood: Mood,
}

#[derive(Debug)]
enum Mood {
    /// The worker has had work for so long since it had come by so often.
    Trust {
        work_ns: u64,
        looks: u64,
    },
    Doubt(Doubt),
}

#[derive(Debug)]
struct Doubt {
    /// When the period began, and how often the worker had come by then.
    began_ns: u64,
    looks: u64,
    /// What is left of the owner's share.
    left_ns: u64,
    answers: u32,
    periods: u32,
}

impl Patience {
    pub(super) fn new(now_ns: u64) -> Self {
        Self { seen_ns: now_ns, has_work: false, mood: Mood::Trust { work_ns: 0, looks: 0 } }
    }

    /// The worker has come by `looks` times so far. True when it is to be called:
    /// a period began in which it is starved.
    pub(super) fn look(&mut self, now_ns: u64, looks: u64) -> bool {
        let since_ns = now_ns.saturating_sub(self.seen_ns);
        self.seen_ns = now_ns;
        match &mut self.mood {
            Mood::Trust { work_ns, looks: before } => {
                *work_ns += if self.has_work { since_ns } else { 0 };
                if *work_ns < PERIOD_NS {
                    return false;
                }
                let is_starved = looks - *before < LOOKS_MIN;
                self.mood = if is_starved {
                    let left_ns = SHARE_NS;
                    Mood::Doubt(Doubt { began_ns: now_ns, looks, left_ns, answers: 0, periods: 0 })
                } else {
                    Mood::Trust { work_ns: 0, looks }
                };
                is_starved
            }
            Mood::Doubt(doubt) => {
                let period_ns = now_ns.saturating_sub(doubt.began_ns);
                if period_ns < PERIOD_NS {
                    return false;
                }
                // What came later is no answer.
                let has_answered = looks != doubt.looks && period_ns < 2 * PERIOD_NS;
                doubt.answers = if has_answered { doubt.answers + 1 } else { 0 };
                doubt.periods += 1;
                // It has let go of everything: `has_work` says so.
                let is_over = doubt.answers >= ANSWERS || doubt.periods >= DOUBTS_MAX;
                if is_over && !self.has_work {
                    self.mood = Mood::Trust { work_ns: 0, looks };
                    return false;
                }
                (doubt.began_ns, doubt.looks, doubt.left_ns) = (now_ns, looks, SHARE_NS);
                true
            }
        }
    }

    /// Whether the worker has work, which is not recalled for anything else.
    pub(super) fn has_work(&mut self, has_work: bool) {
        self.has_work = has_work;
    }

    /// Whether the worker is to have no work.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.mood, Mood::Doubt(_))
    }

    /// Whether the owner has used up its share.
    pub(super) fn has_done_enough(&self) -> bool {
        matches!(&self.mood, Mood::Doubt(doubt) if doubt.left_ns == 0)
    }

    /// The owner did a slice.
    pub(super) fn did(&mut self, slice_ns: u64) {
        if let Mood::Doubt(doubt) = &mut self.mood {
            // Not what it took because the owner's own core was somebody else's.
            doubt.left_ns = doubt.left_ns.saturating_sub(slice_ns.clamp(1, SLICE_NS));
        }
    }

    /// When to look again at the latest, if there is work that waits for the owner.
    pub(super) fn look_in_ns(&self, owner_has_work: bool) -> Option<u64> {
        let left_ns = match &self.mood {
            Mood::Trust { work_ns, .. } => self.has_work.then(|| PERIOD_NS - work_ns),
            Mood::Doubt(doubt) => {
                let passed_ns = self.seen_ns.saturating_sub(doubt.began_ns);
                (self.has_work || owner_has_work).then(|| PERIOD_NS.saturating_sub(passed_ns))
            }
        };
        left_ns.map(|ns| ns.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_worker_that_comes_by_is_trusted() {
        let mut patience = Patience::new(0);
        // Whole slices with half a core; and long pauses of the owner.
        for turn in 1..1000 {
            patience.has_work(true);
            assert!(!patience.look(turn * 2 * MS, turn) && !patience.is_over());
        }
        assert!(!patience.look(12_000 * MS, 6000) && !patience.is_over());
        // It has nothing to do.
        patience.has_work(false);
        assert_eq!(patience.look_in_ns(true), None);
        assert!(!patience.look(60_000 * MS, 6000) && !patience.is_over());
        // Away for a moment, again and again.
        for turn in 0..10_000 {
            patience.has_work(turn % 2 == 0);
            let came_by = 6001 + turn / 2;
            assert!(!patience.look(60_000 * MS + turn * MS / 10, came_by));
        }
        assert!(!patience.is_over());
    }

    #[test]
    fn an_owner_does_a_tenth_of_the_time_what_a_starved_worker_does_not() {
        let mut patience = Patience::new(0);
        patience.has_work(true);
        assert!(!patience.look(60 * MS, 1));
        assert_eq!(patience.look_in_ns(false), Some(40 * MS));
        assert!(!patience.is_over() && !patience.has_done_enough());
        assert!(patience.look(100 * MS, 3) && patience.is_over());
        // The worker lets go only now.
        assert!(!patience.look(150 * MS, 4));
        patience.has_work(false);
        for _ in 0..99 {
            patience.did(30 * MS);
            assert!(!patience.has_done_enough());
        }
        patience.did(MS / 10);
        assert!(patience.has_done_enough());
        assert_eq!(patience.look_in_ns(false), None);
        assert_eq!(patience.look_in_ns(true), Some(50 * MS));
        assert!(patience.look(200 * MS, 4) && !patience.has_done_enough());
    }

    #[test]
    fn a_worker_that_answers_gets_work_again() {
        let mut patience = Patience::new(0);
        patience.has_work(true);
        assert!(patience.look(100 * MS, 0));
        patience.has_work(false);
        // The third in time; the others come late, or never.
        let answers = [(200, 1), (300, 2), (400, 2), (500, 3), (600, 4), (900, 5), (1000, 6)];
        for (at_ms, looks) in answers {
            assert!(patience.look(at_ms * MS, looks) && patience.is_over());
        }
        assert!(patience.look(1100 * MS, 7));
        // Not while it has something.
        patience.has_work(true);
        assert!(patience.look(1200 * MS, 8) && patience.is_over());
        patience.has_work(false);
        assert!(!patience.look(1300 * MS, 9) && !patience.is_over());
    }

    #[test]
    fn a_worker_that_does_not_answer_is_tried_again() {
        let mut patience = Patience::new(0);
        patience.has_work(true);
        assert!(patience.look(100 * MS, 0));
        patience.has_work(false);
        let period =
            |patience: &mut Patience, period: u64| patience.look((100 + 100 * period) * MS, 0);
        assert!((1..u64::from(DOUBTS_MAX)).all(|number| period(&mut patience, number)));
        assert!(!period(&mut patience, DOUBTS_MAX.into()) && !patience.is_over());
    }
}
