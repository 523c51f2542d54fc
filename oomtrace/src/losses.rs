//! What could not be told: the kernel side's counters and the holes in `seq` in, the losses
//! that have not been told yet out. Pure.

use std::collections::BTreeMap;

use oomtrace_common::counter;

use crate::event::LossReason;

/// The kernel side's counters, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; counter::COUNT as usize]);

impl Counters {
    /// One of the constants of [`counter`].
    pub fn get(&self, index: u32) -> u64 {
        usize::try_from(index).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }
}

/// Counts what was lost, and what of it was told.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    last_seq: u64,
    holes: u64,
    /// Totals by reason, and how much of each was told.
    known: BTreeMap<LossReason, Tally>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    total: u64,
    told: u64,
}

impl Losses {
    /// An event came. Each number between it and the last one is an event that did not.
    pub fn saw(&mut self, seq: u64) {
        if seq > self.last_seq {
            self.holes += seq - self.last_seq - 1;
            self.last_seq = seq;
        }
    }

    /// A record could not be read: its number is a hole.
    pub fn unreadable(&mut self) {
        self.total(LossReason::UnreadableRecord).total += 1;
    }

    /// The output refused a line.
    pub fn refused(&mut self) {
        self.total(LossReason::Sink).total += 1;
    }

    /// A kill will have no verdict.
    pub fn no_verdict(&mut self) {
        self.total(LossReason::VerdictQueueFull).total += 1;
    }

    /// The kernel side's counters, read after the ring was drained.
    pub fn counted(&mut self, counters: &Counters) {
        for (reason, index) in [
            (LossReason::RingFull, counter::RING_FULL),
            (LossReason::NoScratch, counter::NO_SCRATCH),
            (LossReason::CgroupRingFull, counter::CGROUP_RING_FULL),
        ] {
            self.total(reason).total = counters.get(index);
        }
        let explained: u64 = [LossReason::RingFull, LossReason::NoScratch, LossReason::UnreadableRecord]
            .into_iter()
            .map(|reason| self.total(reason).total)
            .sum();
        let unexplained = self.holes.saturating_sub(explained);
        let tally = self.total(LossReason::Unexplained);
        tally.total = tally.total.max(unexplained);
    }

    /// What has not been told yet.
    pub fn untold(&self) -> Vec<(LossReason, u64)> {
        self.known
            .iter()
            .map(|(reason, tally)| (*reason, tally.total.saturating_sub(tally.told)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// A line told of `count` losses.
    pub fn told(&mut self, reason: LossReason, count: u64) {
        self.total(reason).told += count;
    }

    /// Kill events and lines lost in all; cgroup changes cost names, verdicts are no events.
    pub fn events(&self) -> u64 {
        self.known
            .iter()
            .filter(|(reason, _)| {
                !matches!(reason, LossReason::CgroupRingFull | LossReason::VerdictQueueFull)
            })
            .map(|(_, t)| t.total)
            .sum()
    }

    fn total(&mut self, reason: LossReason) -> &mut Tally {
        self.known.entry(reason).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(ring_full: u64) -> Counters {
        let mut counters = Counters::default();
        if let Some(value) = counters.0.get_mut(1) {
            *value = ring_full;
        }
        counters
    }

    #[test]
    fn a_hole_that_the_full_ring_explains_is_told_once() {
        let mut losses = Losses::default();
        losses.saw(1);
        losses.counted(&counters(3));
        assert_eq!(losses.untold(), [(LossReason::RingFull, 3)]);
        losses.told(LossReason::RingFull, 3);
        losses.saw(5);
        losses.counted(&counters(3));
        assert_eq!(losses.untold(), []);
        assert_eq!(losses.events(), 3);
    }

    #[test]
    fn a_hole_that_nothing_explains_is_told_as_such() {
        let mut losses = Losses::default();
        losses.saw(1);
        losses.saw(4);
        losses.unreadable();
        losses.counted(&counters(0));
        assert_eq!(losses.untold(), [(LossReason::UnreadableRecord, 1), (LossReason::Unexplained, 1)]);
    }

    #[test]
    fn a_first_event_that_is_not_number_one_is_a_hole() {
        let mut losses = Losses::default();
        losses.saw(3);
        losses.counted(&counters(0));
        assert_eq!(losses.untold(), [(LossReason::Unexplained, 2)]);
    }
}
