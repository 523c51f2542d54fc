//! Finds memory cgroups that ran out of memory without a kill from their files, if no function hook runs.
//!
//! On cgroup v2 these are cgroups whose own limit was hit since the last check while no process in them or
//! below was killed. On v1 they are cgroups whose tasks hang because kills are disabled. After an event, the
//! files of a limited number of cgroups are read, in turn. It never waits.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    accounting::Account,
    cgroups::{memory_files::MemoryFiles, tree::CgroupTree},
    enrich::enricher::Enricher,
    event::{Event, Origin},
    facts::{CgroupId, OomWithoutKill},
    sources::{Next, Source},
};

/// How many cgroups are checked after one event.
const AT_A_TIME: usize = 256;

/// How many of them are checked before kills are looked for again. A check takes some 10 µs.
const STEP: usize = 16;

/// How many cgroups are read at the start. For others, counting starts at their first check.
const AT_START: usize = 4096;

/// The most suspects that are kept, because a user can make any number. Others are found when they are
/// checked in turn.
const SUSPECTS: usize = 1024;

/// The kernel counts the limit before it asks for the OOM killer's lock, and the kill after it has the lock.
/// So there was no kill only if no process was killed anywhere for this long. With the lock held, a report of
/// 8 kB takes 0.7 s on a serial console, and on an overloaded processor a kill took more than 5 s.
const SETTLED: Duration = Duration::from_secs(15);

/// If kills never stop, a cgroup is reported after this: no task waits that long for the lock.
const AT_MOST: Duration = Duration::from_secs(120);

/// What is known of one cgroup.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The counts of the last check; `None` before the first one.
    counts: Option<(u64, u64)>,
    /// Since when its limit was hit without a kill.
    suspect: Option<Instant>,
    hangs: bool,
}

/// Checks the files of memory cgroups.
#[derive(Debug)]
pub struct CgroupFiles {
    mount: PathBuf,
    v1: bool,
    known: HashMap<CgroupId, Known>,
    suspects: Vec<CgroupId>,
    /// When a process was last killed, anywhere.
    killed: Option<Instant>,
    /// An event came since the last check.
    stirred: bool,
    /// No function hook runs.
    needed: bool,
    next: usize,
    /// To be checked now.
    chosen: VecDeque<CgroupId>,
    found: VecDeque<OomWithoutKill>,
}

impl CgroupFiles {
    /// Checks the cgroups below `mount`, the mount of the memory hierarchy.
    pub fn new(mount: PathBuf, v1: bool) -> Self {
        Self {
            mount,
            v1,
            known: HashMap::new(),
            suspects: Vec::new(),
            killed: None,
            stirred: false,
            needed: false,
            next: 0,
            chosen: VecDeque::new(),
            found: VecDeque::new(),
        }
    }

    /// Reads the current counts of the existing cgroups. They are from before the start and are not reported.
    fn start(&mut self, tree: &CgroupTree) {
        for (index, (id, path)) in tree.live().enumerate() {
            let counts = if index < AT_START { self.counts(&path) } else { None };
            // A cgroup that hangs already is reported at its first check.
            self.known.insert(id, Known { counts, ..Known::default() });
        }
    }

    /// Starts when the function hooks do not run, and stops when they do.
    fn need(&mut self, enricher: &Enricher) {
        let needed = !enricher.hooks_run();
        if needed != self.needed {
            self.needed = needed;
            self.known.clear();
            self.suspects.clear();
            self.chosen.clear();
            self.stirred = false;
            if needed {
                self.start(enricher.tree());
            }
        }
    }

    /// When it is certain for the next suspect that there was no kill.
    fn settles_next(&self) -> Option<Instant> {
        let settles = |id| Some(self.settles(self.known.get(id)?.suspect?));
        self.suspects.iter().filter_map(settles).min()
    }

    /// Whether this time has come for a suspect. Also true for a cgroup that is no longer a suspect, which is
    /// then dropped.
    fn is_settled(&self, id: CgroupId, now: Instant) -> bool {
        let since = self.known.get(&id).and_then(|known| known.suspect);
        since.is_none_or(|since| now >= self.settles(since))
    }

    /// When it is certain that a limit that was hit at `since` killed no process.
    fn settles(&self, since: Instant) -> Instant {
        let quiet = self.killed.map_or(since, |killed| killed.max(since));
        (quiet + SETTLED).min(since + AT_MOST)
    }

    /// A process was killed. Tasks of other cgroups may have waited for the same lock.
    fn killed(&mut self, now: Instant) {
        self.killed = Some(now);
    }

