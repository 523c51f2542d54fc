//! A pid namespace whose first process runs the OOM killer, survives, and ends with all others in it.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use super::tasks;

/// Memory of the victim, and of the first process. Together they exceed the limit.
const VICTIM: usize = 160 << 20;
const FIRST: usize = 180 << 20;
/// Processes that die with the namespace. Some of them get the memory that held the victim's `mm_struct`.
const OTHERS: usize = 600;
/// The kernel keeps a victim's `mm_struct` for the reaper for two seconds.
const REAPED: Duration = Duration::from_millis(3200);

/// Starts it, and waits for its end.
pub(super) fn end_one() -> io::Result<()> {
    tasks::new_pid_namespace()?;
    wait(fork(|| {
        tasks::stay_on_one_processor()?;
        let (mut full, mut tell) = io::pipe()?;
        let victim = fork(|| {
            std::fs::write("/proc/self/oom_score_adj", "1000")?;
            let _kept = vec![1_u8; VICTIM];
            tell.write_all(&[1])?;
            sleep_for_ever()
        })?;
        full.read_exact(&mut [0])?;
        // Released at once.
        drop(black_box(vec![1_u8; FIRST]));
        wait(victim)?;
        std::thread::sleep(REAPED);
        for number in 0..OTHERS {
            // Each processor reuses its own free memory.
            let _ignored = tasks::stay_on(number % 2);
            fork(sleep_for_ever)?;
        }
        Ok(())
    })?)
}

pub(super) fn sleep_for_ever() -> io::Result<()> {
    loop {
        std::thread::park();
    }
}

/// Forks a child that runs `act` and ends.
pub(super) fn fork(act: impl FnOnce() -> io::Result<()>) -> io::Result<libc::pid_t> {
    // SAFETY: a hog has one thread, so the child finds no lock taken.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => std::process::exit(i32::from(act().is_err())),
        pid => Ok(pid),
    }
}

pub(super) fn wait(child: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: a status that is alive through the call.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // The victim must be killed.
    let ended = libc::WIFSIGNALED(status) || libc::WEXITSTATUS(status) == 0;
    if ended { Ok(()) } else { Err(io::Error::other(format!("a process failed: {status}"))) }
}
