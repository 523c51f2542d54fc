//! Memory cgroups that ran out without a kill, where no function hook tells: found in their files.
//!
//! In: the cgroups that exist. Out: those whose own limit was hit since the last look while nobody in them
//! or below was killed (cgroup v2), and those whose tasks hang because kills are disabled (v1). Asked after an
//! event, it reads of a bounded number of cgroups, one after the other; it waits for nothing.

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

/// Cgroups looked at after one event: a few milliseconds.
const AT_A_TIME: usize = 256;

/// Cgroups that are looked at before the first event; of others the first look is where counting starts.
const AT_START: usize = 4096;

/// The limit is counted before the killer's lock is asked for, the kill after it was got: only when nobody was killed
/// anywhere for this long was there none. A report of 8 kB takes 0.7 s on a serial console, with the lock held, and on a starved
/// processor a kill took more than 5 s.
const SETTLED: Duration = Duration::from_secs(15);

/// Where kills never cease, who still waits for the lock after this long does not wait for it.
const AT_MOST: Duration = Duration::from_secs(120);

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
pub struct CgroupFiles {
    mount: PathBuf,
    v1: bool,
    known: HashMap<CgroupId, Known>,
    suspects: Vec<CgroupId>,
    /// When somebody was killed last, anywhere.
    killed: Option<Instant>,
    /// Something happened since the last look.
    stirred: bool,
    next: usize,
    found: VecDeque<OomWithoutKill>,
}

impl CgroupFiles {
    /// Below the mount of the memory hierarchy.
    pub fn new(mount: PathBuf, v1: bool) -> Self {
        Self {
            mount,
            v1,
            known: HashMap::new(),
            suspects: Vec::new(),
            killed: None,
            stirred: false,
            next: 0,
            found: VecDeque::new(),
        }
    }

    /// What is counted of the cgroups that exist is the past.
    fn start(&mut self, tree: &CgroupTree) {
        for (index, (id, path)) in tree.live().enumerate() {
            let counts = if index < AT_START { self.counts(&path) } else { None };
            // One that hangs already is reported at the first look.
            self.known.insert(id, Known { counts, ..Known::default() });
        }
    }

    /// When the next suspect settles.
    fn settles_next(&self) -> Option<Instant> {
        let settles = |id| Some(self.settles(self.known.get(id)?.suspect?));
        self.suspects.iter().filter_map(settles).min()
    }

    /// When it is settled that a limit hit at `since` killed nobody.
    fn settles(&self, since: Instant) -> Instant {
        let quiet = self.killed.map_or(since, |killed| killed.max(since));
        (quiet + SETTLED).min(since + AT_MOST)
    }

    /// Somebody was killed: others may have waited for the same lock.
    fn killed(&mut self, now: Instant) {
        self.killed = Some(now);
    }

    /// What there is to report.
    fn look(&mut self, tree: &CgroupTree, now: Instant) -> Vec<OomWithoutKill> {
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

    fn look_at(&mut self, id: CgroupId, path: Vec<u8>, now: Instant) -> Option<OomWithoutKill> {
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
        let limit = self.files(&path).limit();
        let events = known.counts.filter(|_| !self.v1);
        Some(OomWithoutKill { id, path, limit, disabled: self.v1, events })
    }

    /// Did the cgroup's own limit count an `oom`, and nothing in it or below an `oom_kill`?
    fn ran_out(&self, known: &mut Known, path: &[u8], now: Instant) -> bool {
        let Some(counts) = self.counts(path) else {
            // Its files are gone: there is no later look to wait for.
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

    /// Do its tasks hang, and was that not reported yet? Those of a parent that hangs are the parent's.
    fn hangs(&self, known: &mut Known, path: &[u8]) -> bool {
        let reported = known.hangs;
        known.hangs = self.files(path).hangs();
        let parent = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at));
        known.hangs && !reported && !parent.is_some_and(|parent| self.files(parent).hangs())
    }

    /// `oom` of the cgroup alone, `oom_kill` of it and all below. Before 5.2 there is no telling them apart.
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
        match self.stirred {
            true => Some(Instant::now()),
            false => self.settles_next(),
        }
    }

    fn begin(&mut self, enricher: &mut Enricher, _: &mut Account) {
        self.start(enricher.tree());
    }

