//! Compares the kernel's own count of kills with what the programs saw. Pure.
//!
//! The kernel counts a kill a moment before it marks the victim. So a difference counts only if a second
//! comparison finds it again.

use std::time::Duration;

use oomtrace_common::pinned::{self, Pinned};

use crate::facts::BootTime;

/// How long a difference must last.
pub const STAYS: Duration = Duration::from_secs(1);
/// How often the counters are compared at the most while they agree.
pub const EVERY: Duration = Duration::from_secs(60);

/// The kernel counted more kills than the programs saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How many kills the kernel counted.
    pub kernel_kills: u64,
    /// How many of them the programs saw.
    pub reported: u64,
    /// The start of the time that both numbers cover.
    pub since: BootTime,
}

/// Compares the kernel's count with the programs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciler {
    kernel: u64,
    seen: u64,
    since: BootTime,
    /// A difference that was seen once, and when.
    pending: Option<(BootTime, i64)>,
}

impl Reconciler {
    /// Starts now, from two counters that were read at one moment.
    pub fn new(kernel: u64, seen: u64, now: BootTime) -> Self {
        Self { kernel, seen, since: now, pending: None }
    }

    /// Continues an earlier run; `None` if it left nothing.
    pub fn resume(kept: &Pinned) -> Option<Self> {
        let at = |index: usize| kept.get(index).copied().unwrap_or(0);
        let since = BootTime(at(pinned::SINCE));
        (since.0 != 0).then(|| Self::new(at(pinned::KERNEL_KILLS), at(pinned::SEEN), since))
    }

    /// Whether the programs saw every kill that the kernel counted.
    pub fn agrees(&self, kernel: u64, seen: u64) -> bool {
        kernel.wrapping_sub(self.kernel) == seen.wrapping_sub(self.seen)
    }

    /// Writes what the next run needs.
    pub fn hand_over(&self, kept: &mut Pinned) {
        let values =
            [(pinned::KERNEL_KILLS, self.kernel), (pinned::SEEN, self.seen), (pinned::SINCE, self.since.0)];
        for (index, value) in values {
            if let Some(entry) = kept.get_mut(index) {
                *entry = value;
            }
        }
    }

    /// Compares the counters as they are now.
    pub fn compare(&mut self, kernel: u64, seen: u64, now: BootTime) -> Option<Difference> {
        let grown = kernel.wrapping_sub(self.kernel);
        let reported = seen.wrapping_sub(self.seen);
        // Wrapping: if the programs saw more than the kernel counted, the difference is negative, not huge.
        let difference = grown.wrapping_sub(reported).cast_signed();
        let before = self.pending.take().filter(|(_, before)| before.signum() == difference.signum());
        match before {
            _ if difference == 0 => None,
            Some((first, before)) if Duration::from_nanos(now.0.saturating_sub(first.0)) >= STAYS => {
                // What is new since the first comparison must also be seen twice.
                let staying = if difference > 0 { before.min(difference) } else { before.max(difference) };
                let rest = difference.wrapping_sub(staying);
                let found = Difference {
                    kernel_kills: grown.wrapping_sub(rest.cast_unsigned()),
                    reported,
                    since: self.since,
                };
                self.kernel = kernel.wrapping_sub(rest.cast_unsigned());
                self.seen = seen;
                self.pending = (rest != 0).then_some((now, rest));
                // More seen than counted is no gap. It is taken into account so that it does not hide the
                // next gap.
                if staying < 0 {
                    return None;
                }
                self.since = now;
                Some(found)
            }
            before => {
                self.pending = Some(before.unwrap_or((now, difference)));
                None
            }
        }
    }

    /// Whether a difference waits for its second comparison.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> BootTime {
        BootTime(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn counters_that_agree_are_no_gap() {
        let mut reconciler = Reconciler::new(100, 7, at(0));
        assert_eq!(reconciler.compare(103, 10, at(2000)), None);
        assert_eq!(reconciler.compare(103, 10, at(4000)), None);
        assert!(!reconciler.is_pending());
    }

    #[test]
    fn a_kill_whose_mark_comes_a_moment_later_is_no_gap() {
        let mut reconciler = Reconciler::new(100, 0, at(0));
        assert_eq!(reconciler.compare(101, 0, at(10)), None);
        assert!(reconciler.is_pending());
        assert_eq!(reconciler.compare(101, 1, at(2000)), None);
        assert!(!reconciler.is_pending());
    }

    #[test]
    fn a_difference_that_stays_is_reported_once() {
        let mut reconciler = Reconciler::new(100, 0, at(0));
        assert_eq!(reconciler.compare(105, 3, at(10)), None);
        assert_eq!(reconciler.compare(105, 3, at(500)), None);
        let gap = Difference { kernel_kills: 5, reported: 3, since: at(0) };
        assert_eq!(reconciler.compare(105, 3, at(1010)), Some(gap));
        assert_eq!(reconciler.compare(106, 4, at(5000)), None);
        assert_eq!(reconciler.compare(108, 4, at(6000)), None);
        let gap = Difference { kernel_kills: 3, reported: 1, since: at(1010) };
        assert_eq!(reconciler.compare(108, 4, at(7000)), Some(gap));
    }

    #[test]
    fn what_is_new_at_the_second_look_waits_for_a_third() {
        let mut reconciler = Reconciler::new(0, 0, at(0));
        assert_eq!(reconciler.compare(1, 0, at(0)), None);
        let gap = Difference { kernel_kills: 1, reported: 0, since: at(0) };
        assert_eq!(reconciler.compare(3, 0, at(1000)), Some(gap));
        assert_eq!(reconciler.compare(3, 2, at(1100)), None);
        assert!(!reconciler.is_pending());
    }

    #[test]
    fn more_seen_than_counted_does_not_hide_the_next_gap() {
        let mut reconciler = Reconciler::new(0, 0, at(0));
        assert_eq!(reconciler.compare(0, 1, at(0)), None);
        assert_eq!(reconciler.compare(0, 1, at(1000)), None);
        assert_eq!(reconciler.compare(1, 1, at(2000)), None);
        let gap = Difference { kernel_kills: 1, reported: 0, since: at(0) };
        assert_eq!(reconciler.compare(1, 1, at(3000)), Some(gap));
    }

    #[test]
    fn the_next_run_goes_on_where_this_one_was() {
        let mut kept = [0; pinned::COUNT];
        assert_eq!(Reconciler::resume(&kept), None);
        let reconciler = Reconciler::new(9, 8, at(0));
        reconciler.hand_over(&mut kept);
        assert_eq!(Reconciler::resume(&kept), Some(reconciler));
    }
}
