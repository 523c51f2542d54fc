//! What a tracer takes: memory, wakeups, time in the kernel, time for a line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::patience::PATIENCE;

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

/// What a process has now and has had at most.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let field = |name| number(&status, name).with_context(|| format!("no {name} of {pid}"));
    Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// How often the threads of a process were scheduled away, by their own will or not: each is a wakeup before.
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

/// What a program did in the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramRuns {
    /// How often it ran.
    pub count: u64,
    /// For how long, all in all.
    pub ns: u64,
}

/// Kills while the kernel keeps time of each BPF program: runs by tracepoint. The raw records go to `records`.
pub fn programs(
    oomtrace: &Subject,
    kills: &mut Kills<'_>,
    records: &Path,
) -> Result<BTreeMap<String, ProgramRuns>> {
    const KILLS: u32 = 20;
    let _timed = Setting::change("/proc/sys/kernel/bpf_stats_enabled", "1")?;
    let mut running = oomtrace.start(&[OsStr::new("--record"), records.as_os_str()])?;
    kills.latencies(&running, KILLS)?;
    let mut runs_of = BTreeMap::new();
    let mut tracepoint_of = BTreeMap::new();
    for file in fs::read_dir(format!("/proc/{}/fdinfo", running.pid()))? {
        let text = fs::read_to_string(file?.path())?;
        let Some(id) = number(&text, "prog_id:") else { continue };
        if let Some(name) = text.lines().find_map(|line| line.strip_prefix("tp_name:")) {
            tracepoint_of.insert(id, name.trim().to_owned());
        } else if let (Some(count), Some(ns)) = (number(&text, "run_cnt:"), number(&text, "run_time_ns:")) {
            runs_of.insert(id, ProgramRuns { count, ns });
        }
    }
    running.stop()?;
    let named = tracepoint_of.into_iter().filter_map(|(id, name)| Some((name, *runs_of.get(&id)?)));
    Ok(named.collect())
}

/// Lines a second out of `count` recorded kills, decode to write.
pub fn throughput(oomtrace: &Path, records: &Path, count: usize) -> Result<f64> {
    let recorded = fs::read(records)?;
    let kills: Vec<&[u8]> = Records(&recorded).filter(|record| kind(record) == Some(KIND_OOM_KILL)).collect();
    ensure!(!kills.is_empty(), "no kill was recorded");
    let mut file = BufWriter::new(fs::File::create(records)?);
    for record in kills.iter().cycle().take(count) {
        file.write_all(record)?;
    }
    file.into_inner().context("write the records")?;
    let mut replay = Command::new(oomtrace);
    replay.args(["replay", "-o", "json"]).arg(records).stdin(Stdio::null());
    let began = Instant::now();
    let status = replay.stdout(Stdio::null()).status()?;
    let took = began.elapsed();
    ensure!(status.success(), "replay: {status}");
    #[expect(clippy::cast_precision_loss, reason = "a count of lines, for people")]
    Ok(count as f64 / took.as_secs_f64())
}

/// The first word of a record of a kill (`oomtrace-common`).
const KIND_OOM_KILL: u32 = 1;

fn kind(record: &[u8]) -> Option<u32> {
    let (_length, record) = record.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*record.first_chunk()?))
}

/// Records as `run --record` writes them, each with its length before it.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_le_bytes(*self.0.first_chunk()?)).ok()?;
        let (record, rest) = self.0.split_at_checked(4 + length)?;
        self.0 = rest;
        Some(record)
    }
}

/// A start where there are many cgroups.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// How many.
    pub cgroups: u32,
    /// Till oomtrace is attached.
    pub attached: Duration,
    /// Till it has taken them all in and sleeps.
    pub settled: Duration,
    /// Its memory then.
    pub memory: Memory,
    /// Till bpftrace is attached.
    pub other_attached: Duration,
}

/// Starts both among `count` empty cgroups.
pub fn crowd(subjects: &[Subject; 2], parent: &Cgroup, count: u32) -> Result<Crowd> {
    let crowd = parent.child(b"crowd")?;
    let mut made = Vec::new();
    for index in 0..count {
        made.push(crowd.child(format!("empty-{index}").as_bytes())?);
    }
    host::pause(Duration::from_secs(2))?;
    let [oomtrace, bpftrace] = subjects;
    let began = Instant::now();
    let mut running = oomtrace.start(&[])?;
    let settled = asleep(running.pid(), began)?;
    let memory = memory(running.pid())?;
    let attached = running.attached();
    running.stop()?;
    let mut other = bpftrace.start(&[])?;
    let other_attached = other.attached();
    other.stop()?;
    Ok(Crowd { cgroups: count, attached, settled, memory, other_attached })
}

/// When the main thread of a process has gone to sleep for good, seen from `began`.
pub fn asleep(pid: u32, began: Instant) -> Result<Duration> {
    const FOR_GOOD: Duration = Duration::from_millis(20);
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
    Err(anyhow!("{pid} does not come to rest"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.to_owned())
}

/// The number after a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
