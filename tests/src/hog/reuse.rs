//! Reuses process ids at once: a child dies in a cgroup, and another program gets its id before anything can
//! read it.

use std::io;
use std::path::Path;

use super::memory::{self, Kind};

/// Memory of a child: more than the cgroup may use.
const BYTES: usize = 4 << 30;

/// Kills a child in the cgroup and gives its id to `/bin/sleep`, this many times. The tracer is stopped
/// meanwhile. It continues when the next program has the id, early enough to take it for the victim. Returns
/// the ids.
pub(super) fn again_and_again(
    procs: &Path,
    times: usize,
    tracer: libc::pid_t,
) -> io::Result<Vec<libc::pid_t>> {
    (0..times).map(|_| once(procs, tracer)).collect()
}

fn once(procs: &Path, tracer: libc::pid_t) -> io::Result<libc::pid_t> {
    // SAFETY: a hog has one thread, so the child finds no lock taken.
    let victim = unsafe { libc::fork() };
    if victim == 0 {
        // Older than a tick of the kernel's clock, so that its start time is unique.
        std::thread::sleep(std::time::Duration::from_millis(25));
        signal(tracer, libc::SIGSTOP);
        let _killed = std::fs::write(procs, "0").and_then(|()| memory::take(Kind::Anonymous, BYTES));
        std::process::exit(1);
    }
    let mut status = 0;
    // SAFETY: a status that is alive through the call.
    if victim < 0 || unsafe { libc::waitpid(victim, &raw mut status, 0) } != victim {
        return Err(io::Error::last_os_error());
    }
    if !libc::WIFSIGNALED(status) {
        return Err(io::Error::other(format!("the child was not killed: {status}")));
    }
    let next = with_id(victim)?;
    let exe = format!("/proc/{next}/exe");
    while std::fs::read_link(&exe).is_ok_and(|exe| !exe.ends_with("sleep")) {
        std::hint::spin_loop();
    }
    signal(tracer, libc::SIGCONT);
    // It lives for a moment, in which the tracer may take it for the victim. SAFETY: a child of ours.
    unsafe { libc::waitpid(next, &raw mut status, 0) };
    Ok(victim)
}

fn signal(process: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes numbers. If the process is gone, the signal fails, and the test notices later.
    unsafe { libc::kill(process, signal) };
}

/// A child with this id, which is free: `sleep`, for a moment.
fn with_id(id: libc::pid_t) -> io::Result<libc::pid_t> {
    let arguments = [c"/bin/sleep".as_ptr(), c"0.02".as_ptr(), std::ptr::null()];
    // SAFETY: all fields are numbers, for which zero is valid.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    how.set_tid = (&raw const id) as u64;
    how.set_tid_size = 1;
    // SAFETY: as fork, of a process with one thread; the arguments are alive through the calls.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: texts that end, in a list that ends.
            unsafe { libc::execv(c"/bin/sleep".as_ptr(), arguments.as_ptr()) };
            std::process::exit(1)
        }
        child => libc::pid_t::try_from(child).map_err(io::Error::other),
    }
}
