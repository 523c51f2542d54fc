//! Whether the kernel wakes a reader that goes to sleep at the very moment at which a record is committed.
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

use aya::programs::RawTracePoint;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    host::root::Root,
    kernel::Kernel,
    sources::probe::{Options, Ring, attach, object, test_run::test_run},
};

const ROUNDS: u64 = 1_000_000;
/// A reader that is not woken for so long was forgotten.
const AT_MOST: Duration = Duration::from_secs(10);

/// The program, and the ring that it writes.
fn loaded() -> (OwnedFd, Ring) {
    let kernel = Kernel::read(&Root::host()).unwrap();
    let mut ebpf = object::load(&Options::smallest(), &kernel.resolved.layout).unwrap();
    let program: &mut RawTracePoint = attach::program(&mut ebpf, "mark_victim").unwrap();
    program.load().unwrap();
    let fd = program.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
    (fd, Ring::take(&mut ebpf, "KILLS").unwrap())
}

/// Commits a record each time the last one was read, after a pause of any length up to some microseconds: the reader
/// is then on its way to sleep.
fn commit(program: &OwnedFd, read: &AtomicU64) -> io::Result<()> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 1..=ROUNDS {
        test_run(program.as_fd(), &[0; 2])?;
        let began = Instant::now();
        while read.load(Ordering::Acquire) < round {
            if began.elapsed() > 2 * AT_MOST {
                return Ok(());
            }
            thread::yield_now();
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (0..random % 8192).for_each(|_| std::hint::spin_loop());
    }
    Ok(())
}

fn wakeups(ring: &Ring) -> AsyncFd<OwnedFd> {
    let fd = ring.as_fd().try_clone_to_owned().unwrap();
    // SAFETY: the AsyncFd owns the descriptor, which nothing else closes or replaces.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .unwrap_or_else(|_| unreachable!("epoll"))
}

/// Reads as the loop of a run does. Returns how often it slept, or the round in which nobody woke it.
async fn read_all(ring: &mut Ring, read: &AtomicU64) -> Result<u64, u64> {
    let wakeups = wakeups(ring);
    let (mut count, mut slept) = (0, 0);
    loop {
        while let Some(record) = ring.next() {
            drop(record);
            count += 1;
            read.store(count, Ordering::Release);
        }
        if count == ROUNDS {
            return Ok(slept);
        }
        let woken = tokio::time::timeout(AT_MOST, wakeups.readable()).await;
        woken.map_err(|_| count + 1)?.unwrap().clear_ready();
        slept += 1;
    }
}

#[test]
#[ignore = "as root, on request: a million rounds take minutes"]
fn a_reader_that_goes_to_sleep_while_a_record_is_committed_is_woken() {
    let (program, mut ring) = loaded();
    let read = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&read);
    let writer = thread::spawn(move || commit(&program, &theirs));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
    match runtime.block_on(read_all(&mut ring, &read)) {
        // A reader that never sleeps shows nothing.
        Ok(slept) => assert!(slept > ROUNDS / 10, "the reader slept {slept} times only"),
        Err(round) => unreachable!("in round {round} nobody woke the reader"),
    }
    writer.join().unwrap().unwrap();
}
