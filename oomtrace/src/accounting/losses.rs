//! Finds the losses that no line has reported yet, from the kernel side's counters and the holes in `seq`.
//! Pure.

use std::collections::BTreeMap;

use oomtrace_common::{
    counter,
    pinned::{self, Pinned},
};

use crate::{event::LossReason, facts::Counters};

/// Counts what was lost, and how much of it was reported.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    last_seq: u64,
    holes: u64,
    /// Totals by reason, and how much of each was reported.
    known: BTreeMap<LossReason, Tally>,
    /// Losses that an earlier run counted.
    before: u64,
}

/// The reasons, in the order in which they are handed over to the next run.
const HANDED_OVER: [LossReason; 9] = [
    LossReason::RingFull,
    LossReason::CgroupRingFull,
    LossReason::NoScratch,
    LossReason::UnreadableRecord,
    LossReason::Sink,
    LossReason::VerdictQueueFull,
    LossReason::Unexplained,
    LossReason::UnnumberedRingFull,
    LossReason::SignalRingFull,
];

/// The number of entries: the last `seq`, the holes, and two for each reason.
const ENTRIES: usize = 2 + 2 * HANDED_OVER.len();

const _: () = assert!(pinned::LOSSES + ENTRIES <= pinned::CLOCK_OFFSET);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    total: u64,
    reported: u64,
}

impl Losses {
    /// Continues an earlier run: what it reported is not reported again, and what it did not report is not
    /// forgotten.
    pub fn resume(kept: &Pinned) -> Self {
        let at = |index: usize| kept.get(pinned::LOSSES + index).copied().unwrap_or(0);
        let tally = |index: usize| Tally { total: at(index), reported: at(index + 1) };
        let mut losses = Self {
            last_seq: at(0),
            holes: at(1),
            known: HANDED_OVER.into_iter().zip((2..).step_by(2).map(tally)).collect(),
            before: 0,
        };
        losses.before = losses.total_events();
        losses
    }

    /// Writes what the next run needs.
    pub fn hand_over(&self, kept: &mut Pinned) {
        let tallies = HANDED_OVER.iter().flat_map(|reason| {
            let tally = self.known.get(reason).copied().unwrap_or_default();
            [tally.total, tally.reported]
        });
        let values = [self.last_seq, self.holes].into_iter().chain(tallies);
        for (entry, value) in kept.iter_mut().skip(pinned::LOSSES).zip(values) {
            *entry = value;
        }
    }

    /// An event arrived. Each number between it and the last one is a lost event.
    pub fn saw(&mut self, seq: u64) {
        if seq > self.last_seq {
            self.holes += seq - self.last_seq - 1;
            self.last_seq = seq;
        }
    }

    /// Records could not be read. Their numbers will be holes.
    pub fn unreadable(&mut self, count: u64) {
        self.total(LossReason::UnreadableRecord).total += count;
    }

    /// The output refused a line.
    pub fn refused(&mut self) {
        self.total(LossReason::Sink).total += 1;
    }

    /// Cgroups that are not kept, and names that were not read. They belong to this run only and are not
    /// handed over.
    pub fn names(&mut self, cgroups: u64, names: u64) {
        self.total(LossReason::CgroupNotKept).total += cgroups;
        self.total(LossReason::NameNotRead).total += names;
    }

    /// A best-effort output could not take lines: of this run, too.
    pub fn beside(&mut self, reason: LossReason, count: u64) {
        let tally = self.total(reason);
        tally.total = tally.total.saturating_add(count);
    }

    /// A kill will have no verdict.
    pub fn no_verdict(&mut self) {
        self.total(LossReason::VerdictQueueFull).total += 1;
    }

    /// A kill will be in no incident.
    pub fn no_incident(&mut self) {
        self.total(LossReason::IncidentQueueFull).total += 1;
    }

