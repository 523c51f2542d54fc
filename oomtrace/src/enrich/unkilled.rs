//! Memory cgroups that ran out without a kill, where no function hook tells: found in their files.
//!
//! In: the cgroups that exist. Out: those whose own limit was hit since the last look while nobody in them
//! or below was killed (cgroup v2), and those whose tasks hang because kills are disabled (v1). Asked after an
//! event, it reads of a bounded number of cgroups, one after the other; it waits for nothing.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::tree::CgroupTree;
use crate::decode::CgroupId;

/// Cgroups looked at after one event: a few milliseconds.
const AT_A_TIME: usize = 256;

/// Cgroups that are looked at before the first event; of others the first look is where counting starts.
const AT_START: usize = 4096;

/// A kill is counted a moment after the limit was: only when this has passed was there none.
const SETTLED: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unkilled {
    /// The cgroup.
    pub id: CgroupId,
    /// Its path.
    pub path: Vec<u8>,
    /// Its limit, bytes.
    pub limit_bytes: Option<u64>,
    /// v1 `oom_kill_disable`: its tasks hang.
    pub disabled: bool,
    /// `oom` and `oom_kill` of `memory.events.local` and `memory.events`.
    pub events: Option<(u64, u64)>,
}

/// What is known of one cgroup.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Counts of the last time; `None` until they are read first.
    counts: Option<(u64, u64)>,
    /// Since when the limit was hit and nobody killed.
    suspect: Option<Instant>,
    hangs: bool,
}

/// Looks at the files of memory cgroups.
#[derive(Debug)]
pub struct Watch {
    mount: PathBuf,
    v1: bool,
    known: HashMap<CgroupId, Known>,
    suspects: Vec<CgroupId>,
    next: usize,
}

impl Watch {
    /// Below the mount of the memory hierarchy. What is counted of the cgroups that exist is the past.
    pub fn start(mount: PathBuf, v1: bool, tree: &CgroupTree) -> Self {
        let mut watch = Self { mount, v1, known: HashMap::new(), suspects: Vec::new(), next: 0 };
        for (index, (id, path)) in tree.live().enumerate() {
            let counts = if index < AT_START { watch.counts(&path) } else { None };
            // One that hangs already is told at the first look.
            watch.known.insert(id, Known { counts, ..Known::default() });
        }
        watch
    }

    /// When to look again, without an event.
    pub fn due(&self) -> Option<Instant> {
        let since = |id| self.known.get(id)?.suspect;
        Some(self.suspects.iter().filter_map(since).min()? + SETTLED)
    }

    /// What there is to tell.
    pub fn look(&mut self, tree: &CgroupTree, now: Instant) -> Vec<Unkilled> {
        let (live, _) = tree.counts();
        if self.known.len() > live.saturating_mul(2).max(AT_START) {
            let known = std::mem::take(&mut self.known);
            self.known = tree.live().filter_map(|(id, _)| Some((id, *known.get(&id)?))).collect();
        }
        let suspects = std::mem::take(&mut self.suspects);
        let mut cgroups: Vec<_> =
            suspects.into_iter().filter_map(|id| Some((id, tree.path_of(id)?))).collect();
        let in_turn: Vec<_> = tree.live().skip(self.next).take(AT_A_TIME).collect();
        self.next = if in_turn.len() < AT_A_TIME { 0 } else { self.next.saturating_add(AT_A_TIME) };
        cgroups.extend(
            in_turn
                .into_iter()
                .filter(|(id, _)| cgroups.iter().all(|(known, _)| known != id))
                .collect::<Vec<_>>(),
        );
        cgroups.into_iter().filter_map(|(id, path)| self.look_at(id, path, now)).collect()
    }

    fn look_at(&mut self, id: CgroupId, path: Vec<u8>, now: Instant) -> Option<Unkilled> {
        // Made since the start: its counts began at zero.
        let mut known =
            self.known.get(&id).copied().unwrap_or(Known { counts: Some((0, 0)), ..Known::default() });
        let found =
            if self.v1 { self.hangs(&mut known, &path) } else { self.ran_out(&mut known, &path, now) };
        if known.suspect.is_some() {
            self.suspects.push(id);
        }
        self.known.insert(id, known);
        if !found {
            return None;
        }
        let name = if self.v1 { "memory.limit_in_bytes" } else { "memory.max" };
        let limit_bytes = fs::read_to_string(self.directory(&path).join(name)).ok();
        let limit_bytes = limit_bytes.and_then(|text| text.trim().parse().ok());
        let events = known.counts.filter(|_| !self.v1);
        Some(Unkilled { id, path, limit_bytes, disabled: self.v1, events })
    }

    /// Did the cgroup's own limit count an `oom`, and nothing in it or below an `oom_kill`?
    fn ran_out(&self, known: &mut Known, path: &[u8], now: Instant) -> bool {
        let Some(counts) = self.counts(path) else { return false };
        let before = *known.counts.get_or_insert(counts);
        if counts.0 <= before.0 || counts.1 > before.1 {
            known.counts = Some(counts);
            known.suspect = None;
            return false;
        }
        let since = *known.suspect.get_or_insert(now);
        let settled = now.saturating_duration_since(since) >= SETTLED;
        if settled {
            known.counts = Some(counts);
            known.suspect = None;
        }
        settled
    }

    /// Do its tasks hang, and was that not told yet? Those of a parent that hangs are the parent's.
    fn hangs(&self, known: &mut Known, path: &[u8]) -> bool {
        let told = known.hangs;
        known.hangs = self.disabled_and_full(path);
        let parent = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at));
        known.hangs && !told && !parent.is_some_and(|parent| self.disabled_and_full(parent))
    }

    fn disabled_and_full(&self, path: &[u8]) -> bool {
        let file = self.directory(path).join("memory.oom_control");
        let is = |key| field(&file, key) == Some(1);
        is("oom_kill_disable") && is("under_oom")
    }

    /// `oom` of the cgroup alone, `oom_kill` of it and all below. Before 5.2 there is no telling them apart.
    fn counts(&self, path: &[u8]) -> Option<(u64, u64)> {
        let directory = self.directory(path);
        let oom = field(&directory.join("memory.events.local"), "oom")?;
        Some((oom, field(&directory.join("memory.events"), "oom_kill")?))
    }

    fn directory(&self, path: &[u8]) -> PathBuf {
        self.mount.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }
}

/// The number after `key` in a file of lines.
pub fn field(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
