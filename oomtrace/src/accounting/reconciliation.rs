//! Decides when the kernel's own count of kills is read, and reads it. [`crate::accounting::difference`]
//! decides what it means.
//!
//! On a host without kills it is never read. The cgroups' counts are read at the start, and again when kills
//! are missing, lost or marked twice.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::DirEntryExt},
    path::{Path, PathBuf},
    time::Instant,
};

use oomtrace_common::pinned::Pinned;

use crate::{
    accounting::{
        difference::{Difference, EVERY, Reconciler, STAYS},
        kills_by_cgroup::{Counts, KillsByCgroup},
    },
    cgroups::{memory_files::MemoryFiles, tree::CgroupTree},
    event::{GapCgroup, text_from_kernel},
    facts::{BootTime, CgroupId, Counters, Lineage},
    host::{clock, identity},
};

/// The most cgroups whose counts are read. Each takes about 10 µs.
const CGROUPS: usize = 8192;

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
    cgroups: Option<Cgroups>,
    looked: Instant,
    due: Option<Instant>,
}

/// The cgroups' own counts.
#[derive(Debug)]
struct Cgroups {
    mount: PathBuf,
    /// Counts when no kill was missing.
    before: Counts,
    /// Counts when a kill was first missing.
    after: Option<Counts>,
    /// Kills without a known cgroup, at the time of `before`.
    unplaced: u64,
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

    /// Reads the counts of the cgroups, so that a later gap can name the cgroup.
    pub(super) fn know_cgroups<E>(
        &mut self,
        mount: &Path,
        tree: &CgroupTree,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        match self.reconciler.is_some() && self.agreed {
            true => self.read_cgroups(mount.to_owned(), tree, counters),
            false => Ok(()),
        }
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
        tree: &CgroupTree,
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
        let mut found = Vec::new();
        let Some(cgroups) = &self.cgroups else { return Ok(gap.map(|gap| (gap, found))) };
        let mount = cgroups.mount.clone();
        if gap.is_some() {
            found = cgroups.unreported(&self.reported, &counters()?);
            self.read_cgroups(mount, tree, &counters)?;
        } else if !pending && (self.reported.is_vague() || counters()?.unplaced_kills() != cgroups.unplaced) {
            // No kill is missing, so this is a new point from which all kills are known.
            self.reconciler = Some(Reconciler::new(kernel, seen, clock::boot_time()));
            self.read_cgroups(mount, tree, &counters)?;
        }
        self.read_after(pending, tree);
        Ok(gap.map(|gap| (gap, found)))
    }

    /// While a difference waits for its second comparison, keep the cgroups' counts of the first one.
    fn read_after(&mut self, pending: bool, tree: &CgroupTree) {
        let v1 = self.v1;
        if let Some(cgroups) = &mut self.cgroups {
            cgroups.after = match pending {
                true => cgroups.after.take().or_else(|| Some(counts(&cgroups.mount, v1, tree))),
                false => None,
            };
        }
    }

    fn read_cgroups<E>(
        &mut self,
        mount: PathBuf,
        tree: &CgroupTree,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        self.reported.restart(clock::boot_time());
        let unplaced = counters()?.unplaced_kills();
        let before = counts(&mount, self.v1, tree);
        self.cgroups = Some(Cgroups { before, mount, after: None, unplaced });
        Ok(())
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

impl Cgroups {
    /// The cgroups in which kills are missing.
    fn unreported(&self, reported: &KillsByCgroup, counters: &Counters) -> Vec<GapCgroup> {
        let Some(after) = &self.after else { return Vec::new() };
        // A kill can be added here and taken back later. Only the sum counts.
        let unplaced = counters.unplaced_kills().wrapping_sub(self.unplaced).cast_signed().max(0);
        reported.unreported(&self.before, after, unplaced.cast_unsigned())
    }
}

/// The counts of the cgroups: on v2 of the topmost ones, which include all below; on v1 of each existing
/// cgroup.
fn counts(mount: &Path, v1: bool, tree: &CgroupTree) -> Counts {
    let mut counts = Counts { whole: true, ..Counts::default() };
    let mut read = 0;
    let mut add = |id: CgroupId, path: &[u8]| {
        if read >= CGROUPS {
            counts.whole = false;
            return;
        }
        read += 1;
        // A cgroup that is gone counts no more kills. Counts of zero, the most common, are not stored.
        if let Some(count @ 1..) = MemoryFiles::of(mount, path, v1).oom_kills() {
            counts.of.insert(id, (text_from_kernel(path), count));
        }
    };
    if v1 {
        for (id, path) in tree.live() {
            add(id, &path);
        }
    } else {
        for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = [b"/", entry.file_name().as_bytes()].concat();
                add(CgroupId(entry.ino()), &path);
            }
        }
    }
    counts
}
