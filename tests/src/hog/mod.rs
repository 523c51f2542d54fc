//! Processes that run out of memory on purpose, from the side that controls them.
//!
//! A hog is this binary, started again with [`SUBCOMMAND`]. It does nothing until it gets a command, one line
//! on its stdin for each step, and answers on its stdout. So a scenario can put it into its cgroup and note
//! all facts before it uses memory. A hog must never grow outside a cgroup with a limit, unless the machine
//! is a guest.

mod memory;
mod namespace;
mod reuse;
mod serve;
mod signals;
mod storm;
mod tasks;

pub use memory::memory_file;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::patience::{PATIENCE, until};
use crate::process::{ProcessFacts, send_signal};

/// First argument of a hog.
pub const SUBCOMMAND: &str = "hog";
/// First argument of the process that removes the test's cgroups after the test.
pub const TIDY: &str = "tidy";

/// Serves and never returns, if this process was started as a hog or to tidy up.
pub fn serve_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == SUBCOMMAND => serve::hog(),
        Some(word) if word == TIDY => serve::tidy(arguments.next().as_deref().map(Path::new)),
        _ => {}
    }
}

/// Starts this binary again.
fn again(word: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where this binary is")?);
    command.arg(word).stdin(Stdio::piped());
    Ok(command)
}

/// Bytes as a word of a command.
fn word(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A process that removes a cgroup tree after this process has ended in any way.
#[derive(Debug)]
pub struct Tidier(Child);

impl Tidier {
    /// Removes `dir` later.
    pub fn over(dir: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        // Its own process group, because Ctrl-C must not end it too.
        let child = again(TIDY)?.arg(dir).process_group(0).spawn().context("start the tidier")?;
        Ok(Self(child))
    }
}

impl Drop for Tidier {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // If it cannot be waited for, nothing more can be done.
        let _ignored = self.0.wait();
    }
}

/// A hog.
#[derive(Debug)]
pub struct Hog {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// Output that was not read yet.
    said: Vec<u8>,
    /// Lines that arrived while waiting for others.
    aside: Vec<String>,
}

impl Hog {
    /// Starts one in the caller's own cgroup.
    pub fn start() -> Result<Self> {
        let mut child = again(SUBCOMMAND)?.stdout(Stdio::piped()).spawn().context("start a hog")?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a hog without pipes");
        };
        let mut hog = Self { child, stdin, stdout, said: Vec::new(), aside: Vec::new() };
        hog.hear("ready")?;
        Ok(hog)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The facts that `/proc` has now.
    pub fn facts(&self) -> Result<ProcessFacts> {
        ProcessFacts::of(self.pid(), self.pid())
    }

