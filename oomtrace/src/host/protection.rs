//! Keeps this process answering while memory is short: its memory stays resident, and it runs
//! before others when an event comes. Where that is not allowed the run goes on, and says so.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};

/// Lowest of the real-time priorities: before every ordinary task, behind every other real-time one.
const PRIORITY: libc::c_int = 1;

/// Locks memory, asks for real-time scheduling and not to be a victim, and leaves no core dumps. Returns what was not allowed.
pub fn hold(realtime: bool) -> Vec<String> {
    let mut refused = Vec::new();
    // All of its memory is bounded, so to kill it would free little and hide the kill.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        let why = error.kind();
        refused.push(format!("oom_score_adj is not lowered ({why}; it needs CAP_SYS_RESOURCE, or OOMScoreAdjust=-1000 in its unit): this process may be a victim itself"));
    }
    // Pages are locked when they are first touched: memory that is only reserved stays free.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(flags) {
        let why = std::io::Error::from(error).kind();
        refused.push(format!("memory is not locked ({why}; it needs CAP_IPC_LOCK, or a higher RLIMIT_MEMLOCK): lines may be late while memory is short"));
    }
    if realtime && let Err(error) = first_in_first_out() {
        let why = error.kind();
        refused.push(format!("no real-time scheduling ({why}; it needs CAP_SYS_NICE, or an RLIMIT_RTPRIO of 1): lines may be late while the host is busy"));
    }
    no_core_dumps();
    refused
}

/// Leaves no core behind, wherever this host would put it: its pages hold other people's command lines.
pub fn no_core_dumps() {
    // SAFETY: numbers in. Only an unknown number could be refused.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// A log rotation during the start is no reason to end: the file is looked up again at its first line. Until the
/// session listens to SIGHUP itself.
pub fn outlive_rotation() {
    // SAFETY: no handler is installed; the signal is only ignored.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// Gives back what start-up used and nothing needs any more.
pub fn trim() {
    // SAFETY: the function takes no pointer; it returns free heap pages to the kernel.
    unsafe { libc::malloc_trim(0) };
}

/// For this thread; those that it starts later inherit it.
fn first_in_first_out() -> std::io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameter is a local that lives through the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// This thread again as any other: what it does may wait.
pub fn ordinary() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is a local that lives through the call. To be scheduled later than before is always allowed.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameter) };
}
