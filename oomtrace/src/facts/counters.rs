//! The kernel side's counters.

use oomtrace_common::counter;

/// The kernel side's counters, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; counter::COUNT as usize]);

impl Counters {
    /// One of the constants of [`counter`].
    pub fn get(&self, index: u32) -> u64 {
        usize::try_from(index).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }

    /// How many of the kills that the kernel counts the programs saw.
    pub fn seen_kills(&self) -> u64 {
        self.get(counter::KILLED).wrapping_add(self.get(counter::REPEATED))
    }

    /// Kills whose cgroup no line reports: second passes of group kills, and lost kills.
    pub fn unplaced_kills(&self) -> u64 {
        let of = [counter::REPEATED, counter::RING_FULL, counter::NO_SCRATCH, counter::TASK_UNKNOWN];
        of.into_iter().map(|index| self.get(index)).fold(0, u64::wrapping_add)
    }
}
