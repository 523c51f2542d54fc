//! When the kernel's own count of kills is read, and where from. What it means is
//! decided by [`crate::accounting::reconcile`].
//!
//! On a host where nothing happens it is never read; the cgroups' counts are read at the start, and again where
//! kills are missing, or were lost or passed twice.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::DirEntryExt},
    path::{Path, PathBuf},
};

use oomtrace_common::{counter, pinned::Pinned};
use tokio::time::Instant;

use crate::{
    accounting::{
        gap_cgroups::Counts,
        reconcile::{EVERY, Reconciler, STAYS},
    },
    event::{Envelope, Gap},
    facts::CgroupId,
    host::{
        clock::{self, ClockOffset},
        identity,
    },
    run::pipeline::Pipeline,
    sources::probe::{Probe, ProbeError},
};

/// Cgroups whose counts are read: about 10 µs each.
const CGROUPS: usize = 8192;

/// Compares now and then.
pub(crate) struct Reconciliation {
    /// `/proc/vmstat`; `None` where the programs cannot tell what the kernel counts.
    vmstat: Option<PathBuf>,
    reconciler: Option<Reconciler>,
    /// What there was between the start and now is whole: nothing was missing when it began.
    agreed: bool,
    cgroups: Option<Cgroups>,
    looked: Instant,
    due: Option<Instant>,
}

/// The cgroups' own counts.
struct Cgroups {
    mount: PathBuf,
    /// When nothing was missing.
    before: Counts,
    /// When something first was.
    after: Option<Counts>,
    /// Kills of no known cgroup, at `before`.
    unplaced: u64,
}

impl Reconciliation {
    pub(crate) fn new(vmstat: Option<PathBuf>) -> Self {
        let looked = Instant::now();
        Self { vmstat, reconciler: None, agreed: false, cgroups: None, looked, due: None }
    }

    /// Goes on where an earlier run was, or starts from now: kills before that are not this run's.
    pub(crate) fn begin(&mut self, probe: &mut Probe) -> Result<(), ProbeError> {
        let earlier = probe.kept().and_then(|kept| Reconciler::resume(kept.value()));
        // Read at one moment: no kill may come between the two counters.
        for _ in 0..8 {
            let before = seen(probe)?;
            let Some(kernel) = self.kernel() else { return Ok(()) };
            self.agreed = earlier.is_none_or(|earlier| earlier.agrees(kernel, before));
            // Where nothing is missing, it is as good to start from now.
            self.reconciler = earlier
                .filter(|_| !self.agreed)
                .or_else(|| Some(Reconciler::new(kernel, before, clock::boot_time())));
            if seen(probe)? == before {
                break;
            }
        }
        if earlier.is_some() {
            self.something_happened();
        }
        match probe.kept() {
            Some(kept) => kept.keep(|value| self.keep(value)),
            None => Ok(()),
        }
    }

    /// Reads what the cgroups have counted so far, to know later where something was missed.
    pub(crate) fn know_cgroups(
        &mut self,
        mount: &Path,
        probe: &Probe,
        pipeline: &mut Pipeline,
    ) -> Result<(), ProbeError> {
        if self.reconciler.is_some() && self.agreed {
            self.cgroups = Some(Cgroups::read(mount.to_owned(), probe, pipeline)?);
        }
        Ok(())
    }

    /// Asks for a look, soon if there was none lately.
    pub(crate) fn something_happened(&mut self) {
        if self.due.is_none() && self.reconciler.is_some() {
            let soon = Instant::now().checked_add(STAYS);
            self.due = self.looked.checked_add(EVERY).max(soon);
        }
    }

