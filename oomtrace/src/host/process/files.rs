//! What a thread reads of a victim, and the check that it is the victim's.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat, readlinkat};

use crate::host::{
    process::{COMMAND_LINE_BYTES, CommandLineChoice, Reason, command_line::one_line, fields},
    root::Root,
};

/// A command line, and whether it is longer than what is kept.
pub(super) type CommandLineRead = Result<(Vec<u8>, bool), Reason>;

/// What a thread has to read.
pub(super) struct Job {
    pub(super) tid: u32,
    pub(super) tgid: u32,
    pub(super) start: u64,
    pub(super) marked: u64,
    pub(super) command_line: bool,
}

/// Where it reads, and how.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) proc: PathBuf,
    pub(super) tick_ns: u64,
    /// How much of a command line is read.
    pub(super) wanted: CommandLineChoice,
}

impl Files {
    /// The victim's directory and its executable. The executable is read first, because it goes with the
    /// memory.
    ///
    /// An open directory of `/proc` stays with its process, even if the id is used again. So what was read
    /// through it before the check of the start time belongs to the same process as what is read after.
    ///
    /// A later process with this id started after the mark, so in a later tick than the victim; or in the
    /// same tick, if the victim started just before its mark.
    pub(super) fn identify(&self, job: &Job) -> Result<(OwnedFd, Result<Vec<u8>, Reason>), Reason> {
        let start = job.start / self.tick_ns;
        if start >= job.marked / self.tick_ns {
            return Err(Reason::StartedJustBefore);
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(self.proc.join(job.tid.to_string()), flags, Mode::empty())?;
        let executable = readlinkat(&dir, "exe", Vec::new());
        let same = self.started(&dir, "stat")? == start
            || (job.tid != job.tgid && self.started(&dir, &format!("task/{}/stat", job.tgid))? == start);
        if !same {
            return Err(Reason::AnotherProcess);
        }
        let executable = match executable {
            Ok(path) => Ok(path.into_bytes()),
            // The process exists, as its start time shows.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Err(Reason::Released),
            Err(errno) => Err(errno.into()),
        };
        Ok((dir, executable))
    }

    /// Field 22 of a `stat`: when the task started, in ticks since boot.
    fn started(&self, dir: &OwnedFd, stat: &str) -> Result<u64, Reason> {
        // Before the end of field 22 there are only the comm, at most 64 bytes after escaping, and 21
        // numbers.
        let (text, _) = read::<1024>(dir, stat)?;
        start_ticks(&text).ok_or(Reason::Unreadable)
    }
}

pub(super) fn start_ticks(stat: &[u8]) -> Option<u64> {
    fields::Stat::parse(stat)?.start_ticks()
}

/// When a process started, in ticks since boot; `None` if there is none with this pid. Read by a thread that may wait.
pub(crate) fn started_ticks(root: &Root, tgid: u32) -> Option<u64> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root.path(format!("/proc/{tgid}")), flags, Mode::empty()).ok()?;
    start_ticks(&read::<1024>(&dir, "stat").ok()?.0)
}

pub(super) fn command_line(dir: &OwnedFd, wanted: CommandLineChoice) -> CommandLineRead {
    let (text, cut) = read::<COMMAND_LINE_BYTES>(dir, "cmdline")?;
    one_line(text, cut, wanted).ok_or(Reason::Empty)
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
