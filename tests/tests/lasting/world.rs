//! The tracer, its pins, its output, and kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use oomtrace_tests::cgroup::{Cgroup, Hierarchy, Scratch};
use oomtrace_tests::counters::oom_kills;
use oomtrace_tests::patience::until;
use oomtrace_tests::process::send_signal;
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer::{at, binary};
use serde_json::Value;

/// Hogs that run at a time.
const AT_A_TIME: usize = 16;
/// What each of them may use, in bytes.
const LIMIT: u64 = 4 << 20;

/// Sets or clears the file's flag. Returns whether the file system has it.
pub fn immutable(file: &Path, immutable: bool) -> Result<bool> {
    const GET: libc::Ioctl = 0x8008_6601_u32 as libc::Ioctl;
    const SET: libc::Ioctl = 0x4008_6602;
    const IMMUTABLE: libc::c_long = 0x10;
    let file = fs::File::open(file)?;
    let mut flags: libc::c_long = 0;
    // SAFETY: a descriptor of ours; the flags are alive through the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), GET, &raw mut flags) } != 0 {
        return Ok(false);
    }
    flags = if immutable { flags | IMMUTABLE } else { flags & !IMMUTABLE };
    // SAFETY: as above.
    Ok(unsafe { libc::ioctl(file.as_raw_fd(), SET, &raw const flags) } == 0)
}

/// A scratch cgroup, a directory of pins and an output for one test.
pub struct World {
    pub scratch: Scratch,
    pub binary: PathBuf,
    pub name: String,
    pub dir: PathBuf,
    /// The kernel's count of kills before this test.
    counted: u64,
}