    /// Takes in the kernel side's counters. They must be read after the ring was drained.
    pub fn counted(&mut self, counters: &Counters) {
        for (reason, index) in [
            (LossReason::RingFull, counter::RING_FULL),
            (LossReason::UnnumberedRingFull, counter::UNNUMBERED_RING_FULL),
            (LossReason::NoScratch, counter::NO_SCRATCH),
            (LossReason::CgroupRingFull, counter::CGROUP_RING_FULL),
            (LossReason::SignalRingFull, counter::SIGNAL_RING_FULL),
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

    /// What has not been reported yet.
    pub fn unreported(&self) -> Vec<(LossReason, u64)> {
        self.known
            .iter()
            .map(|(reason, tally)| (*reason, tally.total.saturating_sub(tally.reported)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The total for this reason, reported or not.
    pub fn of(&self, reason: LossReason) -> u64 {
        self.known.get(&reason).map_or(0, |tally| tally.total)
    }

    /// A line reported `count` losses.
    pub fn reported(&mut self, reason: LossReason, count: u64) {
        self.total(reason).reported += count;
    }

    /// Kill events and lines that this run lost. Lost cgroup changes and verdicts are not events.
    pub fn events(&self) -> u64 {
        self.total_events().saturating_sub(self.before)
    }

    fn total_events(&self) -> u64 {
        self.known
            .iter()
            .filter(|(reason, _)| {
                !matches!(
                    reason,
                    LossReason::CgroupRingFull
                        | LossReason::CgroupNotKept
                        | LossReason::NameNotRead
                        | LossReason::VerdictQueueFull
                        | LossReason::IncidentQueueFull
                        | LossReason::Journal
                )
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
        counter(counter::RING_FULL, ring_full)
    }

    fn counter(index: u32, value: u64) -> Counters {
        let mut counters = Counters::default();
        if let Some(counter) = usize::try_from(index).ok().and_then(|index| counters.0.get_mut(index)) {
            *counter = value;
        }
        counters
    }

    #[test]
    fn a_hole_that_the_full_ring_explains_is_reported_once() {
        let mut losses = Losses::default();
        losses.saw(1);
        losses.counted(&counters(3));
        assert_eq!(losses.unreported(), [(LossReason::RingFull, 3)]);
        losses.reported(LossReason::RingFull, 3);
        losses.saw(5);
        losses.counted(&counters(3));
        assert_eq!(losses.unreported(), []);
        assert_eq!(losses.events(), 3);
    }

    #[test]
    fn a_record_without_a_number_explains_no_hole() {
        let mut losses = Losses::default();
        losses.saw(1);
        losses.saw(3);
        losses.counted(&counter(counter::UNNUMBERED_RING_FULL, 2));
        assert_eq!(losses.unreported(), [(LossReason::UnnumberedRingFull, 2), (LossReason::Unexplained, 1)]);
    }

    #[test]
    fn a_hole_that_nothing_explains_is_reported_as_such() {
        let mut losses = Losses::default();
        losses.saw(1);
        losses.saw(4);
        losses.unreadable(1);
        losses.counted(&counters(0));
        assert_eq!(losses.unreported(), [(LossReason::UnreadableRecord, 1), (LossReason::Unexplained, 1)]);
    }

    #[test]
    fn the_next_run_reports_what_this_one_did_not() {
        let mut losses = Losses::default();
        losses.saw(2);
        losses.saw(6);
        losses.counted(&counters(3));
        losses.reported(LossReason::RingFull, 2);
        losses.refused();
        let mut kept = [7; pinned::COUNT];
        losses.hand_over(&mut kept);

        let mut next = Losses::resume(&kept);
        assert_eq!(next.events(), 0);
        // Reported twice: no number is missing between the two runs or after them.
        next.saw(6);
        next.saw(7);
        next.counted(&counters(4));
        assert_eq!(
            next.unreported(),
            [(LossReason::RingFull, 2), (LossReason::Sink, 1), (LossReason::Unexplained, 1)]
        );
        assert_eq!(next.events(), 1);
        assert_eq!(kept.iter().filter(|entry| **entry == 7).count(), pinned::COUNT - ENTRIES);
    }

    #[test]
    fn a_first_event_that_is_not_number_one_is_a_hole() {
        let mut losses = Losses::default();
        losses.saw(3);
        losses.counted(&counters(0));
        assert_eq!(losses.unreported(), [(LossReason::Unexplained, 2)]);
    }

    #[test]
    fn names_that_are_not_known_are_no_lost_events() {
        let mut losses = Losses::default();
        losses.names(3, 0);
        losses.names(0, 2);
        assert_eq!(losses.unreported(), [(LossReason::CgroupNotKept, 3), (LossReason::NameNotRead, 2)]);
        assert_eq!(losses.events(), 0);
    }
}
