//! Is awake before the record of a kill is there.
//!
//! A function hook wakes this source when the OOM killer is entered. The source then looks at the ring of kills
//! all the time, for some milliseconds at most, and the kill's record needs no wakeup. It is the only source that
//! waits.

use std::{
    os::fd::{AsFd, BorrowedFd},
    thread::available_parallelism,
};

use rustix::thread::sched_getcpu;

use crate::{
    accounting::Account,
    enrich::enricher::Enricher,
    facts::BootTime,
    host::clock::boot_time,
    sources::{Rank, Source, probe::Early},
};

/// How long the ring is looked at after the OOM killer was entered.
const AT_MOST_NS: u64 = 3_000_000;

/// What a wakeup costs by itself: at most 150 in a second are wanted for long, also if there is always something in the ring,
/// because the output takes no lines.
const WAKEUP_NS: u64 = 100_000;

/// Wakes up early.
pub struct EarlyWakeup {
    early: Early,
    allowance: Allowance,
}

impl EarlyWakeup {
    /// `None` if this process has no second processor: the OOM killer would wait for it.
    pub fn of(early: Early) -> Option<Self> {
        let several = available_parallelism().is_ok_and(|processors| processors.get() > 1);
        several.then(|| Self { early, allowance: Allowance::full(boot_time().0) })
    }

    /// Looks at the ring until there is something, `end` has come, or it is in the way. Returns for how long.
    fn watch(&self, began: u64, end: u64, in_the_way: impl Fn() -> bool) -> u64 {
        let mut now = began;
        self.early.watch(|| {
            now = boot_time().0;
            now >= end || in_the_way()
        });
        now.saturating_sub(began)
    }
}

impl Source for EarlyWakeup {
    fn rank(&self) -> Rank {
        Rank::BeforeFirst
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.early.as_fd())
    }

    fn learn(&mut self, _: &mut Enricher, _: &mut Account) -> bool {
        let Some(wakeup) = self.early.taken() else { return false };
        let now = boot_time().0;
        if wakeup.entered_ns != 0 && self.allowance.is_enough(now) {
            let end = end_of(wakeup.entered_ns, now);
            // With a real-time priority this process would keep the OOM killer from the processor that both use. The kernel
            // may move this process there at any time.
            let in_the_way = || usize::try_from(wakeup.cpu).is_ok_and(|cpu| cpu == sched_getcpu());
            // A wakeup that cannot help costs as much as one that did not help.
            let spent =
                if in_the_way() || now >= end { AT_MOST_NS } else { self.watch(now, end, in_the_way) };
            self.allowance.spend(spent.max(WAKEUP_NS));
        }
        // Also if this was said before: the programs write the time too.
        if let Some(enough_at) = self.allowance.too_little_until() {
            self.early.not_before(BootTime(enough_at));
        }
        // The kills must be asked once more before the loop sleeps.
        true
    }
}

/// When to stop looking. In a time namespace this process's clock may be behind the kernel's.
fn end_of(entered_ns: u64, now_ns: u64) -> u64 {
    entered_ns.min(now_ns).saturating_add(AT_MOST_NS)
}

/// How long the ring may be looked at: at most 30 ms in any second, half of which may come at once. The OOM killer may be
/// entered for ever, where nobody may be killed.
struct Allowance {
    left_ns: u64,
    at_ns: u64,
}

impl Allowance {
    /// What may come at once, and what is added in a second.
    const SHARE_NS: u64 = 15_000_000;
    /// In this time 1 ns is added.
    const STEP_NS: u64 = 1_000_000_000_u64.div_ceil(Self::SHARE_NS);

    fn full(now_ns: u64) -> Self {
        Self { left_ns: Self::SHARE_NS, at_ns: now_ns }
    }

    /// Whether the ring may be looked at now, for the longest time.
    fn is_enough(&mut self, now_ns: u64) -> bool {
        let added = now_ns.saturating_sub(self.at_ns) / Self::STEP_NS;
        self.left_ns = self.left_ns.saturating_add(added).min(Self::SHARE_NS);
        self.at_ns = now_ns;
        self.left_ns >= AT_MOST_NS
    }

    fn spend(&mut self, spent_ns: u64) {
        self.left_ns = self.left_ns.saturating_sub(spent_ns);
    }

    /// From when on it is enough, if it is not now.
    fn too_little_until(&self) -> Option<u64> {
        let lacks = AT_MOST_NS.checked_sub(self.left_ns).filter(|lacks| *lacks > 0)?;
        Some(self.at_ns.saturating_add(lacks.saturating_mul(Self::STEP_NS)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const MOST_NS: u64 = 30_000_000;

    proptest! {
        /// Each wakeup comes some time after the last, and is for a kill that comes some time later, or never.
        #[test]
        fn in_no_second_it_looks_for_more_than_30_ms(
            wakeups in prop::collection::vec((0..40_000_000u64, 0..2 * AT_MOST_NS), 1..400),
        ) {
            let mut allowance = Allowance::full(0);
            let mut looked: Vec<(u64, u64)> = Vec::new();
            let mut now = 0;
            for (after, kill) in wakeups {
                now += after;
                if allowance.is_enough(now) {
                    let spent = kill.min(AT_MOST_NS);
                    looked.push((now, spent));
                    allowance.spend(spent);
                    now += spent;
                }
            }
            for (from, _) in &looked {
                let in_second = looked.iter().filter(|(at, _)| (*from..from + SECOND_NS).contains(at));
                prop_assert!(in_second.map(|(_, spent)| spent).sum::<u64>() <= MOST_NS);
            }
        }
    }

    #[test]
    fn after_many_wakeups_for_nothing_it_wants_none_until_it_may_look_again() {
        let mut allowance = Allowance::full(0);
        let mut looked = 0;
        while allowance.is_enough(looked) {
            allowance.spend(AT_MOST_NS);
            looked += 1;
        }
        assert_eq!(looked, 5);
        let at = allowance.too_little_until().unwrap_or_default();
        assert!(at > SECOND_NS / 10 && at < SECOND_NS / 4, "{at}");
        assert!(!allowance.is_enough(at - SECOND_NS / 100));
        assert!(allowance.is_enough(at + 100));
        assert_eq!(allowance.too_little_until(), None);
        // A kill that came soon costs little.
        allowance.spend(100_000);
        let next = allowance.too_little_until().unwrap_or_default();
        assert!(next > at && next < at + SECOND_NS / 100, "{at} {next}");
    }

    #[test]
    fn a_clock_that_is_behind_the_kernels_makes_it_look_no_longer() {
        assert_eq!(end_of(5_000_000, 6_000_000), 5_000_000 + AT_MOST_NS);
        assert_eq!(end_of(3600 * SECOND_NS, 6_000_000), 6_000_000 + AT_MOST_NS);
    }
}
