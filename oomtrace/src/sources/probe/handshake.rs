//! Whether the kernel wakes a reader that goes to sleep at the very moment at which a record is committed, also if the reader
//! had said until then that it looks at the ring all the time.
//!
//! Run on request, as root: `cargo test --release -p oomtrace --lib handshake -- --ignored`. The program of
//! `mark_victim` runs by `BPF_PROG_TEST_RUN`, with no victim: it is attached to nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::RawTracePoint,
};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    host::root::Root,
    kernel::Kernel,
    sources::probe::{Early, Options, Ring, attach, object, test_run::test_run},
};

const ROUNDS: u64 = 1_000_000;
/// A reader that is not woken for so long was forgotten.
const AT_MOST: Duration = Duration::from_secs(10);

/// The program, and its maps.
fn loaded() -> (OwnedFd, Ebpf) {
    let kernel = Kernel::read(&Root::host()).unwrap();
    let mut ebpf = object::load(&Options::smallest(), &kernel.resolved.layout).unwrap();
    let program: &mut RawTracePoint = attach::program(&mut ebpf, "mark_victim").unwrap();
    program.load().unwrap();
    let fd = program.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
    (fd, ebpf)
}

/// A reader of the same maps, as a run that finds them pinned.
fn reader(ebpf: &Ebpf) -> (Ring, Early) {
    let map = |name| {
        let (Map::RingBuf(data) | Map::Array(data)) = ebpf.map(name).unwrap() else { unreachable!("{name}") };
        MapData::from_fd(data.fd().as_fd().try_clone_to_owned().unwrap()).unwrap()
    };
    let kills = Ring::of("KILLS", map("KILLS")).unwrap();
    let early = Early::of(Ring::of("WAKEUPS", map("WAKEUPS")).unwrap(), &map("WATCH"), &kills).unwrap();
    (kills, early)
}

/// Numbers that are different enough.
struct Random(u64);

impl Random {
    /// One below this.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Commits a record each time the last one was read, after a pause of any length up to some microseconds: the reader
/// is then on its way to sleep.
fn commit(program: &OwnedFd, read: &AtomicU64) -> io::Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 1..=ROUNDS {
        test_run(program.as_fd(), &[0; 2])?;
        let began = Instant::now();
        while read.load(Ordering::Acquire) < round {
            if began.elapsed() > 2 * AT_MOST {
                return Ok(());
            }
            thread::yield_now();
        }
        (0..random.below(8192)).for_each(|_| std::hint::spin_loop());
    }
    Ok(())
}

fn wakeups(ring: &impl AsFd) -> AsyncFd<OwnedFd> {
    let fd = ring.as_fd().try_clone_to_owned().unwrap();
    // SAFETY: the AsyncFd owns the descriptor, which nothing else closes or replaces.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .unwrap_or_else(|_| unreachable!("epoll"))
}

/// How the reader got the records.
#[derive(Debug, Default)]
struct Got {
    /// How often it slept.
    slept: u64,
    /// How often it found one while it looked at the ring all the time.
    watched: u64,
    /// How often it was woken because it went to sleep during the commit.
    caught: u64,
}

/// Reads as the loop of a run does. Returns the round in which nobody woke it, if there is one.
async fn read_all(ring: &mut Ring, early: &mut Early, read: &AtomicU64) -> Result<Got, u64> {
    let (kills, early_ones) = (wakeups(ring), wakeups(early));
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut count, mut got) = (0, Got::default());
    loop {
        while let Some(record) = ring.next() {
            drop(record);
            count += 1;
            read.store(count, Ordering::Release);
        }
        if count == ROUNDS {
            return Ok(got);
        }
        got.caught += u64::from(early.taken().is_some());
        let mut looks = random.below(16384);
        early.watch(|| {
            looks = looks.saturating_sub(1);
            looks == 0
        });
        if let Some(record) = ring.next() {
            Ring::leave(record);
            got.watched += u64::from(looks > 0);
            continue;
        }
        let woken = async {
            tokio::select! {
                woken = kills.readable() => woken.unwrap().clear_ready(),
                woken = early_ones.readable() => woken.unwrap().clear_ready(),
            }
        };
        tokio::time::timeout(AT_MOST, woken).await.map_err(|_| count + 1)?;
        got.slept += 1;
    }
}

#[test]
#[ignore = "as root, on request: a million rounds take minutes"]
fn a_reader_that_goes_to_sleep_while_a_record_is_committed_is_woken() {
    let (program, ebpf) = loaded();
    let (mut ring, mut early) = reader(&ebpf);
    let read = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&read);
    let writer = thread::spawn(move || commit(&program, &theirs));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    match runtime.block_on(read_all(&mut ring, &mut early, &read)) {
        // A reader that never sleeps, or is never awake at a commit, shows nothing.
        Ok(got) => {
            assert!(got.slept > ROUNDS / 20 && got.watched > ROUNDS / 20 && got.caught > 0, "{got:?}");
        }
        Err(round) => unreachable!("in round {round} nobody woke the reader"),
    }
    writer.join().unwrap().unwrap();
}

#[test]
#[ignore = "as root, on request"]
fn a_reader_that_was_killed_while_it_was_awake_leaves_no_record_to_the_next_one_unseen() {
    let (program, ebpf) = loaded();
    let mark = || test_run(program.as_fd(), &[0; 2]).unwrap();
    let (_kills, killed) = reader(&ebpf);
    let mut done = false;
    killed.watch(|| {
        // As if it had been killed here.
        mark();
        let (mut kills, _early) = reader(&ebpf);
        let wakeups = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&wakeups, &kills, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        drop(kills.next().unwrap());
        assert!(kills.next().is_none());
        let mut woken = Vec::with_capacity(1);
        epoll::wait(&wakeups, spare_capacity(&mut woken), Some(&Timespec::default())).unwrap();
        assert!(woken.is_empty());
        mark();
        let at_most = Timespec { tv_sec: 10, tv_nsec: 0 };
        epoll::wait(&wakeups, spare_capacity(&mut woken), Some(&at_most)).unwrap();
        assert_eq!(woken.len(), 1, "nobody woke the second reader");
        drop(kills.next().unwrap());
        done = true;
        true
    });
    assert!(done);
}
