//! A tracer that is measured, as a process, and a reader of its output that is never late itself.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use jiff::Timestamp;
use oomtrace_tests::counters::{boot_time_ns, wall_clock_ns};
use oomtrace_tests::patience::PATIENCE;
use oomtrace_tests::process::first_in_first_out;
use oomtrace_tests::tracer::at;
use serde_json::Value;

use crate::{cost, floor};

/// Higher than the tracer's priority.
const PRIORITY: libc::c_int = 2;
/// What bpftrace runs.
const SCRIPT: &str = include_str!("facts.bt");
const ONE_LINER: &str = r#"tracepoint:oom:mark_victim { printf("%llu %d\n", nsecs, args->pid); }"#;
/// Makes a program write each line at once, also to a pipe (a part of coreutils). oomkill does not do so by
/// itself.
const LINE_BY_LINE: [(&str, &str); 2] =
    [("LD_PRELOAD", "/usr/libexec/coreutils/libstdbuf.so"), ("_STDBUF_O", "L")];

/// A tracer.
#[derive(Clone, Debug)]
pub enum Subject {
    /// oomtrace, by its path.
    Oomtrace(PathBuf),
    /// Another build to compare with.
    Before(PathBuf),
    /// The minimal tracer.
    Floor,
    /// bpftrace with the same facts, as far as possible.
    Bpftrace,
    /// bpftrace with two numbers: all that its usual one-liner says.
    OneLiner,
    /// oomkill of the libbpf tools.
    Oomkill,
}

/// A line of output and when it arrived, ns of the wall clock.
#[derive(Clone, Debug)]
struct Line {
    text: String,
    read_at: i128,
}

/// A tracer that is attached.
#[derive(Debug)]
pub struct Running {
    subject: Subject,
    child: Child,
    reader: Option<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<Line>>>,
    attached: Option<Duration>,
}

