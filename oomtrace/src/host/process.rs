//! What only `/proc` knows of a victim: its executable and its command line. Ids and a start time go in, text or
//! the reason for its absence comes out, within a bound of time.
//!
//! Reading a command line takes the victim's mmap lock, which a dying process may hold for long. So a
//! thread of its own reads, and nobody waits for it longer than asked. That thread sleeps unless there is something to read.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use crate::{
    facts::{BootTime, CommandLine},
    host::{identity, root::Root},
};

/// Bytes of a command line that are kept.
pub const COMMAND_LINE_BYTES: usize = 1024;

/// The thread's stack: it calls little and recurses nowhere.
const STACK_BYTES: usize = 64 * 1024;

/// What `/proc` knows of a victim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Target of `/proc/PID/exe`: any bytes but NUL. The kernel appends ` (deleted)` where the file is gone.
    pub executable: Result<Vec<u8>, Reason>,
    /// `/proc/PID/cmdline`, arguments joined with blanks: any bytes but NUL.
    pub command_line: Result<Vec<u8>, Reason>,
    /// The command line is longer than what is kept of it.
    pub command_line_cut: bool,
}

impl ProcessFacts {
    /// Neither, for one reason.
    pub(crate) fn none(reason: Reason) -> Self {
        Self { executable: Err(reason.clone()), command_line: Err(reason), command_line_cut: false }
    }
}

/// Why a fact is absent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The thread is still busy with an earlier victim.
    #[error("/proc read of pid {0} still pending")]
    Pending(u32),
    /// It took longer than the caller waits.
    #[error("/proc did not answer in {0:?}")]
    TooSlow(Duration),
    /// Without a start time the process cannot be told from a later one with its id.
    #[error("start time not known, so the process cannot be told from a later one with its pid")]
    StartUnknown,
    /// There is no process with this id any more.
    #[error("process already gone")]
    Gone,
    /// The process is there and has no memory any more.
    #[error("memory already released")]
    Released,
    /// Its command line has no text: it was overwritten, or went with the memory.
    #[error("/proc/PID/cmdline is empty")]
    Empty,
    /// Another process has the id now.
    #[error("pid already in use by another process")]
    AnotherProcess,
    /// `/proc` said something that cannot be read.
    #[error("/proc/PID/stat not understood")]
    Unreadable,
    /// The kernel's answer.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// Nobody is there to read it, or it is not known whose it would be.
    #[error("not read")]
    NotRead,
    /// The reading thread has ended.
    #[error("the /proc reader has ended")]
    Ended,
}

impl From<rustix::io::Errno> for Reason {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::SRCH => Self::Gone,
            other => Self::Io(other.kind()),
        }
    }
}

/// Reads `/proc/PID` of victims.
///
/// The thread inherits the scheduling of the one that creates this.
#[derive(Debug)]
pub struct ProcessReader {
    shared: Arc<Shared>,
    proc: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or an end to it all.
    job: Condvar,
    /// There is an answer.
    answer: Condvar,
}

#[derive(Debug, Default)]
struct State {
    job: Job,
    /// The process asked for, until its files are read.
    busy: Option<u32>,
    end: bool,
    executable: Option<Result<Vec<u8>, Reason>>,
    command_line: Option<Result<(Vec<u8>, bool), Reason>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Job {
    tid: u32,
    tgid: u32,
    start: u64,
    waiting: bool,
}

impl Shared {
    /// No code panics while it holds the lock, and every state is a valid one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessReader {
    /// Starts the thread.
    pub fn new(root: &Root) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let files =
            Files { proc: root.path("/proc"), tick_ns: 1_000_000_000 / identity::ticks_per_second().max(1) };
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("oomtrace-proc".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&theirs, &files))?;
        Ok(Self { shared, proc: root.path("/proc") })
    }

    /// The executable alone, read at once and by the caller: that takes no lock of the victim's memory.
    ///
    /// Whose id it is cannot be checked without one, so only for a victim marked a moment ago: an id is not used
    /// again before all others were.
    pub fn executable(&self, tid: u32) -> Result<Vec<u8>, Reason> {
        match readlinkat(CWD, self.proc.join(format!("{tid}/exe")), Vec::new()) {
            Ok(path) => Ok(path.into_bytes()),
            // Whether the process has gone or only its memory makes no difference to the reader.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Err(Reason::Released),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The facts of the process `tgid`, one of whose threads `tid` has (or had) the memory, as far as they can be had
    /// within `wait`.
    ///
    /// Only of the very process that started at `start`: the thread's or its process's `start_boottime`.
    pub fn read(&mut self, tid: u32, tgid: u32, start: Option<BootTime>, wait: Duration) -> ProcessFacts {
        let Some(BootTime(start)) = start else { return ProcessFacts::none(Reason::StartUnknown) };
        let deadline = Instant::now().checked_add(wait);
        let mut state = self.shared.lock();
        if state.end {
            return ProcessFacts::none(Reason::Ended);
        }
        if let Some(pid) = state.busy {
            return ProcessFacts::none(Reason::Pending(pid));
        }
        state.job = Job { tid, tgid, start, waiting: true };
        state.busy = Some(tgid);
        state.executable = None;
        state.command_line = None;
        self.shared.job.notify_one();
        while state.busy.is_some() && !state.end {
            let left = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.shared.answer.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let late = || if state.end { Reason::Ended } else { Reason::TooSlow(wait) };
        let (command_line, command_line_cut) = match state.command_line.clone() {
            Some(Ok((text, cut))) => (Ok(text), cut),
            Some(Err(reason)) => (Err(reason), false),
            None => (Err(late()), false),
        };
        let executable = state.executable.clone().unwrap_or_else(|| Err(late()));
        ProcessFacts { executable, command_line, command_line_cut }
    }
}

impl Drop for ProcessReader {
    /// Tells the thread to end. It is not waited for: it may be stuck in the kernel until a victim has died.
    fn drop(&mut self) {
        self.shared.lock().end = true;
        self.shared.job.notify_one();
    }
}

/// Marks the reader as ended however the thread ends.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.lock().end = true;
        self.0.answer.notify_one();
    }
}