    /// Chooses which cgroups are to be checked: suspects that have settled, and others in turn.
    fn choose(&mut self, tree: &CgroupTree, now: Instant) {
        let (live, _) = tree.counts();
        if self.known.len() > live.saturating_mul(2).max(AT_START) {
            let known = std::mem::take(&mut self.known);
            self.known = tree.live().filter_map(|(id, _)| Some((id, *known.get(&id)?))).collect();
        }
        // The counts of a suspect include a kill at any later time, so one reading, when it is settled, is
        // enough.
        let suspects = std::mem::take(&mut self.suspects);
        let (mut settled, later): (Vec<_>, Vec<_>) =
            suspects.into_iter().partition(|id| self.is_settled(*id, now));
        self.suspects = later;
        self.suspects.extend(settled.drain(settled.len().min(AT_A_TIME)..));
        let in_turn: Vec<_> = tree.live().skip(self.next).take(AT_A_TIME).map(|(id, _)| id).collect();
        self.next = if in_turn.len() < AT_A_TIME { 0 } else { self.next.saturating_add(AT_A_TIME) };
        let others = in_turn.into_iter().filter(|id| !settled.contains(id));
        self.chosen = settled.iter().copied().chain(others).collect();
    }

    /// Checks some of the chosen cgroups and returns what to report.
    fn check(&mut self, tree: &CgroupTree, now: Instant) -> Vec<OomWithoutKill> {
        let some: Vec<_> = self.chosen.drain(..STEP.min(self.chosen.len())).collect();
        some.into_iter().filter_map(|id| self.look_at(id, tree.path_of(id)?, now)).collect()
    }

    fn look_at(&mut self, id: CgroupId, path: Vec<u8>, now: Instant) -> Option<OomWithoutKill> {
        // Made since the start, so its counts began at zero.
        let mut known =
            self.known.get(&id).copied().unwrap_or(Known { counts: Some((0, 0)), ..Known::default() });
        let found =
            if self.v1 { self.hangs(&mut known, &path) } else { self.ran_out(&mut known, &path, now) };
        if known.suspect.is_some() && self.suspects.len() < SUSPECTS && !self.suspects.contains(&id) {
            self.suspects.push(id);
        }
        self.known.insert(id, known);
        if !found {
            return None;
        }
        let limit = self.files(&path).limit();
        let events = known.counts.filter(|_| !self.v1);
        Some(OomWithoutKill { id, path, limit, disabled: self.v1, events })
    }

    /// Whether the cgroup's own limit counted an `oom`, but neither it nor a cgroup below counted an
    /// `oom_kill`.
    fn ran_out(&self, known: &mut Known, path: &[u8], now: Instant) -> bool {
        let Some(counts) = self.counts(path) else {
            // Its files are gone, so no later check is needed.
            known.suspect = None;
            return false;
        };
        let before = *known.counts.get_or_insert(counts);
        if counts.0 <= before.0 || counts.1 > before.1 {
            known.counts = Some(counts);
            known.suspect = None;
            return false;
        }
        let since = *known.suspect.get_or_insert(now);
        let settled = now >= self.settles(since);
        if settled {
            known.counts = Some(counts);
            known.suspect = None;
        }
        settled
    }

    /// Whether its tasks hang and this was not reported yet. If its parent hangs, only the parent is
    /// reported.
    fn hangs(&self, known: &mut Known, path: &[u8]) -> bool {
        let reported = known.hangs;
        known.hangs = self.files(path).hangs();
        let parent = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at));
        known.hangs && !reported && !parent.is_some_and(|parent| self.files(parent).hangs())
    }

    /// `oom` of the cgroup alone, and `oom_kill` including the cgroups below. Before 5.2 `oom` also includes
    /// those below.
    fn counts(&self, path: &[u8]) -> Option<(u64, u64)> {
        let files = self.files(path);
        Some((files.own_ooms()?, files.oom_kills()?))
    }

    fn files(&self, path: &[u8]) -> MemoryFiles {
        MemoryFiles::of(&self.mount, path, self.v1)
    }
}

impl Source for CgroupFiles {
    fn due(&self) -> Option<Instant> {
        match self.stirred || !self.chosen.is_empty() {
            true => Some(Instant::now()),
            false => self.settles_next(),
        }
    }

    fn begin(&mut self, enricher: &mut Enricher, _: &mut Account) {
        self.need(enricher);
    }

    fn learn(&mut self, enricher: &mut Enricher, _: &mut Account) -> bool {
        let (tree, now) = (enricher.tree(), Instant::now());
        if self.chosen.is_empty() {
            self.stirred = false;
            self.choose(tree, now);
        }
        let found = self.check(tree, now);
        self.found.extend(found);
        !self.chosen.is_empty()
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        match self.found.pop_front() {
            Some(found) => Next::Event(Event::MemcgOom(Box::new(enricher.oom_without_kill(&found)))),
            None => Next::Nothing,
        }
    }

    fn saw(&mut self, event: &Event, _: bool, enricher: &Enricher, _: &mut Account) {
        self.need(enricher);
        let live = match event {
            Event::OomKill(kill) => kill.envelope.origin == Origin::Ebpf,
            Event::MemcgOom(oom) => oom.envelope.origin == Origin::Ebpf,
            Event::SharedMmKill(_) => true,
            _ => false,
        };
        if live && self.needed {
            self.killed(Instant::now());
            self.stirred = true;
        }
    }
}

#[cfg(test)]
mod tests;
