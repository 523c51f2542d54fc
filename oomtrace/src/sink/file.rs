//! A file that lines are appended to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, stat};
use rustix::io::Errno;

use super::{Sink, SinkError, Unfinished, write_hint};

/// A file, a FIFO or a device. New lines go to its end, also where others write to it.
///
/// A FIFO must have a reader when it is opened; if that goes, lines are errors until one comes.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    fd: OwnedFd,
    unfinished: Unfinished,
}

impl FileSink {
    /// Opens `path`, makes it (readable by its owner only) if it is not there.
    ///
    /// If the file ends in the middle of a line, as after a power loss, the first line begins on a new one.
    ///
    /// # Errors
    /// [`SinkError::Open`], with what to do.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SinkError> {
        let path = path.into();
        let (fd, unfinished) = open(&path)?;
        Ok(Self { path, fd, unfinished })
    }

    fn error(&self, errno: Errno) -> SinkError {
        SinkError::Write {
            target: self.path.display().to_string(),
            hint: write_hint(errno),
            source: errno.into(),
        }
    }
}

impl Sink for FileSink {
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError> {
        self.unfinished.write_line(self.fd.as_fd(), line).map_err(|errno| self.error(errno))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.unfinished.finish(self.fd.as_fd()).map_err(|errno| self.error(errno))
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        // First, as it may be the same file still.
        let torn = self.unfinished.finish(self.fd.as_fd()).is_err();
        let (fd, mut unfinished) = open(&self.path)?;
        if torn {
            // The old file keeps a torn end; the line is whole in the new one.
            unfinished.line.append(&mut self.unfinished.line);
        }
        self.fd = fd;
        self.unfinished = unfinished;
        Ok(())
    }
}

/// The file, and what must be written first.
fn open(path: &Path) -> Result<(OwnedFd, Unfinished), SinkError> {
    // Without O_NONBLOCK a FIFO would hold the run until somebody reads, and each line after that.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    let fd = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| SinkError::Open {
        path: path.to_owned(),
        hint: open_hint(path, errno),
        source: errno.into(),
    })?;
    let mut unfinished = Unfinished::default();
    if ends_in_a_line(&fd, path).unwrap_or(false) {
        unfinished.line.push(b'\n');
    }
    Ok((fd, unfinished))
}

/// Whether the last byte of a regular file is other than a newline.
fn ends_in_a_line(fd: &OwnedFd, path: &Path) -> io::Result<bool> {
    let stat = fstat(fd)?;
    let Some(last) = u64::try_from(stat.st_size).ok().and_then(|size| size.checked_sub(1)) else {
        return Ok(false);
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let mut byte = [b'\n'];
    File::open(path)?.read_exact_at(&mut byte, last)?;
    Ok(byte != [b'\n'])
}

/// What the operator can do about a file that cannot be opened.
fn open_hint(path: &Path, errno: Errno) -> &'static str {
    match errno {
        Errno::ISDIR => "it is a directory: name a file in it",
        Errno::NOENT => "its directory does not exist: make it first",
        Errno::NOTDIR => "a part of its path is not a directory",
        Errno::ACCESS | Errno::PERM => "no permission: choose another place, or run as its owner",
        Errno::ROFS => "its file system is read-only: choose another place",
        Errno::NXIO => match stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Fifo) => "nobody reads from this FIFO: start its reader first",
            Ok(FileType::Socket) => "it is a socket: name a file, or pipe standard output to what serves it",
            _ => "there is no such device",
        },
        _ => "choose another place",
    }
}
