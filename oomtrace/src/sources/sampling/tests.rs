#![allow(clippy::unwrap_used, reason = "tests")]

use std::{cell::RefCell, fs, path::Path, rc::Rc, time::Duration};

use oomtrace_common::record::sample::Sample;
use rustix::event::{PollFd, PollFlags, poll};
use zerocopy::FromZeros;

use super::{files::Files, reader::Step, *};
use crate::{
    cgroups::file_thread::FileThread,
    enrich::enricher::Knowledge,
    event::{CgroupVersion, Event, Stop},
    facts::{BootTime, CgroupId, Limit, SampleFacts},
};

/// What a consumer got.
#[derive(Default)]
struct Got {
    walks: Vec<Vec<SampleFacts>>,
    failed: u32,
    due: Option<Instant>,
}

/// Asks after each `stop` line.
struct Asks(Rc<RefCell<Got>>);

impl Consumer for Asks {
    fn due(&self) -> Option<Instant> {
        self.0.borrow().due
    }

    fn saw(&mut self, event: &Event, _: bool, _: &Enricher, _: &mut Account) -> bool {
        matches!(event, Event::Stop(_))
    }

    fn take(&mut self, walk: &Walk<'_>, _: &mut Enricher, _: &mut Account) {
        assert!(walk.began <= walk.ended && walk.evidence == SampleEvidence::Cgroupfs);
        let mut got = self.0.borrow_mut();
        got.walks.push(walk.cgroups().collect());
        got.due = None;
    }

    fn failed(&mut self, _: &WalkError, _: &mut Enricher, _: &mut Account) {
        self.0.borrow_mut().failed += 1;
    }
}

fn host(mount: &Path) -> (Enricher, Account) {
    let mut enricher = Enricher::new(Knowledge::none("test", CgroupVersion::V2));
    enricher.tree_mut().walk(mount, BootTime(1)).unwrap();
    (enricher, Account::new(None, false))
}

fn sampling(reader: Reader) -> (Sampling, Rc<RefCell<Got>>) {
    let got = Rc::default();
    (Sampling::new(reader, 4096, vec![Box::new(Asks(Rc::clone(&got)))]), got)
}

fn files(mount: &Path) -> Reader {
    let thread = FileThread::start().unwrap();
    Reader::Files(Files::new(&thread, mount.to_owned(), false, 4096).unwrap(), "refused".to_owned())
}

/// Asks as the loop does, until there is nothing to do. Returns how many turns that were.
fn turns(sampling: &mut Sampling, enricher: &mut Enricher, account: &mut Account) -> usize {
    let mut turns = 0;
    loop {
        if sampling.waits {
            assert!(sampling.due().is_none(), "the loop would not sleep");
            poll(&mut [PollFd::new(&sampling.descriptor().unwrap(), PollFlags::IN)], None).unwrap();
        } else if sampling.due().is_none_or(|due| due > Instant::now()) {
            return turns;
        }
        sampling.learn(enricher, account);
        turns += 1;
    }
}

fn stop(enricher: &mut Enricher) -> Event {
    let envelope = enricher.own_envelope();
    let reason = "SIGTERM".to_owned();
    Event::Stop(Box::new(Stop {
        envelope,
        reason,
        events: 0,
        lost: 0,
        signals_left_out: None,
        truncated: Vec::new(),
    }))
}

