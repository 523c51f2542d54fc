//! The tracer, named kills, and a temporary directory.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use oomtrace_tests::cgroup::{Cgroup, Hierarchy, Scratch};
use oomtrace_tests::hog::Hog;
use oomtrace_tests::patience::{PATIENCE, until};
use oomtrace_tests::process::send_signal;
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer;
use serde_json::Value;

/// A tracer that was killed and has not ended after this hangs.
const HANGS: Duration = Duration::from_secs(5);

pub struct World {
    pub scratch: Scratch,
    pub binary: PathBuf,
    number: Mutex<u32>,
}

impl World {
    pub fn make() -> Result<Self> {
        let scratch = Scratch::make(&Hierarchy::find()?)?;
        Ok(Self { scratch, binary: tracer::binary()?, number: Mutex::new(0) })
    }

    /// Makes this many kills, one after another. Returns the victims' names.
    pub fn kill(&self, count: usize) -> Result<Vec<String>> {
        (0..count).map(|_| self.kill_one()).collect()
    }

    /// What the names of its victims begin with, and of no other's.
    pub fn names() -> String {
        format!("f{}-", std::process::id() % 1_000_000)
    }

    fn next_name(&self) -> String {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        format!("{}{number}", Self::names())
    }

    pub fn kill_one(&self) -> Result<String> {
        let name = self.next_name();
        let cgroup = self.scratch.cgroup().child(name.as_bytes())?;
        cgroup.limit(8 << 20)?;
        let mut hog = start_hog(false, name.as_bytes())?;
        hog.join(&cgroup.procs())?;
        hog.grow("anon")?;
        hog.killed()?;
        cgroup.remove()?;
        Ok(name)
    }

    /// Kills a process because of the memory of another one in its cgroup. Returns its name.
    pub fn kill_another(
        &self,
        cgroup: &Cgroup,
        prepare: impl FnOnce(&mut Hog) -> Result<()>,
    ) -> Result<String> {
        let name = self.next_name();
        cgroup.limit(16 << 20)?;
        let mut hog = start_hog(false, name.as_bytes())?;
        hog.join(&cgroup.procs())?;
        hog.hold(11 << 20)?;
        prepare(&mut hog)?;
        let mut other = start_hog(false, b"other")?;
        other.join(&cgroup.procs())?;
        other.tell(&format!("anon {}", 8 << 20))?;
        hog.killed()?;
        Ok(name)
    }

    pub fn run(&self, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Result<Run> {
        self.run_below(&[], args, prepare)
    }

    /// The same, where the preparation may fail.
    pub fn try_run(&self, args: &[&str], prepare: impl FnOnce(&mut Command) -> Result<()>) -> Result<Run> {
        let mut prepared = Ok(());
        let run = self.run(args, |command| prepared = prepare(command))?;
        prepared.map(|()| run)
    }

    /// The same, started by another program.
    pub fn run_below(
        &self,
        above: &[&str],
        args: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Run> {
        let mut command = match above {
            [] => Command::new(&self.binary),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.binary);
                command
            }
        };
        command.args(["run", "-o", "json"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: one system call, which is all that may be done between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        prepare(&mut command);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Run { child, stdout })
    }
}

/// The tracer.
pub struct Run {
    pub child: Child,
    pub stdout: Option<BufReader<ChildStdout>>,
}

impl Run {
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        send_signal(self.child.id(), signal)
    }

    /// The next line, which must be complete.
    pub fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().ok_or_else(|| anyhow!("no stdout"))?;
        if stdout.buffer().is_empty() {
            let mut poll =
                libc::pollfd { fd: stdout.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, alive through the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(PATIENCE.as_millis())?) };
            ensure!(ready > 0, "no line in {PATIENCE:?}");
        }
        stdout.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "a torn line: {line:?}");
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Reads lines until the kill of the process with this name.
    pub fn lines_until(&mut self, name: &str) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let last = comm(&line) == Some(name);
            lines.push(line);
            if last {
                return Ok(lines);
            }
        }
    }

    /// Ends it. Returns the remaining lines, and what it wrote to stderr.
    pub fn stop(mut self) -> Result<(Vec<Value>, String)> {
        self.signal(libc::SIGTERM)?;
        let mut text = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_to_string(&mut text)?;
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {said}");
        Ok((lines_of(&text)?, said))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ignored = self.child.kill();
        // A tracer that hangs in the kernel ends only when what it waits for is gone, which may belong to this test.
        let deadline = Instant::now() + HANGS;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// All lines, which must be complete.
pub fn lines_of(text: &str) -> Result<Vec<Value>> {
    ensure!(text.is_empty() || text.ends_with('\n'), "a torn end: {:?}", text.lines().last());
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The victim's name, in the line of a kill.
pub fn comm(line: &Value) -> Option<&str> {
    if matches!(text(line, "type"), "incident" | "host_memory" | "stuck") {
        return None;
    }
    line.pointer("/victim/comm")?.as_str()
}

pub fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Checks that each of these was reported once and in this order, that no `seq` is missing and nothing was
/// lost.
pub fn all_told(lines: &[Value], names: &[String]) -> Result<()> {
    let told: Vec<&str> =
        lines.iter().filter_map(comm).filter(|comm| names.iter().any(|name| name == comm)).collect();
    ensure!(told == names, "reported {told:?}, not {names:?}");
    let lost: Vec<&Value> =
        lines.iter().filter(|line| matches!(text(line, "type"), "lost" | "gap")).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    let seqs: Vec<u64> = lines.iter().filter_map(|line| line.get("seq")?.as_u64()).collect();
    ensure!(seqs.iter().zip(1..).all(|(seq, at)| *seq == at), "seq: {seqs:?}");
    Ok(())
}

/// A new directory. A drop removes it.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("oomtrace-faults-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub fn mount_tmpfs(&self, options: &str) -> Result<()> {
        let (path, options) = (c_string(self.0.as_os_str().as_bytes())?, c_string(options.as_bytes())?);
        // SAFETY: strings that live through the call.
        let mounted = unsafe {
            libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast())
        };
        ensure!(mounted == 0, "mount a tmpfs: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Ok(path) = c_string(self.0.as_os_str().as_bytes()) {
            // SAFETY: a string that lives through the call. If nothing is mounted, the call fails without
            // harm.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ignored = fs::remove_dir_all(&self.0);
    }
}

pub fn c_string(bytes: &[u8]) -> Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(bytes)?)
}

/// Waits until the file has this kill. Its lines must be complete at any time.
pub fn file_tells(file: &Path, name: &str) -> Result<Vec<Value>> {
    until(name, || {
        let lines = lines_of(&fs::read_to_string(file).unwrap_or_default())?;
        Ok(lines.iter().any(|line| comm(line) == Some(name)).then_some(lines))
    })
}

/// Waits until the tracer is attached.
pub fn started(file: &Path) -> Result<()> {
    until("the start line", || Ok(fs::metadata(file).is_ok_and(|file| file.size() > 0).then_some(())))
}

pub fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
