//! When the kernel's own count of kills is read, and where from. What it means is
//! decided by [`crate::reconcile`].
//!
//! On a host where nothing happens it is never read.

use std::{fs, path::PathBuf};

use oomtrace_common::counter;
use tokio::time::Instant;

use crate::{
    enrich::clock::{self, ClockOffset},
    event::{Envelope, Gap},
    probe::{Probe, ProbeError},
    reconcile::{EVERY, Reconciler, STAYS, kernel_kills},
};

/// Compares now and then.
pub(super) struct Reconciliation {
    /// `/proc/vmstat`; `None` where the programs cannot tell what the kernel counts.
    vmstat: Option<PathBuf>,
    reconciler: Option<Reconciler>,
    looked: Instant,
    due: Option<Instant>,
}

impl Reconciliation {
    pub(super) fn new(vmstat: Option<PathBuf>) -> Self {
        Self { vmstat, reconciler: None, looked: Instant::now(), due: None }
    }

    /// Goes on where an earlier run was, or starts from now: kills before that are not this run's.
    pub(super) fn begin(&mut self, probe: &mut Probe) -> Result<(), ProbeError> {
        self.reconciler = probe.kept().and_then(|kept| Reconciler::resume(kept.value()));
        if self.reconciler.is_some() {
            self.something_happened();
            return Ok(());
        }
        // Read at one moment: no kill may come between the two counters.
        for _ in 0..8 {
            let before = seen(probe)?;
            let Some(kernel) = self.kernel() else { return Ok(()) };
            self.reconciler = Some(Reconciler::new(kernel, before, clock::boot_time()));
            if seen(probe)? == before {
                break;
            }
        }
        self.keep(probe)
    }

    /// Asks for a look, soon if there was none lately.
    pub(super) fn something_happened(&mut self) {
        if self.due.is_none() && self.reconciler.is_some() {
            let soon = Instant::now().checked_add(STAYS);
            self.due = self.looked.checked_add(EVERY).max(soon);
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks: a difference that was there at the last look too is a gap.
    pub(super) fn look(&mut self, probe: &mut Probe, envelope: Envelope) -> Result<Option<Gap>, ProbeError> {
        self.looked = Instant::now();
        self.due = None;
        let Some(kernel) = self.kernel() else { return Ok(None) };
        let seen = seen(probe)?;
        let Some(reconciler) = &mut self.reconciler else { return Ok(None) };
        let gap = reconciler.compare(kernel, seen, clock::boot_time());
        if reconciler.is_pending() {
            self.due = self.looked.checked_add(STAYS);
        }
        self.keep(probe)?;
        Ok(gap.map(|gap| Gap {
            envelope,
            kernel_kills: gap.kernel_kills,
            reported: gap.reported,
            since: ClockOffset::sample().rfc3339(gap.since),
            truncated: Vec::new(),
        }))
    }

    fn kernel(&self) -> Option<u64> {
        kernel_kills(&fs::read_to_string(self.vmstat.as_ref()?).ok()?)
    }

    fn keep(&self, probe: &mut Probe) -> Result<(), ProbeError> {
        match (probe.kept(), self.reconciler) {
            (Some(kept), Some(reconciler)) => kept.keep(|value| reconciler.keep(value)),
            _ => Ok(()),
        }
    }
}

/// What the programs saw of the kills that the kernel counts.
fn seen(probe: &Probe) -> Result<u64, ProbeError> {
    let counters = probe.counters()?;
    Ok(counters.get(counter::KILLED).wrapping_add(counters.get(counter::REPEATED)))
}
