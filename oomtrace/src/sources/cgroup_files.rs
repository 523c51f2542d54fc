//! Finds memory cgroups that ran out of memory without a kill from their files, if no function hook runs.
//!
//! On cgroup v2 these are cgroups whose own limit was hit since the last check while no process in them or
//! below was killed. On v1 they are cgroups whose tasks hang because kills are disabled. After an event, the
//! files of a limited number of cgroups are read, in turn, by another thread (`check`).

mod check;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use check::{Check, Found, Reading};

use crate::{
    accounting::Account,
    cgroups::{
        file_thread::{Client, FileThread},
        memory_files::MemoryFiles,
        tree::CgroupTree,
    },
    enrich::enricher::Enricher,
    event::{Event, Origin},
    facts::{CgroupId, OomWithoutKill},
    sources::{Next, Source},
};

/// How many cgroups are checked after one event.
const AT_A_TIME: usize = 256;

/// How many of them are read at a time. Their paths may have 4 KiB each.
const STEP: usize = 64;

/// How many cgroups are read first. For others, counting starts at their first check.
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

/// Has the files of memory cgroups checked.
#[derive(Debug)]
pub struct CgroupFiles {
    client: Client<Check>,
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
    /// To be checked next.
    chosen: VecDeque<CgroupId>,
    found: VecDeque<OomWithoutKill>,
}

impl CgroupFiles {
    /// Has the cgroups below `mount` checked, the mount of the memory hierarchy.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn new(thread: &FileThread, mount: PathBuf, v1: bool) -> io::Result<Self> {
        Ok(Self {
            client: thread.client()?,
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
        })
    }

    /// Reads the current counts of the existing cgroups. They are from before the start and are not reported.
    fn start(&mut self, tree: &CgroupTree) {
        for (index, (id, path)) in tree.live().enumerate() {
            let counts = if index < AT_START && !self.v1 { self.counts(&path) } else { None };
            // A cgroup that hangs already is reported at its first check.
            self.known.insert(id, Known { counts, ..Known::default() });
        }
        self.stirred = true;
    }

    /// The function hooks have ended while this runs, so the counts begin with what is read next.
    fn start_late(&mut self, tree: &CgroupTree) {
        let live: Vec<_> = tree.live_from(0).map(|(_, id, _)| id).collect();
        self.chosen = live.iter().copied().take(AT_START).collect();
        self.known = live.into_iter().map(|id| (id, Known::default())).collect();
    }

    /// Starts when the function hooks do not run, and stops when they do. Returns whether it starts.
    fn need(&mut self, enricher: &Enricher) -> bool {
        let needed = !enricher.hooks_run();
        if needed == self.needed {
            return false;
        }
        self.needed = needed;
        self.known.clear();
        self.suspects.clear();
        self.chosen.clear();
        self.stirred = false;
        needed
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

    /// The next of the chosen cgroups, to be checked.
    fn step(&mut self, tree: &CgroupTree, now: Instant) -> Option<Check> {
        let some = self.chosen.drain(..STEP.min(self.chosen.len()));
        let cgroups: Vec<_> = some.filter_map(|id| Some(Reading::of(id, tree.path_of(id)?))).collect();
        (!cgroups.is_empty()).then(|| Check { mount: self.mount.clone(), v1: self.v1, cgroups, asked: now })
    }

    /// Takes in what the files said.
    fn take(&mut self, check: Check, now: Instant) {
        for reading in check.cgroups {
            if let Some(found) = self.judge(reading, check.asked, now) {
                self.found.push_back(found);
            }
        }
    }

    fn judge(&mut self, reading: Reading, asked: Instant, now: Instant) -> Option<OomWithoutKill> {
        let Reading { id, path, found } = reading;
        // Made since the start, so its counts began at zero.
        let mut known =
            self.known.get(&id).copied().unwrap_or(Known { counts: Some((0, 0)), ..Known::default() });
        let is_to_be_told =
            if self.v1 { hangs(&mut known, &found) } else { self.ran_out(&mut known, &found, asked, now) };
        if known.suspect.is_some() && self.suspects.len() < SUSPECTS && !self.suspects.contains(&id) {
            self.suspects.push(id);
        }
        self.known.insert(id, known);
        let events = known.counts.filter(|_| !self.v1);
        is_to_be_told.then_some(OomWithoutKill { id, path, limit: found.limit, disabled: self.v1, events })
    }

    /// Whether the cgroup's own limit counted an `oom`, but neither it nor a cgroup below counted an
    /// `oom_kill`. Its files were read between `asked` and `now`.
    fn ran_out(&self, known: &mut Known, found: &Found, asked: Instant, now: Instant) -> bool {
        let Some(counts) = found.counts else {
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
        let settled = asked >= self.settles(since);
        if settled {
            known.counts = Some(counts);
            known.suspect = None;
        }
        settled
    }

    /// Whether there is something to check now.
    fn has_more(&self) -> bool {
        self.stirred || !self.chosen.is_empty()
    }

    fn counts(&self, path: &[u8]) -> Option<(u64, u64)> {
        check::counts(&MemoryFiles::of(&self.mount, path, false))
    }
}

/// Whether its tasks hang and this was not reported yet. If its parent hangs, only the parent is reported.
fn hangs(known: &mut Known, found: &Found) -> bool {
    let reported = std::mem::replace(&mut known.hangs, found.hangs);
    found.hangs && !reported && !found.parent_hangs
}

impl Source for CgroupFiles {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.client.as_fd())
    }

    fn due(&self) -> Option<Instant> {
        match self.has_more() {
            _ if self.client.is_busy() => None,
            true => Some(Instant::now()),
            false => self.settles_next(),
        }
    }

    fn begin(&mut self, enricher: &mut Enricher, _: &mut Account) {
        if self.need(enricher) {
            self.start(enricher.tree());
        }
    }

    fn learn(&mut self, enricher: &mut Enricher, _: &mut Account) -> bool {
        let now = Instant::now();
        if let Some(check) = self.client.take_back().filter(|_| self.needed) {
            self.take(check, now);
        }
        let is_due = self.has_more() || self.settles_next().is_some_and(|due| due <= now);
        if self.client.is_busy() || !is_due {
            return false;
        }
        if self.chosen.is_empty() {
            self.stirred = false;
            self.choose(enricher.tree(), now);
        }
        if let Some(check) = self.step(enricher.tree(), now) {
            self.client.send(check);
        }
        false
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        match self.found.pop_front() {
            Some(found) => Next::Event(Event::MemcgOom(Box::new(enricher.oom_without_kill(&found)))),
            None => Next::Nothing,
        }
    }

    fn saw(&mut self, event: &Event, _: bool, enricher: &Enricher, _: &mut Account) {
        if self.need(enricher) {
            self.start_late(enricher.tree());
        }
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
