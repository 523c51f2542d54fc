//! What only `/proc` knows of a victim: its executable and its command line. Ids and a start time go in, text or
//! the reason for its absence comes out, within a bound of time.
//!
//! Reading a command line takes the victim's mmap lock, which a dying process may hold for long, and a hostile one
//! for ever. So a thread of its own reads, nobody waits for it longer than asked, and another one serves the next victim.
//! The executable and the start time take no such lock and are read first. The threads sleep unless there is something to read.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use crate::{
    facts::{BootTime, CommandLine},
    host::{identity, root::Root},
    stderr::say,
};

/// Bytes of a command line that are kept.
pub const COMMAND_LINE_BYTES: usize = 1024;

/// A thread's stack: it calls little and recurses nowhere.
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
    /// As many command lines are being read as may be at once.
    #[error("{0} reads of earlier victims' /proc/PID/cmdline do not answer")]
    Pending(usize),
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

/// Command lines that may be read at once: each of them is of a victim whose memory somebody holds.
pub const READERS_MAX: usize = 8;

/// A reader is told as stuck after this.
const STUCK: Duration = Duration::from_secs(1);

/// Reads `/proc/PID` of victims.
///
/// The threads inherit the scheduling of the one that calls [`Self::read`].
#[derive(Debug)]
pub struct ProcessReader {
    files: Files,
    idle: Option<Thread>,
    /// Those whose answer nobody waits for any more.
    late: Vec<Thread>,
    stuck: u64,
}

/// A command line, and whether it is longer than what is kept of it.
type Answer = Result<(Vec<u8>, bool), Reason>;

/// A thread that reads one command line after the other. It ends once this is dropped, as soon as the kernel lets it: it is
/// never waited for.
#[derive(Debug)]
struct Thread {
    jobs: SyncSender<OwnedFd>,
    answers: Receiver<Answer>,
    /// The process asked for last, and when.
    of: u32,
    since: Instant,
    told: bool,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let (jobs, their_jobs) = sync_channel::<OwnedFd>(1);
        let (answer, answers) = sync_channel(1);
        let serve = move || {
            for dir in their_jobs {
                if answer.send(command_line(&dir)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("oomtrace-proc".to_owned()).stack_size(STACK_BYTES).spawn(serve)?;
        Ok(Self { jobs, answers, of: 0, since: Instant::now(), told: false })
    }
}

impl ProcessReader {
    /// Starts the first thread.
    pub fn new(root: &Root) -> io::Result<Self> {
        let tick_ns = 1_000_000_000 / identity::ticks_per_second().max(1);
        let files = Files { proc: root.path("/proc"), tick_ns };
        Ok(Self { files, idle: Some(Thread::start()?), late: Vec::new(), stuck: 0 })
    }

    /// The executable alone, read at once and by the caller: that takes no lock of the victim's memory.
    ///
    /// Whose id it is cannot be checked without one, so only for a victim marked a moment ago: an id is not used
    /// again before all others were.
    pub fn executable(&self, tid: u32) -> Result<Vec<u8>, Reason> {
        match readlinkat(CWD, self.files.proc.join(format!("{tid}/exe")), Vec::new()) {
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
        match self.files.identify(tid, tgid, start) {
            Ok((dir, executable)) => {
                let (command_line, command_line_cut) = match self.command_line(dir, tgid, wait) {
                    Ok((text, cut)) => (Ok(text), cut),
                    Err(reason) => (Err(reason), false),
                };
                ProcessFacts { executable, command_line, command_line_cut }
            }
            Err(reason) => ProcessFacts::none(reason),
        }
    }

    /// How many reads of a command line have taken longer than a second so far.
    pub fn stuck(&mut self) -> u64 {
        self.look_at_late();
        self.stuck
    }

    fn command_line(&mut self, dir: OwnedFd, tgid: u32, wait: Duration) -> Answer {
        self.look_at_late();
        if self.late.len() >= READERS_MAX {
            return Err(Reason::Pending(READERS_MAX));
        }
        let thread = self.idle.take().map_or_else(Thread::start, Ok);
        let mut thread = thread.map_err(|error| Reason::Io(error.kind()))?;
        thread.of = tgid;
        thread.since = Instant::now();
        thread.told = false;
        thread.jobs.try_send(dir).map_err(|_| Reason::Ended)?;
        match thread.answers.recv_timeout(wait) {
            Ok(answer) => {
                self.idle = Some(thread);
                answer
            }
            Err(RecvTimeoutError::Timeout) => {
                self.late.push(thread);
                Err(Reason::TooSlow(wait))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Reason::Ended),
        }
    }

    /// One whose late answer has come may read the next command line; the answer is nobody's.
    fn look_at_late(&mut self) {
        for mut thread in std::mem::take(&mut self.late) {
            match thread.answers.try_recv() {
                Ok(_nobodys) => self.idle = Some(thread),
                Err(TryRecvError::Disconnected) => {}
                Err(TryRecvError::Empty) => {
                    if !thread.told && thread.since.elapsed() >= STUCK {
                        thread.told = true;
                        self.stuck += 1;
                        self.tell_stuck(thread.of);
                    }
                    self.late.push(thread);
                }
            }
        }
    }

    /// The first of them, and then each power of two: who makes them stuck must not fill the log.
    fn tell_stuck(&self, pid: u32) {
        if self.stuck.is_power_of_two() {
            say(&format!(
                "oomtrace: /proc/{pid}/cmdline does not answer, because the victim's memory is locked: given up ({} so far, at most \
                 {READERS_MAX} at a time)",
                self.stuck
            ));
        }
    }
}

#[derive(Debug)]
struct Files {
    proc: PathBuf,
    tick_ns: u64,
}

impl Files {
    /// The victim's directory, and its executable, which is read before anything else: it goes with the memory.
    ///
    /// A directory of `/proc` stays that of the process it was opened for, also when its id is used again: so what was
    /// read through it before the check of the start time is the same process's as what is read after.
    ///
    /// Read by the caller: neither takes a lock that the victim may hold.
    fn identify(
        &self,
        tid: u32,
        tgid: u32,
        start: u64,
    ) -> Result<(OwnedFd, Result<Vec<u8>, Reason>), Reason> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(self.proc.join(tid.to_string()), flags, Mode::empty())?;
        let executable = readlinkat(&dir, "exe", Vec::new());
        let start = start / self.tick_ns;
        let same = self.started(&dir, "stat")? == start
            || (tid != tgid && self.started(&dir, &format!("task/{tgid}/stat"))? == start);
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