    /// When to look.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks: a difference that was there at the last look too is a gap.
    pub(crate) fn look(
        &mut self,
        probe: &Probe,
        pipeline: &mut Pipeline,
        envelope: Envelope,
    ) -> Result<Option<Gap>, ProbeError> {
        self.looked = Instant::now();
        self.due = None;
        let Some(kernel) = self.kernel() else { return Ok(None) };
        let seen = seen(probe)?;
        let Some(reconciler) = &mut self.reconciler else { return Ok(None) };
        let gap = reconciler.compare(kernel, seen, clock::boot_time());
        // Not before: to read the counters takes a while, and a second look that comes too soon tells nothing.
        self.looked = Instant::now();
        if reconciler.is_pending() {
            self.due = self.looked.checked_add(STAYS);
        }
        let mut found = Vec::new();
        if let Some(cgroups) = &mut self.cgroups {
            if gap.is_some() {
                found = cgroups.unreported(probe, pipeline)?;
                *cgroups = Cgroups::read(std::mem::take(&mut cgroups.mount), probe, pipeline)?;
            } else if !reconciler.is_pending()
                && (pipeline.told().is_vague() || unplaced(probe)? != cgroups.unplaced)
            {
                // Nothing is missing: what is known for sure is known from here on.
                *reconciler = Reconciler::new(kernel, seen, clock::boot_time());
                *cgroups = Cgroups::read(std::mem::take(&mut cgroups.mount), probe, pipeline)?;
            }
            cgroups.after = match reconciler.is_pending() {
                true => cgroups.after.take().or_else(|| Some(counts(&cgroups.mount, pipeline))),
                false => None,
            };
        }
        Ok(gap.map(|gap| Gap {
            envelope,
            kernel_kills: gap.kernel_kills,
            reported: gap.reported,
            since: ClockOffset::sample().rfc3339(gap.since),
            cgroups: found,
            truncated: Vec::new(),
        }))
    }

    fn kernel(&self) -> Option<u64> {
        identity::counter(self.vmstat.as_ref()?, "oom_kill")
    }

    /// Leaves to the next run where this one was.
    pub(crate) fn keep(&self, value: &mut Pinned) {
        if let Some(reconciler) = self.reconciler {
            reconciler.keep(value);
        }
    }
}

impl Cgroups {
    /// From here on.
    fn read(mount: PathBuf, probe: &Probe, pipeline: &mut Pipeline) -> Result<Self, ProbeError> {
        pipeline.told().restart(clock::boot_time());
        let unplaced = unplaced(probe)?;
        Ok(Self { before: counts(&mount, pipeline), mount, after: None, unplaced })
    }

    /// Where something is missing.
    fn unreported(
        &self,
        probe: &Probe,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<crate::event::GapCgroup>, ProbeError> {
        let Some(after) = &self.after else { return Ok(Vec::new()) };
        // Taken back as well as added: what came of it is what counts.
        let unplaced = unplaced(probe)?.wrapping_sub(self.unplaced).cast_signed().max(0);
        Ok(pipeline.told().unreported(&self.before, after, unplaced.cast_unsigned()))
    }
}

/// What the cgroups have counted: on v2 the topmost ones, whose counts hold all below; on v1 those that exist.
fn counts(mount: &Path, pipeline: &mut Pipeline) -> Counts {
    let mut counts = Counts { whole: true, ..Counts::default() };
    let mut read = 0;
    let mut add = |id: u64, path: &[u8], file: &str| {
        if read >= CGROUPS {
            counts.whole = false;
            return;
        }
        read += 1;
        let dir = mount.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
        // One that is gone by now counts nothing more; one without a kill, as most are, takes no memory.
        if let Some(count @ 1..) = identity::counter(&dir.join(file), "oom_kill") {
            counts.of.insert(CgroupId(id), (crate::event::text_from_kernel(path), count));
        }
    };
    if pipeline.enricher().is_v1() {
        for (id, path) in pipeline.enricher().tree().live() {
            add(id.0, &path, "memory.oom_control");
        }
    } else {
        for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = [b"/", entry.file_name().as_bytes()].concat();
                add(entry.ino(), &path, "memory.events");
            }
        }
    }
    counts
}

/// What the programs saw of the kills that the kernel counts.
fn seen(probe: &Probe) -> Result<u64, ProbeError> {
    let counters = probe.counters()?;
    Ok(counters.get(counter::KILLED).wrapping_add(counters.get(counter::REPEATED)))
}

/// Kills that no line says the cgroup of: second passes of group kills, and what was lost.
fn unplaced(probe: &Probe) -> Result<u64, ProbeError> {
    let counters = probe.counters()?;
    let of = [counter::REPEATED, counter::RING_FULL, counter::NO_SCRATCH, counter::TASK_UNKNOWN];
    Ok(of.into_iter().map(|index| counters.get(index)).fold(0, u64::wrapping_add))
}
