//! Decides when the kernel's own count of kills is read, and reads it. [`crate::accounting::difference`]
//! decides what it means.
//!
//! On a host without kills it is never read. The cgroups' counts are read at the start, and again when kills
//! are missing, lost or marked twice.

use std::{path::PathBuf, time::Instant};

use oomtrace_common::pinned::Pinned;

use crate::{
    accounting::{
        cgroup_counts::CgroupCounts,
        difference::{Difference, EVERY, Reconciler, STAYS},
        kills_by_cgroup::KillsByCgroup,
    },
    cgroups::file_thread::FileThread,
    event::GapCgroup,
    facts::{BootTime, Counters, Lineage},
    host::{clock, identity},
};

/// Compares from time to time.
#[derive(Debug)]
pub(super) struct Reconciliation {
    /// `/proc/vmstat`; `None` where the programs cannot count the same kills as the kernel.
    vmstat: Option<PathBuf>,
    reconciler: Option<Reconciler>,
    /// No kill was missing at the start, so every kill since then is known.
    agreed: bool,
    reported: KillsByCgroup,
    v1: bool,
    cgroups: Option<CgroupCounts>,
    looked: Instant,
    due: Option<Instant>,
}

impl Reconciliation {
    pub(super) fn new(vmstat: Option<PathBuf>, v1: bool) -> Self {
        Self {
            vmstat,
            reconciler: None,
            agreed: false,
            reported: KillsByCgroup::new(!v1, BootTime(0)),
            v1,
            cgroups: None,
            looked: Instant::now(),
            due: None,
        }
    }

    /// Continues an earlier run, or starts now. Kills from before a start do not count.
    pub(super) fn begin<E>(
        &mut self,
        handed_over: Option<&Pinned>,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        let earlier = handed_over.and_then(Reconciler::resume);
        // Both counters must be from one moment, so this is tried again if a kill came in between.
        for _ in 0..8 {
            let before = counters()?.seen_kills();
            let Some(kernel) = self.kernel() else { return Ok(()) };
            self.agreed = earlier.is_none_or(|earlier| earlier.agrees(kernel, before));
            // If no kill is missing, the comparison can also start now.
            self.reconciler = earlier
                .filter(|_| !self.agreed)
                .or_else(|| Some(Reconciler::new(kernel, before, clock::boot_time())));
            if counters()?.seen_kills() == before {
                break;
            }
        }
        if earlier.is_some() {
            self.ask_soon();
        }
        Ok(())
    }

    /// Reads the counts of the cgroups, so that a later gap can name the cgroup. They have no names if a descriptor cannot be made.
    pub(super) fn know_cgroups<E>(
        &mut self,
        mount: PathBuf,
        thread: &FileThread,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        if self.reconciler.is_some() && self.agreed {
            self.reported.restart(clock::boot_time());
            let unplaced = counters()?.unplaced_kills();
            self.cgroups = CgroupCounts::read(thread, mount, self.v1, unplaced).ok();
        }
        Ok(())
    }

    /// Asks for a comparison: in a second, or later if the last one was less than a minute ago.
    pub(super) fn ask_soon(&mut self) {
        if self.due.is_none() && self.reconciler.is_some() {
            let soon = Instant::now().checked_add(STAYS);
            self.due = self.looked.checked_add(EVERY).max(soon);
        }
    }

    /// When to compare.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Counts a reported kill.
    pub(super) fn saw(&mut self, lineage: &Lineage, time: BootTime) {
        self.reported.saw(lineage, time);
    }

    /// Counts a kill whose record could not be read.
    pub(super) fn saw_unreadable(&mut self) {
        self.reported.saw_unreadable();
    }

    /// Compares. A difference that the last comparison found too is a gap.
    pub(super) fn look<E>(
        &mut self,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<Option<(Difference, Vec<GapCgroup>)>, E> {
        self.looked = Instant::now();
        self.due = None;
        // Read the kernel's count first, so that a kill in between does not look like a gap.
        let Some(kernel) = self.kernel() else { return Ok(None) };
        let seen = counters()?.seen_kills();
        let Some(reconciler) = &mut self.reconciler else { return Ok(None) };
        let gap = reconciler.compare(kernel, seen, clock::boot_time());
        let pending = reconciler.is_pending();
        // Taken after the counters, because reading them takes time and the second comparison must not come
        // too soon.
        self.looked = Instant::now();
        if pending {
            self.due = self.looked.checked_add(STAYS);
        }
        let found = self.look_at_cgroups((kernel, seen), gap.is_some(), pending, counters)?;
        Ok(gap.map(|gap| (gap, found)))
    }

    /// In which cgroups the kills of a gap are missing. Keeps the counts that this takes.
    fn look_at_cgroups<E>(
        &mut self,
        (kernel, seen): (u64, u64),
        gap: bool,
        pending: bool,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<Vec<GapCgroup>, E> {
        let Some(cgroups) = &mut self.cgroups else { return Ok(Vec::new()) };
        cgroups.take_in();
        let unplaced = counters()?.unplaced_kills();
        let found = if gap { cgroups.unreported(&self.reported, unplaced) } else { Vec::new() };
        let is_old = self.reported.is_vague() || cgroups.unplaced() != Some(unplaced);
        if gap || (!pending && is_old) {
            // All kills are known from here on, as far as this can be said again.
            self.reported.restart(clock::boot_time());
            if cgroups.restart(unplaced) && !gap {
                self.reconciler = Some(Reconciler::new(kernel, seen, clock::boot_time()));
            }
        }
        if pending {
            cgroups.differ()
        } else {
            cgroups.agree()
        }
        Ok(found)
    }

    fn kernel(&self) -> Option<u64> {
        identity::counter(self.vmstat.as_ref()?, "oom_kill")
    }

    /// Writes the state for the next run.
    pub(super) fn hand_over(&self, value: &mut Pinned) {
        if let Some(reconciler) = self.reconciler {
            reconciler.hand_over(value);
        }
    }
}