#[test]
fn a_walk_begins_when_one_asks_and_gives_each_cgroup_once_in_bounded_turns() {
    let mount = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let below = mount.path().join(format!("a/{number}"));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("memory.current"), format!("{}\n", 4096 * number)).unwrap();
        fs::write(below.join("memory.max"), if number == 1 { "8192\n" } else { "max\n" }).unwrap();
        fs::write(below.join("memory.events"), "low 0\nmax 7\noom 2\noom_kill 3\n").unwrap();
    }
    fs::write(mount.path().join("a/memory.current"), "999424\n").unwrap();
    fs::write(mount.path().join("a/memory.peak"), "1003520\n").unwrap();
    let (mut enricher, mut account) = host(mount.path());
    let (mut sampling, got) = sampling(files(mount.path()));
    sampling.begin(&mut enricher, &mut account);
    assert!(sampling.due().is_none(), "nobody asked");
    assert!(!sampling.learn(&mut enricher, &mut account) && got.borrow().walks.is_empty());

    let stop = stop(&mut enricher);
    sampling.saw(&stop, true, &enricher, &mut account);
    assert_eq!(turns(&mut sampling, &mut enricher, &mut account), 4, "16 cgroups a turn");
    assert!(sampling.due().is_none());
    let walk = got.borrow_mut().walks.pop().unwrap();
    let id = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        CgroupId(fs::metadata(mount.path().join(path)).unwrap().ino())
    };
    let of = |path: &str| {
        let mut all = walk.iter().filter(|sample| sample.id == id(path));
        let one = *all.next().unwrap();
        assert!(all.next().is_none(), "{path}");
        one
    };
    assert_eq!(walk.len(), 41);
    let (above, limited, free) = (of("a"), of("a/1"), of("a/39"));
    assert_eq!((above.usage_bytes, above.peak_bytes, above.max), (Some(999_424), Some(1_003_520), None));
    assert_eq!((limited.parent, limited.max), (Some(id("a")), Some(Limit::Bytes(8192))));
    assert_eq!((free.usage_bytes, free.max), (Some(39 * 4096), Some(Limit::Unlimited)));
    assert_eq!((free.max_events, free.oom_kills, free.removed, free.lru), (Some(7), Some(3), None, None));

    fs::remove_dir_all(mount.path().join("a/39")).unwrap();
    got.borrow_mut().due = Some(Instant::now());
    turns(&mut sampling, &mut enricher, &mut account);
    assert_eq!(got.borrow().walks.last().map(Vec::len), Some(40), "one has no files any more");
    got.borrow_mut().due = Some(Instant::now() + Duration::from_secs(3600));
    assert_eq!(sampling.due(), got.borrow().due);
}

/// Nothing wakes the loop then.
#[test]
fn at_the_end_of_a_run_a_walk_that_another_thread_reads_is_finished() {
    let mount = tempfile::tempdir().unwrap();
    for number in 0..40 {
        fs::create_dir(mount.path().join(format!("{number}"))).unwrap();
        fs::write(mount.path().join(format!("{number}/memory.current")), "4096\n").unwrap();
    }
    let (mut enricher, mut account) = host(mount.path());
    let (mut sampling, got) = sampling(files(mount.path()));
    let stop = stop(&mut enricher);
    sampling.saw(&stop, true, &enricher, &mut account);
    assert!(!sampling.learn(&mut enricher, &mut account) && sampling.waits);
    sampling.ending();
    while sampling.due().is_some() {
        sampling.learn(&mut enricher, &mut account);
    }
    assert_eq!(got.borrow().walks.last().map(Vec::len), Some(40));
}

#[test]
fn what_is_read_for_an_earlier_walk_is_not_of_the_next() {
    let mount = tempfile::tempdir().unwrap();
    fs::create_dir(mount.path().join("a")).unwrap();
    fs::write(mount.path().join("a/memory.current"), "4096\n").unwrap();
    let (enricher, _) = host(mount.path());
    let mut reader = files(mount.path());
    let mut taken = 0;
    let mut step = |reader: &mut Reader| reader.step(enricher.tree(), |_| taken += 1).unwrap();
    let wait = |reader: &Reader| poll(&mut [PollFd::new(&reader.descriptor().unwrap(), PollFlags::IN)], None);
    reader.begin().unwrap();
    assert_eq!(step(&mut reader), Step::Waits);
    reader.begin().unwrap();
    for then in [Step::Waits, Step::Done] {
        wait(&reader).unwrap();
        assert_eq!(step(&mut reader), then);
    }
    assert_eq!(taken, 1);
}

#[test]
fn where_there_are_no_cgroups_a_walk_that_is_asked_for_fails_once() {
    let mount = tempfile::tempdir().unwrap();
    let (mut enricher, mut account) = host(mount.path());
    let (mut sampling, got) = sampling(Reader::Nothing);
    let stop = stop(&mut enricher);
    sampling.saw(&stop, true, &enricher, &mut account);
    assert_eq!(turns(&mut sampling, &mut enricher, &mut account), 1);
    assert_eq!((got.borrow().failed, got.borrow().walks.len()), (1, 0));
}

#[test]
fn the_memory_of_a_walk_is_bounded() {
    let mut samples = Vec::<Sample>::new();
    for _ in 0..SAMPLES_MAX {
        round::make_room(&mut samples, 1);
        samples.push(Sample::new_zeroed());
        assert!(samples.capacity() <= SAMPLES_MAX);
    }
    round::make_room(&mut samples, 256);
    assert_eq!(samples.capacity(), SAMPLES_MAX);
    assert!(SAMPLES_MAX * size_of::<Sample>() <= 4 << 20 && SAMPLES_MAX >= 40_000);
}