fn serve(shared: &Shared, files: &Files) {
    let _ending = Ending(shared);
    loop {
        let mut state = shared.lock();
        while !state.end && !state.job.waiting {
            state = shared.job.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.end {
            return;
        }
        let job = state.job;
        state.job.waiting = false;
        drop(state);

        let command_line = match files.identify(job) {
            Ok((dir, executable)) => {
                shared.lock().executable = Some(executable);
                command_line(&dir)
            }
            Err(reason) => {
                shared.lock().executable = Some(Err(reason.clone()));
                Err(reason)
            }
        };

        let mut state = shared.lock();
        state.command_line = Some(command_line);
        state.busy = None;
        drop(state);
        shared.answer.notify_one();
    }
}

struct Files {
    proc: PathBuf,
    tick_ns: u64,
}

impl Files {
    /// The victim's directory, and its executable, which is read before anything else: it goes with the memory.
    ///
    /// A directory of `/proc` stays that of the process it was opened for, also when its id is used again: so what was
    /// read through it before the check of the start time is the same process's as what is read after.
    fn identify(&self, job: Job) -> Result<(OwnedFd, Result<Vec<u8>, Reason>), Reason> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(self.proc.join(job.tid.to_string()), flags, Mode::empty())?;
        let executable = readlinkat(&dir, "exe", Vec::new());
        let same = self.started(&dir, "stat")? == job.start / self.tick_ns
            || (job.tid != job.tgid
                && self.started(&dir, &format!("task/{}/stat", job.tgid))? == job.start / self.tick_ns);
        if !same {
            return Err(Reason::AnotherProcess);
        }
        let executable = match executable {
            Ok(path) => Ok(path.into_bytes()),
            // The process is there, as its start time shows.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Err(Reason::Released),
            Err(errno) => Err(errno.into()),
        };
        Ok((dir, executable))
    }

    /// Field 22 of a `stat`: when the task started, in ticks since boot.
    fn started(&self, dir: &OwnedFd, stat: &str) -> Result<u64, Reason> {
        // Only the comm, of at most 64 bytes as the kernel escapes it, and 21 numbers come before the end of field 22.
        let (text, _) = read::<1024>(dir, stat)?;
        start_ticks(&text).ok_or(Reason::Unreadable)
    }
}

/// The start time of a `stat` line. The comm before it stands in parentheses and may hold any, blanks too.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let after = str::from_utf8(stat.get(end + 1..)?).ok()?;
    // Field 3 comes first.
    after.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn command_line(dir: &OwnedFd) -> Result<(Vec<u8>, bool), Reason> {
    let (text, cut) = read::<COMMAND_LINE_BYTES>(dir, "cmdline")?;
    one_line(text).map(|text| (text, cut)).ok_or(Reason::Empty)
}

/// What the kernel side read of the victim's arguments, as `/proc/PID/cmdline` has them. `None` where that has more than
/// the arguments: a process that gave itself a title ends them without a NUL.
pub fn command_line_of(read: &CommandLine) -> Option<Vec<u8>> {
    let titled = !read.cut && read.arguments.last() != Some(&0);
    if titled { None } else { one_line(read.arguments.clone()) }
}

/// Arguments joined with blanks; `None` if there is nothing.
fn one_line(mut text: Vec<u8>) -> Option<Vec<u8>> {
    let kept = text.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    text.truncate(kept);
    for byte in &mut text {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The first `N` bytes of a file, and whether there are more.
fn read<const N: usize>(dir: &OwnedFd, name: &str) -> Result<(Vec<u8>, bool), Reason> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(N + 1);
    while text.len() <= N {
        let mut chunk = [0; 512];
        let wanted = chunk.len().min(N + 1 - text.len());
        let got = match rustix::io::read(&file, chunk.get_mut(..wanted).unwrap_or_default()) {
            Ok(got) => got,
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if got == 0 {
            break;
        }
        text.extend_from_slice(chunk.get(..got).unwrap_or_default());
    }
    let cut = text.len() > N;
    text.truncate(N);
    Ok((text, cut))
}

#[cfg(test)]
mod tests;
