//! Processes: the facts that `/proc` has about one before it is killed, and signals to it.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, anyhow, ensure};

/// A line of `/proc/PID/status` that has a size in KiB, such as `VmRSS` or `VmHWM`.
///
/// # Errors
/// If the process is gone or has no such line.
pub fn status_kib(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {name} of {pid}"))?;
    value.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name}:{value}"))
}

/// A process, and the thread that should be named as the victim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Its parent's process id.
    pub parent_pid: u32,
    /// Process id in its own pid namespace.
    pub namespace_pid: u32,
    /// The thread's name.
    pub comm: Vec<u8>,
    /// Real user id.
    pub uid: u32,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// `starttime` of `/proc/PID/stat`: clock ticks since boot.
    pub start_ticks: u64,
    /// `/proc/PID/exe`.
    pub executable: Vec<u8>,
    /// `/proc/PID/cmdline`, NULs as spaces.
    pub command_line: Vec<u8>,
    /// Its threads.
    pub threads: u32,
    /// `RssAnon` of `/proc/PID/status`, bytes.
    pub anon_bytes: u64,
}

impl ProcessFacts {
    /// Reads them.
    pub fn of(pid: u32, tid: u32) -> Result<Self> {
        let read = |file: String| fs::read(&file).with_context(|| format!("read {file}"));
        let status = String::from_utf8_lossy(&read(format!("/proc/{pid}/status"))?).into_owned();
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.map(str::trim).ok_or_else(|| anyhow!("/proc/{pid}/status has no {key}"))
        };
        let first = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        let last = |text: &str| text.split_whitespace().last().unwrap_or_default().to_owned();

        let stat = String::from_utf8_lossy(&read(format!("/proc/{pid}/stat"))?).into_owned();
        // The name may contain anything. After it come the fields from the third on.
        let (_, fields) = stat.rsplit_once(") ").ok_or_else(|| anyhow!("/proc/{pid}/stat has no name"))?;
        let start_ticks = fields.split(' ').nth(19).ok_or_else(|| anyhow!("/proc/{pid}/stat is short"))?;

        let mut comm = read(format!("/proc/{pid}/task/{tid}/comm"))?;
        comm.pop();
        let mut command_line = read(format!("/proc/{pid}/task/{tid}/cmdline"))?;
        command_line.pop();
        for byte in &mut command_line {
            if *byte == 0 {
                *byte = b' ';
            }
        }
        let adj = String::from_utf8_lossy(&read(format!("/proc/{pid}/oom_score_adj"))?).into_owned();
        // A process whose first thread has ended has no /proc/PID/exe any more.
        let executable = fs::read_link(format!("/proc/{pid}/task/{tid}/exe"))
            .map(|path| path.as_os_str().as_bytes().to_vec())
            .unwrap_or_default();
        Ok(Self {
            pid,
            tid,
            parent_pid: field("PPid")?.parse()?,
            // Kernels before 4.1 do not have it, but none of them runs this.
            namespace_pid: last(field("NSpid")?).parse()?,
            comm,
            uid: first(field("Uid")?).parse()?,
            oom_score_adj: adj.trim().parse()?,
            start_ticks: start_ticks.parse()?,
            executable,
            command_line,
            threads: field("Threads")?.parse()?,
            // Absent if the process's first thread has ended.
            anon_bytes: field("RssAnon").ok().and_then(|text| first(text).parse::<u64>().ok()).unwrap_or(0)
                * 1024,
        })
    }
}

/// Sends a signal to a process of this test that nobody has waited for, so that the id is still its own.
///
/// # Errors
/// If it cannot be sent.
pub fn send_signal(pid: u32, signal: libc::c_int) -> Result<()> {
    // SAFETY: numbers only.
    let sent = unsafe { libc::kill(libc::pid_t::try_from(pid)?, signal) };
    ensure!(sent == 0, "signal {signal} to {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Makes the calling thread, and threads that it starts later, run before all ordinary ones. 0 makes it
/// ordinary again.
pub fn first_in_first_out(priority: libc::c_int) -> std::io::Result<()> {
    let policy = if priority > 0 { libc::SCHED_FIFO } else { libc::SCHED_OTHER };
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter is a local that lives through the call.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
