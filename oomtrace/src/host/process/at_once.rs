//! Reads a victim's executable at once, in the calling thread, and without access to the victim's memory.
//!
//! Reading a start time takes a reference to the victim's memory. Whoever drops the last reference frees all
//! of it, which may take long. The processor time of a process has no such cost. It also shows that this is
//! not a later process with the same id: a process that started after the mark cannot have run longer than
//! all processors together since then.

use std::path::Path;

use rustix::fs::{CWD, readlinkat};

use crate::host::{
    clock,
    process::{Reason, Victim},
};

/// The most by which the clocks may differ.
const MARGIN_NS: u64 = 1_000_000;

/// The executable of the victim, or why it has none; `None` if it is not certain to which process it belongs.
pub(super) fn executable(proc: &Path, victim: &Victim) -> Option<Result<Vec<u8>, Reason>> {
    // Through the process: a thread's id may be used again while the process still has its own.
    let link = proc.join(format!("{}/task/{}/exe", victim.tgid, victim.tid));
    let executable = readlinkat(CWD, link, Vec::new());
    // Checked afterwards, so that the process had the id until now.
    let ran = processor_time_ns(victim.tgid)?;
    let since_mark = clock::boot_time().0.checked_sub(victim.marked.0)?;
    if !existed_before(ran, since_mark, processors()?) {
        return None;
    }
    Some(match executable {
        Ok(path) => Ok(path.into_bytes()),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Err(Reason::Released),
        Err(errno) => Err(errno.into()),
    })
}

/// Whether a process that has run for `ran` ns existed `since` ns ago.
fn existed_before(ran: u64, since: u64, processors: u64) -> bool {
    // Doubled, because the scheduler uses another clock than the calendar.
    since
        .checked_mul(2 * processors)
        .and_then(|most| most.checked_add(MARGIN_NS))
        .is_some_and(|most| ran > most)
}

/// How many processors the host can have.
pub fn processors() -> Option<u64> {
    // SAFETY: takes a number and returns a number.
    let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    u64::try_from(processors).ok().filter(|processors| *processors > 0)
}

/// The processor time of all threads of a process, including those that ended; `None` if there is no such
/// process.
fn processor_time_ns(tgid: u32) -> Option<u64> {
    // `MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)` of include/linux/posix-timers.h.
    let clock = (!i32::try_from(tgid).ok()? << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call. A clock of a process that does not exist is refused.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let (seconds, ns) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::facts::BootTime;

    #[test]
    fn only_who_ran_for_longer_than_there_was_time_was_there_before() {
        assert!(existed_before(10_000_001, 0, 4));
        assert!(!existed_before(MARGIN_NS, 0, 4));
        // All four processors, since the mark.
        assert!(!existed_before(8_000_000, 2_000_000, 4));
        assert!(existed_before(50_000_000, 2_000_000, 4));
        assert!(!existed_before(u64::MAX, u64::MAX, 4));
    }

    #[test]
    fn this_process_is_certain_once_it_has_run_for_a_while() {
        let own = std::process::id();
        while processor_time_ns(own).unwrap() < 100 * MARGIN_NS {
            std::hint::black_box(0);
        }
        let of = |marked| Victim { tid: own, tgid: own, start: None, marked: BootTime(marked) };
        let proc = Path::new("/proc");
        let exe = std::env::current_exe().unwrap();
        // Certain only if the check comes soon after the mark, so it is tried again.
        let mut certain = None;
        while certain.is_none() {
            certain = executable(proc, &of(clock::boot_time().0));
        }
        assert_eq!(certain.unwrap().unwrap(), exe.as_os_str().as_encoded_bytes());
        assert_eq!(executable(proc, &of(0)), None, "marked long ago: it may have started since");
        assert_eq!(executable(proc, &of(u64::MAX)), None);
        assert_eq!(processor_time_ns(u32::MAX), None);
    }
}
