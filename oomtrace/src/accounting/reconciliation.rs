//! When the kernel's own count of kills is read, and where from. What it means is
//! decided by [`crate::accounting::difference`].
//!
//! On a host where nothing happens it is never read; the cgroups' counts are read at the start, and again where
//! kills are missing, or were lost or passed twice.

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

/// Cgroups whose counts are read: about 10 µs each.
const CGROUPS: usize = 8192;

/// Compares now and then.
#[derive(Debug)]
pub(super) struct Reconciliation {
    /// `/proc/vmstat`; `None` where the programs cannot tell what the kernel counts.
    vmstat: Option<PathBuf>,
    reconciler: Option<Reconciler>,
    /// Whether nothing was missing when it began: then all there was between the start and now is known.
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
    /// When nothing was missing.
    before: Counts,
    /// When something first was.
    after: Option<Counts>,
    /// Kills of no known cgroup, at `before`.
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

    /// Goes on where an earlier run was, or starts from now: kills before that are not this run's.
    pub(super) fn begin<E>(
        &mut self,
        handed_over: Option<&Pinned>,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        let earlier = handed_over.and_then(Reconciler::resume);
        // Read at one moment: no kill may come between the two counters.
        for _ in 0..8 {
            let before = counters()?.seen_kills();
            let Some(kernel) = self.kernel() else { return Ok(()) };
            self.agreed = earlier.is_none_or(|earlier| earlier.agrees(kernel, before));
            // Where nothing is missing, it is as good to start from now.
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

    /// Reads what the cgroups have counted so far, to know later where something was missed.
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

    /// Asks for a look, soon if there was none lately.
    pub(super) fn ask_soon(&mut self) {
        if self.due.is_none() && self.reconciler.is_some() {
            let soon = Instant::now().checked_add(STAYS);
            self.due = self.looked.checked_add(EVERY).max(soon);
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A kill was reported.
    pub(super) fn saw(&mut self, lineage: &Lineage, time: BootTime) {
        self.reported.saw(lineage, time);
    }

    /// A kill whose record could not be read.
    pub(super) fn saw_unreadable(&mut self) {
        self.reported.saw_unreadable();
    }

    /// Looks: a difference that was there at the last look too is a gap.
    pub(super) fn look<E>(
        &mut self,
        counters: impl Fn() -> Result<Counters, E>,
        tree: &CgroupTree,
    ) -> Result<Option<(Difference, Vec<GapCgroup>)>, E> {
        self.looked = Instant::now();
        self.due = None;
        // The kernel's count first: what is killed in between must not look like a gap.
        let Some(kernel) = self.kernel() else { return Ok(None) };
        let seen = counters()?.seen_kills();
        let Some(reconciler) = &mut self.reconciler else { return Ok(None) };
        let gap = reconciler.compare(kernel, seen, clock::boot_time());
        let pending = reconciler.is_pending();
        // Not before: to read the counters takes a while, and a second look that comes too soon says nothing.
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
            // Nothing is missing: what is known for sure is known from here on.
            self.reconciler = Some(Reconciler::new(kernel, seen, clock::boot_time()));
            self.read_cgroups(mount, tree, &counters)?;
        }
        self.read_after(pending, tree);
        Ok(gap.map(|gap| (gap, found)))
    }

    /// While a difference waits for its second look, the cgroups' counts at the first one are kept.
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

    /// Leaves to the next run where this one was.
    pub(super) fn hand_over(&self, value: &mut Pinned) {
        if let Some(reconciler) = self.reconciler {
            reconciler.hand_over(value);
        }
    }
}

impl Cgroups {
    /// Where something is missing.
    fn unreported(&self, reported: &KillsByCgroup, counters: &Counters) -> Vec<GapCgroup> {
        let Some(after) = &self.after else { return Vec::new() };
        // Taken back as well as added: what came of it is what counts.
        let unplaced = counters.unplaced_kills().wrapping_sub(self.unplaced).cast_signed().max(0);
        reported.unreported(&self.before, after, unplaced.cast_unsigned())
    }
}

/// What the cgroups have counted: on v2 the topmost ones, whose counts hold all below; on v1 those that exist.
fn counts(mount: &Path, v1: bool, tree: &CgroupTree) -> Counts {
    let mut counts = Counts { whole: true, ..Counts::default() };
    let mut read = 0;
    let mut add = |id: CgroupId, path: &[u8]| {
        if read >= CGROUPS {
            counts.whole = false;
            return;
        }
        read += 1;
        // One that is gone by now counts nothing more; one without a kill, as most are, takes no memory.
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