impl Subject {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Oomtrace(_) => "oomtrace",
            Self::Before(_) => "before",
            Self::Floor => "floor",
            Self::Bpftrace => "bpftrace",
            Self::OneLiner => "bpftrace, two numbers",
            Self::Oomkill => "libbpf-tools' oomkill",
        }
    }

    /// Its path, if it is oomtrace.
    pub fn oomtrace(&self) -> Option<&Path> {
        match self {
            Self::Oomtrace(path) | Self::Before(path) => Some(path),
            Self::Floor | Self::Bpftrace | Self::OneLiner | Self::Oomkill => None,
        }
    }

    fn command(&self) -> Result<Command> {
        let mut command = match self {
            Self::Oomtrace(path) | Self::Before(path) => {
                let mut command = Command::new(path);
                command.args(["run", "-o", "json"]);
                command
            }
            Self::Floor => {
                let mut command = Command::new(std::env::current_exe().context("where this binary is")?);
                command.arg(floor::SUBCOMMAND);
                command
            }
            Self::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.args(["-B", "none", "-e", SCRIPT]).stderr(Stdio::null());
                command
            }
            Self::OneLiner => {
                let mut command = Command::new("bpftrace");
                command.args(["-B", "none", "-e", ONE_LINER]);
                command
            }
            Self::Oomkill => {
                let mut command = Command::new("oomkill");
                command.envs(LINE_BY_LINE);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }

    /// Starts it and waits until it is attached.
    pub fn start(&self, more: &[&OsStr]) -> Result<Running> {
        let mut command = self.command()?;
        command.args(more);
        let (began, spawned) = (wall_clock_ns(), Instant::now());
        let mut child = command.spawn().with_context(|| format!("start {}", self.name()))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?;
        let lines = Arc::default();
        let theirs = Arc::clone(&lines);
        let reader =
            std::thread::Builder::new().name("reader".into()).spawn(move || read(stdout, &theirs))?;
        let mut running =
            Running { subject: self.clone(), child, reader: Some(reader), lines, attached: None };
        running.attached = match self {
            Self::Oomtrace(_) | Self::Before(_) | Self::Floor | Self::Oomkill => {
                let started = ["ready", r#""type":"start""#, "Tracing OOM kills"];
                let attached =
                    |line: &Line| started.iter().any(|word| line.text.contains(word)).then_some(line.read_at);
                let nanoseconds = u64::try_from(running.find("start line", attached)? - began)?;
                Some(Duration::from_nanos(nanoseconds))
            }
            // bpftrace does not report that it is attached, but then it goes to sleep.
            Self::Bpftrace => Some(cost::asleep(running.pid(), spawned)?),
            // In a guest it may take a minute: kills show when it is.
            Self::OneLiner => None,
        };
        Ok(running)
    }

    /// When the kernel marked this victim, if the line is about it and says when; ns of the wall clock.
    fn marked_at(&self, line: &Line, pid: u32) -> Option<i128> {
        match self {
            Self::Oomtrace(_) | Self::Before(_) => {
                let event: Value = serde_json::from_str(&line.text).ok()?;
                let is_it = at(&event, "type")? == "oom_kill" && at(&event, "victim.pid")? == pid;
                is_it.then_some(())?;
                Some(at(&event, "time")?.as_str()?.parse::<Timestamp>().ok()?.as_nanosecond())
            }
            Self::Floor | Self::Bpftrace | Self::OneLiner => {
                let mut words = line.text.split(' ');
                let (since_boot, of) = (words.next()?, words.next()?);
                (of.parse() == Ok(pid)).then_some(())?;
                // `nsecs` is the time since boot if the kernel has a helper for it (since 5.8).
                Some(since_boot.parse::<i128>().ok()? + boot_time_ns())
            }
            // It says no time that is finer than a second.
            Self::Oomkill => None,
        }
    }

    /// Whether the line reports this victim.
    fn reports(&self, line: &Line, pid: u32) -> bool {
        match self {
            Self::Oomkill => line.text.contains(&format!("OOM kill of PID {pid} (")),
            _ => self.marked_at(line, pid).is_some(),
        }
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// From before its exec until its message that it is attached was read; `None` if it has none.
    pub fn attached(&self) -> Option<Duration> {
        self.attached
    }

    /// ns from the kernel's mark of this victim until the line was read.
    pub fn latency(&self, pid: u32) -> Result<i128> {
        let what = format!("a line of the kill of {pid}");
        self.find(&what, |line| Some(line.read_at - self.subject.marked_at(line, pid)?))
    }

    /// When the line of this victim was read; ns of the wall clock.
    pub fn reported_at(&self, pid: u32) -> Result<i128> {
        let what = format!("a line of the kill of {pid}");
        self.find(&what, |line| self.subject.reports(line, pid).then_some(line.read_at))
    }

    /// Whether the line of this victim comes in time.
    pub fn reports_within(&self, time: Duration, pid: u32) -> bool {
        self.find_within(time, |line| self.subject.reports(line, pid).then_some(())).is_some()
    }

    fn find<T>(&self, what: &str, wanted: impl Fn(&Line) -> Option<T>) -> Result<T> {
        self.find_within(PATIENCE, wanted).with_context(|| format!("{}: no {what}", self.subject.name()))
    }

    fn find_within<T>(&self, time: Duration, wanted: impl Fn(&Line) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + time;
        let mut seen = 0;
        loop {
            let ended = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            let new: Vec<Line> = lock(&self.lines).iter().skip(seen).cloned().collect();
            seen += new.len();
            if let Some(found) = new.iter().find_map(&wanted) {
                return Some(found);
            }
            if ended || Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it by SIGINT.
    pub fn stop(&mut self) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        let began = Instant::now();
        let mut asked = 0;
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "{} does not end", self.subject.name());
            // bpftrace misses one that comes at a bad moment.
            if began.elapsed() >= Duration::from_secs(asked) {
                // SAFETY: a child that was not waited for, so the id is still its own.
                unsafe { libc::kill(pid, libc::SIGINT) };
                asked += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` it was already waited for, and then both do nothing.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn lock(lines: &Mutex<Vec<Line>>) -> std::sync::MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(mut stdout: impl Read, lines: &Mutex<Vec<Line>>) {
    let _ignored = first_in_first_out(PRIORITY);
    let mut chunk = vec![0; 64 << 10];
    let mut rest = Vec::new();
    while let Ok(len @ 1..) = stdout.read(&mut chunk) {
        let read_at = wall_clock_ns();
        rest.extend_from_slice(chunk.get(..len).unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lock(lines).push(Line { text, read_at });
        }
    }
}

/// The reader's own part of a latency: ns from before a write to a pipe until the reader has the line. One
/// for each of 200.
pub fn pipe_cost() -> Result<Vec<i128>> {
    let (reader, mut writer) = std::io::pipe()?;
    let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
    let theirs = Arc::clone(&lines);
    let thread = std::thread::spawn(move || read(reader, &theirs));
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(5));
        // As long as the line of a kill, and in one write like it.
        let line = format!("{:<1400}\n", wall_clock_ns());
        writer.write_all(line.as_bytes())?;
    }
    drop(writer);
    thread.join().map_err(|_| anyhow!("the reader panicked"))?;
    lock(&lines).iter().map(|line| Ok(line.read_at - line.text.parse::<i128>()?)).collect()
}
