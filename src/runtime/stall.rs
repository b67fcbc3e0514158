//! The stall detector: which tasks hold up their owner.

/// A poll that takes longer holds up everything else on the owner by more than
/// a device would.
pub(super) const STALL_NS: u64 = 1_000_000;

/// Reports are at least this far apart.
const REPORT_GAP_NS: u64 = 1_000_000_000;

const _: () = assert!(STALL_NS > super::preempt::SLICE_NS, "a full slice is no stall");

/// Chooses the stalls that are reported.
#[derive(Default)]
pub(super) struct Stalls {
    reported_ns: Option<u64>,
    suppressed: u64,
}

impl Stalls {
    /// A stall that ended at `now_ns`. Whether it is to be reported, and then
    /// how many others were not since the last report.
    pub(super) fn observe(&mut self, now_ns: u64) -> Option<u64> {
        if let Some(reported_ns) = self.reported_ns
            && now_ns.saturating_sub(reported_ns) < REPORT_GAP_NS
        {
            self.suppressed += 1;
            return None;
        }
        self.reported_ns = Some(now_ns);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_a_second() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.observe(5), Some(0));
        assert_eq!(stalls.observe(6), None);
        assert_eq!(stalls.observe(4 + REPORT_GAP_NS), None);
        assert_eq!(stalls.observe(5 + REPORT_GAP_NS), Some(2));
        assert_eq!(stalls.observe(5 + 2 * REPORT_GAP_NS), Some(0));
    }
}