    fn learn(&mut self, enricher: &mut Enricher, _: &mut Account) -> bool {
        self.stirred = false;
        let found = self.look(enricher.tree(), Instant::now());
        self.found.extend(found);
        false
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        match self.found.pop_front() {
            Some(found) => Next::Event(Event::MemcgOom(Box::new(enricher.oom_without_kill(&found)))),
            None => Next::Nothing,
        }
    }

    fn saw(&mut self, event: &Event, _: bool, _: &Enricher, _: &mut Account) {
        let live = match event {
            Event::OomKill(kill) => kill.envelope.origin == Origin::Ebpf,
            Event::MemcgOom(oom) => oom.envelope.origin == Origin::Ebpf,
            Event::SharedMmKill(_) => true,
            _ => false,
        };
        if live {
            self.killed(Instant::now());
            self.stirred = true;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        cgroups::tree::TreeLimits,
        containers::Runtimes,
        facts::{BootTime, CgroupChange, CgroupChangeKind, Limit},
        host::root::Root,
    };

    /// Memory cgroups of which the files alone are there.
    struct Host {
        mount: TempDir,
        tree: CgroupTree,
        now: Instant,
    }

    impl Host {
        fn new() -> Self {
            let mount = tempfile::tempdir().unwrap();
            let runtimes = Runtimes::discover(Root::at(mount.path().join("none")), &[]);
            Self { tree: CgroupTree::new(runtimes, TreeLimits::default()), mount, now: Instant::now() }
        }

        fn changed(&mut self, kind: CgroupChangeKind, id: u64, path: &str) {
            let (id, path) = (CgroupId(id), path.as_bytes().to_vec());
            self.tree.apply(&CgroupChange { time: BootTime(0), id, kind, path });
        }

        fn make(&mut self, id: u64, path: &str) {
            fs::create_dir_all(self.mount.path().join(path.trim_start_matches('/'))).unwrap();
            self.changed(CgroupChangeKind::Made, id, path);
        }

        fn remove(&mut self, id: u64, path: &str) {
            fs::remove_dir_all(self.mount.path().join(path.trim_start_matches('/'))).unwrap();
            self.changed(CgroupChangeKind::Removed, id, path);
        }

        fn write(&self, path: &str, file: &str, text: &str) {
            fs::write(self.mount.path().join(path.trim_start_matches('/')).join(file), text).unwrap();
        }

        /// What v2 counts: limits hit of the cgroup alone, kills in it and below.
        fn counts(&self, path: &str, oom: u64, kills_below: u64) {
            self.write(path, "memory.events.local", &format!("max 9\noom {oom}\noom_kill 0\n"));
            self.write(path, "memory.events", &format!("oom 77\noom_kill {kills_below}\noom_group_kill 5\n"));
            self.write(path, "memory.max", "4096\n");
        }

        fn control(&self, path: &str, disabled: u64, hangs: u64) {
            let text = format!("oom_kill_disable {disabled}\nunder_oom {hangs}\noom_kill 0\n");
            self.write(path, "memory.oom_control", &text);
            self.write(path, "memory.limit_in_bytes", "8192\n");
        }

        fn files(&self, v1: bool) -> CgroupFiles {
            {
                let mut files = CgroupFiles::new(self.mount.path().to_owned(), v1);
                files.start(&self.tree);
                files
            }
        }

        fn look(&mut self, files: &mut CgroupFiles, after: Duration) -> Vec<OomWithoutKill> {
            self.now += after;
            files.look(&self.tree, self.now)
        }
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn a_limit_without_a_kill_is_told_once_and_only_when_it_has_settled() {
        let mut host = Host::new();
        host.make(7, "/a");
        host.counts("/a", 3, 1);
        let mut files = host.files(false);
        assert_eq!(host.look(&mut files, AT_ONCE), [], "what was counted before the start is the past");
        assert_eq!(files.settles_next(), None);
        host.counts("/a", 4, 1);
        assert_eq!(host.look(&mut files, AT_ONCE), [], "a kill may be counted yet");
        assert_eq!(files.settles_next(), Some(host.now + SETTLED));
        let found = OomWithoutKill {
            id: CgroupId(7),
            path: b"/a".to_vec(),
            limit: Some(Limit::Bytes(4096)),
            disabled: false,
            events: Some((4, 1)),
        };
        assert_eq!(host.look(&mut files, SETTLED), [found]);
        assert_eq!(files.settles_next(), None);
        assert_eq!(host.look(&mut files, SETTLED), []);
    }

    #[test]
    fn a_kill_in_it_or_below_is_no_run_without_one() {
        let mut host = Host::new();
        host.make(7, "/a");
        host.counts("/a", 0, 0);
        let mut files = host.files(false);
        host.counts("/a", 1, 0);
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        host.counts("/a", 1, 1);
        assert_eq!(host.look(&mut files, SETTLED), []);
        assert_eq!(files.settles_next(), None);
    }

    #[test]
    fn while_others_are_killed_it_may_only_wait_for_the_lock() {
        let mut host = Host::new();
        host.make(7, "/a");
        host.counts("/a", 0, 0);
        let mut files = host.files(false);
        host.counts("/a", 1, 0);
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        let began = host.now;
        while host.now + SETTLED < began + AT_MOST {
            host.now += SETTLED / 2;
            files.killed(host.now);
            assert_eq!(host.look(&mut files, SETTLED / 2), []);
        }
        host.now += SETTLED / 2;
        files.killed(host.now);
        assert_eq!(files.settles_next(), Some(began + AT_MOST));
        assert_eq!(host.look(&mut files, SETTLED).len(), 1);
    }

    #[test]
    fn a_cgroup_made_since_the_start_began_to_count_at_zero() {
        let mut host = Host::new();
        let mut files = host.files(false);
        host.make(7, "/a");
        host.counts("/a", 1, 0);
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        assert_eq!(host.look(&mut files, SETTLED).len(), 1);
    }

    #[test]
    fn a_suspect_that_is_removed_is_not_waited_for() {
        let mut host = Host::new();
        host.make(7, "/a");
        host.counts("/a", 0, 0);
        let mut files = host.files(false);
        host.counts("/a", 1, 0);
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        host.remove(7, "/a");
        assert!(host.tree.path_of(CgroupId(7)).is_some(), "the tree still knows its name");
        assert_eq!(host.look(&mut files, SETTLED), []);
        assert_eq!(files.settles_next(), None);
    }

    #[test]
    fn without_local_counts_nothing_is_told() {
        let mut host = Host::new();
        host.make(7, "/a");
        let mut files = host.files(false);
        host.write("/a", "memory.events", "oom 1\noom_kill 0\n");
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        assert_eq!(host.look(&mut files, SETTLED), []);
        assert_eq!(files.settles_next(), None);
    }

    #[test]
    fn all_cgroups_have_their_turn() {
        let mut host = Host::new();
        let last = u64::try_from(2 * AT_A_TIME).unwrap();
        for id in 1..=last {
            host.make(id, &format!("/{id}"));
            host.counts(&format!("/{id}"), 0, 0);
        }
        let mut files = host.files(false);
        for id in 1..=last {
            host.counts(&format!("/{id}"), 1, 0);
        }
        let mut told: Vec<u64> = Vec::new();
        for _ in 0..4 {
            told.extend(host.look(&mut files, SETTLED).iter().map(|found| found.id.0));
        }
        told.sort_unstable();
        assert_eq!(told, (1..=last).collect::<Vec<_>>());
    }

    #[test]
    fn a_hang_is_told_once_until_it_is_over_and_of_the_topmost() {
        let mut host = Host::new();
        host.make(7, "/a");
        host.make(8, "/a/b");
        host.control("/a", 1, 0);
        host.control("/a/b", 1, 0);
        let mut files = host.files(true);
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        host.control("/a", 1, 1);
        host.control("/a/b", 1, 1);
        let found = OomWithoutKill {
            id: CgroupId(7),
            path: b"/a".to_vec(),
            limit: Some(Limit::Bytes(8192)),
            disabled: true,
            events: None,
        };
        assert_eq!(host.look(&mut files, AT_ONCE), std::slice::from_ref(&found));
        assert_eq!(host.look(&mut files, AT_ONCE), [], "the same hang");
        host.control("/a", 1, 0);
        host.control("/a/b", 1, 0);
        assert_eq!(host.look(&mut files, AT_ONCE), []);
        host.control("/a/b", 0, 1);
        assert_eq!(host.look(&mut files, AT_ONCE), [], "with kills allowed nobody hangs");
        host.control("/a", 1, 1);
        assert_eq!(host.look(&mut files, AT_ONCE), [found]);
    }
}
