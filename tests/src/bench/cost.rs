//! The cost of a tracer: memory, wakeups, time in the kernel.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use oomtrace_tests::bpf;
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::patience::PATIENCE;
use oomtrace_tests::process::status_kib;

use crate::host::{self, Setting};
use crate::kills::Kills;
use crate::subject::Subject;

/// Memory of a process, KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// `VmRSS`.
    pub now: u64,
    /// `VmHWM`.
    pub peak: u64,
}

/// The current memory of a process, and its peak.
pub fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory { now: status_kib(pid, "VmRSS")?, peak: status_kib(pid, "VmHWM")? })
}

/// How often the threads of a process were scheduled away, voluntarily or not. Each time follows a wakeup.
pub fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for name in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
            sum += number(&status, name).with_context(|| format!("no {name} of {pid}"))?;
        }
    }
    Ok(sum)
}

/// The runs of a program in the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramRuns {
    /// How often it ran.
    pub count: u64,
    /// Their total time.
    pub ns: u64,
}

/// Makes kills while the kernel measures the time of each BPF program. Returns the runs by tracepoint.
pub fn programs(
    subject: &Subject,
    kills: &mut Kills<'_>,
    options: &[&OsStr],
) -> Result<BTreeMap<String, ProgramRuns>> {
    const KILLS: u32 = 20;
    let _timed = Setting::change("/proc/sys/kernel/bpf_stats_enabled", "1")?;
    let mut running = subject.start(options)?;
    kills.latencies(&running, KILLS)?;
    let mut runs_of = BTreeMap::new();
    // A tracer may hold the links alone, which say what runs where.
    for file in fs::read_dir(format!("/proc/{}/fdinfo", running.pid()))? {
        let text = fs::read_to_string(file?.path())?;
        let tracepoint = text.lines().find_map(|line| line.strip_prefix("tp_name:"));
        if let Some((tracepoint, id)) = tracepoint.zip(number(&text, "prog_id:")) {
            runs_of.insert(tracepoint.trim().to_owned(), runs(id)?);
        }
    }
    running.stop()?;
    Ok(runs_of)
}

/// Of the program with this id.
fn runs(id: u64) -> Result<ProgramRuns> {
    let program = bpf::program_by_id(id)?;
    let text = read(&format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let field = |name| number(&text, name).with_context(|| format!("no {name} of the program {id}"));
    Ok(ProgramRuns { count: field("run_cnt:")?, ns: field("run_time_ns:")? })
}

/// A start while many cgroups exist.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// How many.
    pub cgroups: u32,
    /// Time until oomtrace is attached.
    pub attached: Duration,
    /// Time until it has read all cgroups and sleeps.
    pub settled: Duration,
    /// Its memory after that.
    pub memory: Memory,
}

/// Starts it with `count` empty cgroups.
pub fn crowd(subject: &Subject, parent: &Cgroup, count: u32) -> Result<Crowd> {
    let crowd = parent.child(b"crowd")?;
    let mut made = Vec::new();
    for index in 0..count {
        made.push(crowd.child(format!("empty-{index}").as_bytes())?);
    }
    host::pause(Duration::from_secs(2))?;
    let began = Instant::now();
    let mut running = subject.start(&[])?;
    let settled = asleep(running.pid(), began)?;
    let memory = memory(running.pid())?;
    let attached = running.attached().context("it does not say that it is attached")?;
    running.stop()?;
    Ok(Crowd { cgroups: count, attached, settled, memory })
}

/// When the main thread of a process has gone to sleep for long, measured from `began`.
pub fn asleep(pid: u32, began: Instant) -> Result<Duration> {
    // bpftrace waits for the kernel before it is attached, and then wakes every 100 ms.
    const FOR_GOOD: Duration = Duration::from_millis(60);
    let mut since: Option<Instant> = None;
    while began.elapsed() < PATIENCE {
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        match state.ok_or_else(|| anyhow!("no state of {pid}"))? {
            'S' => {
                let slept = *since.get_or_insert_with(Instant::now);
                if slept.elapsed() >= FOR_GOOD {
                    return Ok(slept - began);
                }
            }
            _ => since = None,
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Err(anyhow!("{pid} does not go to sleep"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.to_owned())
}

/// The number after a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
