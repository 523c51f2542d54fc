//! What a hog does with signals: it sends them, ignores them, and has others end by them.

use std::io;

use super::namespace::{fork, sleep_for_ever, wait};
use super::tasks;

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `kill(2)`.
pub(super) fn send(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::kill(pid, signal) }.into())
}

/// SIGTERM ends this process no more.
pub(super) fn ignore_term() -> io::Result<()> {
    // SAFETY: ignores a signal.
    let before = unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel ends this process once it has used a second of processor time.
pub(super) fn use_up_processor_time() -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // Its soft limit comes with a signal that ends it as well.
    // SAFETY: ignores a signal; the limit is alive through the call, which only reads it.
    unsafe {
        libc::signal(libc::SIGXCPU, libc::SIG_IGN);
        check(libc::setrlimit(libc::RLIMIT_CPU, &raw const limit).into())?;
    }
    loop {
        std::hint::spin_loop();
    }
}

/// SIGKILL to this process from itself, with what only the kernel says to others.
pub(super) fn end_in_the_kernels_name() -> io::Result<()> {
    // SAFETY: zero is a valid value of this plain struct.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGKILL, libc::SI_KERNEL);
    // SAFETY: numbers, and a pointer to a struct that is alive through the call, which only reads it.
    check(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, libc::getpid(), libc::SIGKILL, &raw const info) })
}

/// A pid namespace whose first process starts so many others, and ends.
pub(super) fn end_a_namespace_of(others: usize) -> io::Result<()> {
    tasks::new_pid_namespace()?;
    let first = fork(|| {
        for _ in 0..others {
            fork(sleep_for_ever)?;
        }
        Ok(())
    })?;
    wait(first)
}

/// So many children, each killed by another child, which ends then.
pub(super) fn storm(times: usize) -> io::Result<()> {
    for _ in 0..times {
        let target = fork(sleep_for_ever)?;
        wait(fork(|| send(target, libc::SIGKILL))?)?;
        wait(target)?;
    }
    Ok(())
}
