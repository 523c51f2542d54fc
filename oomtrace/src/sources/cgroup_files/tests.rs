#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use super::*;
use crate::{
    cgroups::{file_thread::Errand as _, tree::TreeLimits},
    containers::Runtimes,
    enrich::enricher::Knowledge,
    event::CgroupVersion,
    facts::{BootTime, CgroupChange, CgroupChangeKind, Limit},
    host::root::Root,
};

/// Memory cgroups of which only the files exist.
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

    /// The counters of v2: limit hits of the cgroup alone, kills in it and below.
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
        let thread = FileThread::start().unwrap();
        let mut files = CgroupFiles::new(&thread, self.mount.path().to_owned(), v1).unwrap();
        files.start(&self.tree);
        files
    }

    fn look(&mut self, files: &mut CgroupFiles, after: Duration) -> Vec<OomWithoutKill> {
        self.now += after;
        files.choose(&self.tree, self.now);
        while let Some(mut check) = files.step(&self.tree, self.now) {
            check.run();
            files.take(check, self.now);
        }
        files.found.drain(..).collect()
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

/// A limit below what a cgroup without processes uses is hit but kills no process. A user can make many of
/// these.
#[test]
fn many_suspects_are_looked_at_once_and_some_at_a_time() {
    let many = u64::try_from(AT_A_TIME).unwrap() + 100;
    let mut host = Host::new();
    for id in 1..=many {
        host.make(id, &format!("/{id}"));
        host.counts(&format!("/{id}"), 0, 0);
    }
    let mut files = host.files(false);
    for id in 1..=many {
        host.counts(&format!("/{id}"), 1, 0);
    }
    assert_eq!(host.look(&mut files, AT_ONCE), []);
    // At a check now it would be found gone, but it is not its turn.
    fs::rename(host.mount.path().join("1"), host.mount.path().join("aside")).unwrap();
    assert_eq!(host.look(&mut files, AT_ONCE), []);
    assert_eq!(files.suspects.len(), AT_A_TIME + 100);
    fs::rename(host.mount.path().join("aside"), host.mount.path().join("1")).unwrap();
    assert_eq!(host.look(&mut files, SETTLED).len(), AT_A_TIME);
    assert!(files.settles_next().is_some_and(|next| next <= host.now), "the rest is looked at next");
    assert_eq!(host.look(&mut files, AT_ONCE).len(), 100);
    assert_eq!(files.settles_next(), None);
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

/// Asks as the loop does: as long as it is due, and again when it is woken.
#[test]
fn another_thread_reads_and_the_loop_is_not_due_meanwhile() {
    let mut host = Host::new();
    host.make(7, "/a");
    host.control("/a", 1, 1);
    let mut enricher = Enricher::new(Knowledge::none("test", CgroupVersion::V1));
    enricher.tree_mut().apply(&CgroupChange {
        time: BootTime(0),
        id: CgroupId(7),
        kind: CgroupChangeKind::Made,
        path: b"/a".to_vec(),
    });
    let mut account = Account::new(None, true);
    let thread = FileThread::start().unwrap();
    let mut files = CgroupFiles::new(&thread, host.mount.path().to_owned(), true).unwrap();
    files.begin(&mut enricher, &mut account);
    assert!(files.due().is_some_and(|due| due <= Instant::now()));
    files.learn(&mut enricher, &mut account);
    assert!(files.client.is_busy() && files.due().is_none());
    // Woken by something else before the thread is done, or after.
    files.learn(&mut enricher, &mut account);
    if files.client.is_busy() {
        poll(&mut [PollFd::new(&files.descriptor().unwrap(), PollFlags::IN)], None).unwrap();
        files.learn(&mut enricher, &mut account);
    }
    let Next::Event(Event::MemcgOom(found)) = files.next(&mut enricher, &mut account) else {
        unreachable!("it hangs")
    };
    assert_eq!(found.cgroup.cgroup.path.as_deref(), Some("/a"));
    assert!(files.due().is_none() && matches!(files.next(&mut enricher, &mut account), Next::Nothing));
}
