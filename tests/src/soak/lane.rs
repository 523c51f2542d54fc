//! One tracer with its pins and its output, and the random faults that happen to it.

mod fault;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::lines::Line;
use super::output::Output;
use super::random::Random;
use crate::patience::until;
use crate::process::{send_signal, status_kib};

/// The small one is soon full.
const RINGS: [&str; 2] = ["16KiB", "512KiB"];

/// One tracer after another.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    binaries: [PathBuf; 2],
    pins: PathBuf,
    said: PathBuf,
    output: Output,
    random: Random,
    /// The index of the binary and of the ring size.
    turn: (usize, usize),
    child: Option<Child>,
    /// Since when two sets of programs may be attached.
    two_since: Option<Instant>,
    report: Report,
}

/// What was done, and its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) starts: u64,
    /// When two sets of programs were attached: one may report a kill that the other counts as lost.
    pub(super) two: Vec<(Instant, Instant)>,
    /// The largest `VmHWM` of a tracer, kB.
    pub(super) memory_kb: u64,
}

impl Lane {
    pub(super) fn new(
        name: &'static str,
        binaries: [PathBuf; 2],
        dir: &Path,
        output: Output,
        random: Random,
    ) -> Self {
        Self {
            name,
            binaries,
            pins: dir.join("bpf").join(name),
            said: dir.join(format!("{name}.stderr")),
            output,
            random,
            turn: (0, 0),
            child: None,
            two_since: None,
            report: Report::default(),
        }
    }

    /// Starts the first tracer, and waits until it is attached.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.start()?;
        self.wait("a start line", |lane| {
            Ok(lane.output.lines()?.iter().any(|line| matches!(line, Line::Start(_))))
        })
    }

    /// Lets one fault after another happen.
    pub(super) fn trouble(&mut self, until: Instant, done: &AtomicBool) -> Result<()> {
        while Instant::now() < until && !done.load(Ordering::Relaxed) {
            let pause = self.random.time(0, 1500);
            std::thread::sleep(pause);
            let fault = self.next_fault();
            let name = fault.name();
            self.happen(fault).with_context(|| format!("{}: {name}: {}", self.name, self.last_words()))?;
            *self.report.faults.entry(name).or_default() += 1;
            self.look_at_pins();
        }
        Ok(())
    }

    /// All its lines so far.
    pub(super) fn lines(&mut self) -> Result<Vec<Line>> {
        self.output.lines()
    }

    /// Ends the tracer and removes its programs. Returns its lines.
    pub(super) fn finish(
        &mut self,
        detached: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<(Vec<Line>, Report)> {
        self.end().with_context(|| self.last_words())?;
        self.wait("a stop line", |lane| Ok(lane.output.lines()?.last() == Some(&Line::Stop)))?;
        detached(&self.pins)?;
        Ok((self.output.lines()?, self.report.clone()))
    }

    fn on_disk(&mut self) -> Result<&mut super::output::OnDisk> {
        match &mut self.output {
            Output::File(file) => Ok(file),
            Output::Pipe(_) => bail!("a pipe is on no disk"),
        }
    }

    fn pause_reader(&self, paused: bool) {
        if let Output::Pipe(pipe) = &self.output {
            pipe.pause(paused);
        }
    }

    /// While two sets of programs are pinned, two are attached.
    fn look_at_pins(&mut self) {
        let is_set = |entry: &fs::DirEntry| entry.path().is_dir();
        let sets = fs::read_dir(&self.pins).map_or(0, |found| found.flatten().filter(is_set).count());
        if sets < 2
            && let Some(since) = self.two_since.take()
        {
            self.report.two.push((since, Instant::now()));
        }
    }

    fn start(&mut self) -> Result<()> {
        let (binary, ring) = self.turn;
        let binary = self.binaries.get(binary).context("no such binary")?;
        let mut command = Command::new(binary);
        let pins = self.pins.to_str().context("a path that is no text")?;
        command.args(["run", "-o", "json", &format!("--pin={pins}"), "--ring-size"]);
        command.arg(RINGS.get(ring).context("no such ring")?);
        self.output.given_to(&mut command)?;
        let said = File::options().append(true).create(true).open(&self.said)?;
        command.stdin(Stdio::null()).stderr(said);
        // It must end when the run is killed, and a rotation must not kill it before it is the tracer.
        // SAFETY: system calls only, which is all that is allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        self.child = Some(command.spawn().with_context(|| binary.display().to_string())?);
        self.report.starts += 1;
        Ok(())
    }

    /// Starts a tracer and kills it soon.
    fn start_and_kill(&mut self) -> Result<()> {
        self.start()?;
        let soon = self.random.time(0, 400);
        std::thread::sleep(soon);
        self.kill()
    }

    fn kill(&mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it with SIGTERM.
    fn end(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        let mut child = self.child.take().context("no tracer")?;
        let status = until("the tracer's end", || Ok(child.try_wait()?))?;
        // A process that was just started does not handle the signal yet.
        ensure!(status.success() || status.signal() == Some(libc::SIGTERM), "the tracer ended: {status}");
        Ok(())
    }

    /// Sends SIGSTOP and waits until it is stopped.
    fn stop_still(&mut self) -> Result<()> {
        self.signal(libc::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.pid()?);
        self.wait("a tracer that stands still", |_| {
            let text = fs::read_to_string(&stat)?;
            Ok(text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
        })
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("no tracer")?.id())
    }

    /// Sends a signal to a tracer that must exist.
    fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        let child = self.child.as_mut().context("no tracer")?;
        if let Some(status) = child.try_wait()? {
            bail!("the tracer ended by itself: {status}");
        }
        let pid = child.id();
        // One that has just ended has none.
        self.report.memory_kb = self.report.memory_kb.max(status_kib(pid, "VmHWM").unwrap_or(0));
        send_signal(pid, signal)
    }

    /// Waits until `done` returns true.
    pub(super) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        until(what, || Ok(done(self)?.then_some(())))
            .with_context(|| format!("{}: {}", self.name, self.last_words()))
    }

    /// The last lines that its tracers wrote to standard error.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.said).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has most likely ended already.
            let _ended = child.kill();
            let _waited = child.wait();
        }
    }
}