    /// Sends a command and does not wait.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.stdin, "{command}").with_context(|| format!("tell a hog: {command}"))
    }

    /// Sends a command and waits for `ok`.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.tell(command)?;
        self.hear("ok").with_context(|| format!("hog, after: {command}"))
    }

    /// Enters a cgroup through its `cgroup.procs`.
    pub fn join(&mut self, procs: &Path) -> Result<()> {
        self.ask(&format!("join {}", word(procs.as_os_str().as_bytes()))).map(drop)
    }

    /// Takes a name of any bytes.
    pub fn name(&mut self, comm: &[u8]) -> Result<()> {
        self.ask(&format!("comm {}", word(comm))).map(drop)
    }

    /// Writes `value` to `file`. Returns the kernel's answer.
    pub fn write(&mut self, file: &Path, value: &str) -> Result<String> {
        self.ask(&format!("write {} {}", word(file.as_os_str().as_bytes()), word(value.as_bytes())))
    }

    /// Continues in a new thread. With `leader_exits` the first thread ends. Returns the thread's id.
    pub fn go_on_in_thread(&mut self, leader_exits: bool) -> Result<u32> {
        let answer = self.ask(if leader_exits { "thread exit" } else { "thread stay" })?;
        answer.parse().with_context(|| format!("a thread id: {answer}"))
    }

    /// Starts a process that shares its memory and does nothing. Returns its id.
    pub fn share_memory(&mut self) -> Result<u32> {
        let answer = self.ask("share")?;
        answer.parse().with_context(|| format!("a process id: {answer}"))
    }

    /// Starts a child that takes all further commands until it is dead. Returns its process id in this
    /// namespace.
    pub fn child(&mut self, in_new_pid_namespace: bool) -> Result<u32> {
        self.tell(if in_new_pid_namespace { "child apart" } else { "child" })?;
        let pid = self.hear("spawned")?;
        self.hear("ready")?;
        pid.parse().with_context(|| format!("a process id: {pid}"))
    }

    /// Makes the first process of a pid namespace run the OOM killer, survive, and end with many others in
    /// it.
    pub fn end_a_namespace(&mut self) -> Result<()> {
        self.ask("namespace").map(drop)
    }

    /// Gets children killed in a cgroup, and gives each id to `/bin/sleep` before the tracer can read it.
    /// Returns the ids.
    pub fn reuse_ids(&mut self, procs: &Path, times: usize, tracer: u32) -> Result<Vec<u64>> {
        let procs = word(procs.as_os_str().as_bytes());
        let ids = self.ask(&format!("reuse {procs} {times} {tracer}"))?;
        ids.split_ascii_whitespace().map(|id| id.parse().context("a process id")).collect()
    }

    /// Makes the hog create the cgroups with these numbers below `service`, each named like a container. Does
    /// not wait.
    pub fn rage(&mut self, service: &Path, from: usize, count: usize) -> Result<()> {
        self.tell(&format!("rage {} {from} {count}", word(service.as_os_str().as_bytes())))
    }

    /// Waits until all of these were created. Returns how many kills there were.
    pub fn raged(&mut self) -> Result<usize> {
        let kills = self.hear("ok")?;
        kills.parse().with_context(|| format!("a count of kills: {kills}"))
    }

    /// Makes the hog create cgroups below `service`, each below the one before, and get a child killed in the
    /// last. Returns the child's id.
    pub fn kill_below(&mut self, service: &Path, names: &str) -> Result<u64> {
        let names = names.replace('/', " ");
        let pid = self.ask(&format!("kill-below {} {names}", word(service.as_os_str().as_bytes())))?;
        pid.parse().with_context(|| format!("a process id: {pid}"))
    }

    /// The id of the container after which this cgroup is named.
    pub fn id_of(number: usize) -> String {
        storm::id(number)
    }

    /// Makes the hog change the times of these files until it ends.
    pub fn touch_for_ever(&mut self, files: &[PathBuf]) -> Result<()> {
        let words: Vec<String> = files.iter().map(|file| word(file.as_os_str().as_bytes())).collect();
        self.tell(&format!("touch {}", words.join(" ")))
    }

    /// Waits for the end of its child. Returns the signal.
    pub fn child_ended_by(&mut self) -> Result<i32> {
        let signal = self.hear("ended")?;
        signal.parse().with_context(|| format!("a signal: {signal}"))
    }

    /// Uses memory of a kind (`anon`, `shmem`) until it is killed.
    pub fn grow(&mut self, kind: &str) -> Result<()> {
        // Far more than any limit here, but far less than the address space.
        self.tell(&format!("{kind} {}", 4_u64 << 30))
    }

    /// Uses this much and stays alive.
    pub fn hold(&mut self, bytes: u64) -> Result<()> {
        self.ask(&format!("anon {bytes}")).map(drop)
    }

    /// Waits until it uses what it was told to use.
    pub fn holds(&mut self) -> Result<()> {
        self.hear("ok").map(drop)
    }

    /// Writes a file of this size and keeps its pages in the page cache.
    pub fn cache(&mut self, file: &Path, bytes: u64) -> Result<()> {
        self.ask(&format!("cache {} {bytes}", word(file.as_os_str().as_bytes()))).map(drop)
    }

    /// Keeps the pages of a file in memory, so that the kernel cannot reclaim them.
    pub fn lock_file(&mut self, file: &Path) -> Result<()> {
        self.ask(&format!("lock-file {}", word(file.as_os_str().as_bytes()))).map(drop)
    }

    /// Makes a thread hold the lock of its memory until the server of `file`, in a
    /// [`Fuse`](crate::fuse::Fuse), is gone.
    pub fn lock_memory(&mut self, file: &Path) -> Result<()> {
        self.ask(&format!("lock {}", word(file.as_os_str().as_bytes()))).map(drop)
    }

    /// Writes this much into a file that is there already.
    pub fn pour(&mut self, file: &Path, bytes: u64) -> Result<()> {
        self.ask(&format!("pour {} {bytes}", word(file.as_os_str().as_bytes()))).map(drop)
    }

    /// Waits until SIGKILL has ended it.
    pub fn killed(&mut self) -> Result<()> {
        let pid = self.pid();
        let status = until(&format!("the end of hog {pid}"), || Ok(self.child.try_wait()?))?;
        ensure!(status.signal() == Some(libc::SIGKILL), "hog {pid} ended by itself: {status}");
        Ok(())
    }

    /// Stops it with SIGSTOP, or continues it.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        send_signal(self.pid(), if frozen { libc::SIGSTOP } else { libc::SIGCONT })
    }

    /// Whether it is alive.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for a line that starts with `word`. Returns the rest.
    fn hear(&mut self, word: &str) -> Result<String> {
        let of = |line: &str| line.strip_prefix(word).map(|rest| rest.trim().to_owned());
        if let Some(at) = self.aside.iter().position(|line| of(line).is_some()) {
            return of(&self.aside.remove(at)).ok_or_else(|| anyhow!("a line changed"));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.line(deadline).with_context(|| format!("wait for a hog to say {word:?}"))?;
            if let Some(rest) = of(&line) {
                return Ok(rest);
            }
            ensure!(!line.starts_with("failed"), "hog {}: {line}", self.pid());
            self.aside.push(line);
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        use std::io::Read;
        loop {
            if let Some(end) = self.said.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.said.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.stdout.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, alive through the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left.as_millis())?) };
            ensure!(ready > 0, "hog {} said nothing in {PATIENCE:?}", self.pid());
            let mut chunk = [0; 256];
            let read = self.stdout.read(&mut chunk)?;
            ensure!(read > 0, "hog {} is gone", self.pid());
            self.said.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // It may be dead already, and then there is nothing to kill.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}