impl World {
    pub fn make(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("oomtrace-test-{}-{name}", std::process::id()));
        fs::create_dir(&dir)?;
        let scratch = Scratch::make(&Hierarchy::find()?)?;
        let name = format!("oomtrace-test-{}-{name}", std::process::id());
        Ok(Self { scratch, binary: binary()?, name, dir, counted: oom_kills()? })
    }

    /// Whether `count` is `own` plus at most the kills of others on this host until now.
    pub fn is_count(&self, count: u64, own: u64) -> Result<bool> {
        let others = oom_kills()?.saturating_sub(self.counted).saturating_sub(own);
        Ok((own..=own + others).contains(&count))
    }

    /// The victims in this test's cgroups.
    pub fn own_victims_of(&self, lines: &[Value]) -> BTreeSet<u64> {
        let ours = format!("{}/", String::from_utf8_lossy(&self.scratch.cgroup().place().path));
        let is_ours = |line: &&Value| {
            let path = at(line, "victim.cgroup.path").and_then(Value::as_str);
            path.is_some_and(|path| path.starts_with(&ours))
        };
        victims_of(&lines.iter().filter(is_ours).cloned().collect::<Vec<_>>())
    }

    pub fn pins(&self) -> String {
        format!("/sys/fs/bpf/{}", self.name)
    }

    pub fn output(&self) -> PathBuf {
        self.dir.join("lines")
    }

    pub fn run_unpinned(&self, more: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["run", "-o", "json", "--file"]).arg(self.output()).args(more);
        command
    }

    pub fn run(&self, more: &[&str]) -> Command {
        let mut command = self.run_unpinned(more);
        command.arg(format!("--pin={}", self.pins()));
        command
    }

    pub fn oomtrace(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(&self.binary).args(arguments).stdin(Stdio::null()).output()?)
    }

    /// Makes kills. Returns the thread ids of the victims.
    pub fn kills(&self, count: usize) -> Result<BTreeSet<u64>> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Result<BTreeSet<u64>>> = Mutex::new(Ok(BTreeSet::new()));
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME.min(count) {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        let kill = kill(self.scratch.cgroup(), next_number());
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        match (kill, done.as_mut()) {
                            (Ok(pid), Ok(pids)) => _ = pids.insert(pid),
                            (Err(error), Ok(_)) => *done = Err(error),
                            _ => return,
                        }
                    }
                });
            }
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn generations(&self) -> Result<usize> {
        Ok(self.generations_now()?.len())
    }

    pub fn generation(&self) -> Result<PathBuf> {
        self.generations_now()?.into_iter().next().context("nothing is pinned")
    }

    /// Beside them are the maps that a run keeps for the next.
    fn generations_now(&self) -> Result<Vec<PathBuf>> {
        let paths = fs::read_dir(self.pins())?.map(|entry| Ok(entry?.path()));
        Ok(paths.collect::<Result<Vec<_>>>()?.into_iter().filter(|path| path.is_dir()).collect())
    }

    pub fn started(&self) -> Result<()> {
        self.started_times(1)
    }

    pub fn started_times(&self, times: usize) -> Result<()> {
        wait_for("a start line", || self.started_now() >= times)
    }

    pub fn started_now(&self) -> usize {
        fs::read_to_string(self.output()).map_or(0, |text| text.matches("\"type\":\"start\"").count())
    }

    /// All lines, which must be complete JSON.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.output())?;
        ensure!(text.ends_with('\n'), "the last line is torn");
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    /// Removes the programs and checks that nothing is left.
    pub fn detach(&self) -> Result<()> {
        let detached = self.oomtrace(&["detach", &self.pins()])?;
        ensure!(detached.status.success(), "detach: {}", String::from_utf8_lossy(&detached.stderr));
        ensure!(!Path::new(&self.pins()).exists(), "{} is still there", self.pins());
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed test left.
        let _gone_already = self.oomtrace(&["detach", &self.pins()]);
        if !std::thread::panicking() {
            let _ignored = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A tracer. It ends with the test.
pub struct Run {
    pub child: Child,
}

impl Run {
    pub fn start(command: &Command) -> Result<Self> {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
        // The test ignores its limits, but shows its errors.
        Ok(Self { child: again.stderr(Stdio::inherit()).spawn()? })
    }

    pub fn kill_only(&mut self, signal: libc::c_int) -> Result<()> {
        send_signal(self.child.id(), signal)
    }

    pub fn kill(&mut self, signal: libc::c_int) -> Result<()> {
        self.kill_only(signal)?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it ends by itself, normally.
    pub fn ended(&mut self) -> Result<()> {
        let status = until("oomtrace's end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "oomtrace: {status}");
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It has most likely ended already.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

pub fn next_number() -> usize {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

pub fn kill(scratch: &Cgroup, number: usize) -> Result<u64> {
    let cgroup = scratch.child(format!("lasting-{number}").as_bytes())?;
    let pid = kill_in(&cgroup)?;
    cgroup.remove()?;
    Ok(pid)
}

pub fn kill_in(cgroup: &Cgroup) -> Result<u64> {
    cgroup.limit(LIMIT)?;
    let mut hog = start_hog(false, b"hog")?;
    hog.join(&cgroup.procs())?;
    let pid = hog.pid();
    hog.grow("anon")?;
    hog.killed()?;
    Ok(pid.into())
}

pub fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<()> {
    until(what, || Ok(done().then_some(())))
}

pub fn is<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub fn victims_of(lines: &[Value]) -> BTreeSet<u64> {
    let kills = lines.iter().filter(|line| is(line, "type") == "oom_kill");
    kills.filter_map(|line| at(line, "victim.tid")?.as_u64()).collect()
}

/// In each stream, each number follows the last one or repeats it. A line with the identity of an earlier
/// line must be that line again.
pub fn no_hole(lines: &[Value]) -> Result<()> {
    let mut last = BTreeMap::new();
    let mut known = BTreeMap::new();
    for line in lines {
        let stream = is(line, "stream");
        let seq = line.get("seq").and_then(Value::as_u64);
        if let Some(seq) = seq {
            ensure!(!stream.is_empty(), "a number of no stream: {line}");
            let last = last.entry(stream).or_insert(0);
            ensure!(seq == *last || seq == *last + 1, "after seq {last}: {line}");
            *last = seq;
        }
        let what =
            [line.get("type"), at(line, "victim.tid"), line.get("of"), line.get("reason"), line.get("total")];
        let earlier = known.entry((stream, seq, is(line, "id"))).or_insert(what);
        ensure!(*earlier == what, "same identity as {earlier:?}: {line}");
    }
    Ok(())
}

/// The ids of the links that a process holds.
pub fn links_of(pid: u32) -> Result<Vec<u32>> {
    let mut links = Vec::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
        links.extend(text.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse::<u32>().ok()));
    }
    Ok(links)
}

/// Whether the kernel still has a link.
pub fn is_attached(link: u32) -> Result<bool> {
    const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
    let attributes = [link, 0, 0, 0];
    // SAFETY: the attributes are alive through the call, which only reads them.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_GET_FD_BY_ID, &raw const attributes, size_of_val(&attributes))
    };
    if fd >= 0 {
        // SAFETY: made by the call above, and nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) });
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    ensure!(error.raw_os_error() == Some(libc::ENOENT), "look for a link: {error}");
    Ok(false)
}
