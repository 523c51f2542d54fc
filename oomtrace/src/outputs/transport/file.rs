//! A file that lines are appended to.
//!
//! It follows the file's name: a removed file is created again, and a new file with the name gets the next
//! line. A renamed file stays in use until there is a new one, or until SIGHUP, because the rotating program
//! may not be done.

mod open;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, SeekFrom, Stat, fallocate, fstat, ftruncate, lstat, seek, tell};
use rustix::io::Errno;

use crate::{
    outputs::transport::{
        Sink, SinkError, Wait,
        queue::{Outlet, Queue},
        write_hint,
    },
    stderr::say,
};

pub use open::{Access, create_private, others_may_write};
use open::{ends_in_a_line, open};

/// When a file is rotated: `kills` becomes `kills.1`, which becomes `kills.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The file is rotated before it gets larger than this. A single longer line is still written.
    pub max_bytes: u64,
    /// How many old files are kept, at least one.
    pub old_files: u32,
}

/// A file, a FIFO or a device. New lines go to its end, even if others write to it too.
///
/// A FIFO must have a reader when it is opened. If the reader is gone, lines wait for the next one.
#[derive(Debug)]
pub struct FileSink {
    queue: Queue,
    out: Target,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    fd: OwnedFd,
    access: Access,
    rotation: Option<Rotation>,
    /// The file's last line is incomplete, and is ended first.
    torn: bool,
    /// Rotation fails. This is printed once.
    stuck: bool,
    /// The file with this name now is refused. This is printed once.
    refused: bool,
}

impl FileSink {
    /// Like [`Self::open_for`], for the owner only.
    ///
    /// # Errors
    /// [`SinkError::Open`], with a hint.
    pub fn open(path: impl Into<PathBuf>, rotation: Option<Rotation>) -> Result<Self, SinkError> {
        Self::open_for(path, Access::default(), rotation)
    }

    /// Opens `path`. If it does not exist, it is created for those who have `access`. A symbolic link is not
    /// followed.
    ///
    /// If the file ends in the middle of a line, for example after a power loss, the first line starts on a
    /// new one.
    ///
    /// # Errors
    /// [`SinkError::Open`], with a hint.
    pub fn open_for(
        path: impl Into<PathBuf>,
        access: Access,
        rotation: Option<Rotation>,
    ) -> Result<Self, SinkError> {
        let path = path.into();
        let fd = open(&path, access)?;
        let torn = is_torn(&fd);
        let out = Target { path, fd, access, rotation, torn, stuck: false, refused: false };
        Ok(Self { queue: Queue::default(), out })
    }

    fn error(&self, errno: Errno) -> SinkError {
        SinkError::Write {
            target: self.out.path.display().to_string(),
            hint: write_hint(errno),
            source: errno.into(),
        }
    }
}

impl Sink for FileSink {
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError> {
        self.queue.push(line, &mut self.out).map_err(|errno| self.error(errno))
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.queue.flush(&mut self.out).map_err(|errno| self.error(errno))
    }

    fn waits_for(&self) -> Option<Wait<'_>> {
        self.queue.refused().map(|errno| match errno {
            Errno::AGAIN => Wait::Reader(self.out.fd.as_fd()),
            _ => Wait::Time,
        })
    }

    fn waiting_lines(&self) -> usize {
        self.queue.lines()
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        self.out.reopen()?;
        self.queue.start_over();
        Ok(())
    }
}

impl Target {
    fn reopen(&mut self) -> Result<(), SinkError> {
        self.fd = open(&self.path, self.access)?;
        self.torn = is_torn(&self.fd);
        self.refused = false;
        Ok(())
    }

    /// Whether the open file is the one with the name; `None` if the name does not exist.
    fn has_name(&self, own: &Stat) -> Option<bool> {
        let there = lstat(&self.path).ok()?;
        Some((there.st_dev, there.st_ino) == (own.st_dev, own.st_ino))
    }

    /// Rotates the file if `bytes` more would be too many.
    fn rotate(&mut self, bytes: usize) -> Result<(), SinkError> {
        let Some(rotation) = self.rotation else { return Ok(()) };
        let Some(size) = regular_size(self.fd.as_fd()) else { return Ok(()) };
        let larger = size.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if size == 0 || larger <= rotation.max_bytes {
            return Ok(());
        }
        // If the name is gone, another program rotates too. A rotation here would then push out the old
        // files, line by line.
        let own = fstat(&self.fd)
            .map_err(|errno| SinkError::Rotate { path: self.path.clone(), source: errno.into() })?;
        match self.has_name(&own) {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => return self.reopen(),
        }
        let aside = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        // Up to the first free number: a failed attempt may have shifted some files already.
        let taken = (1..rotation.old_files).take_while(|number| aside(*number).symlink_metadata().is_ok());
        for number in (1..=taken.last().unwrap_or(0)).rev() {
            put(&aside(number), &aside(number + 1))?;
        }
        put(&self.path, &aside(1))?;
        self.reopen()
    }
}

/// Renames a file. An error names the file that is in the way.
fn put(from: &Path, to: &Path) -> Result<(), SinkError> {
    fs::rename(from, to).map_err(|source| {
        let in_the_way = matches!(
            source.kind(),
            io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
        );
        let path = if in_the_way { to } else { from };
        SinkError::Rotate { path: path.to_owned(), source }
    })
}

impl Outlet for Target {
    /// Chooses the file for the line. If no better one can be opened, it stays the current one.
    fn before_line(&mut self, bytes: usize) -> Result<(), Errno> {
        let own = fstat(&self.fd)?;
        let replaced = self.has_name(&own).map_or(own.st_nlink == 0, |ours| !ours);
        if replaced && let Err(error) = self.reopen() {
            // A line in a file without a name would be lost.
            if own.st_nlink == 0 {
                return Err(errno_of(&error));
            }
            if !std::mem::replace(&mut self.refused, true) {
                say_failed(&error);
            }
        }
        let rotated = self.rotate(bytes);
        if let Err(error) = &rotated
            && !self.stuck
        {
            say_failed(error);
        }
        self.stuck = rotated.is_err();
        reserve(self.fd.as_fd(), bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.torn {
            rustix::io::write(&self.fd, b"\n")?;
            self.torn = false;
        }
        rustix::io::write(&self.fd, bytes)
    }

    fn take_back(&mut self, written: usize) -> bool {
        take_back(self.fd.as_fd(), written)
    }
}

/// Reserves the space for a line in a regular file, so that a full disk refuses it completely: half a line
/// that is removed again would confuse programs that follow the file.
///
/// # Errors
/// If there is no space.
pub(super) fn reserve(fd: BorrowedFd<'_>, bytes: usize) -> Result<(), Errno> {
    let Some((size, bytes)) = regular_size(fd).zip(u64::try_from(bytes).ok()) else { return Ok(()) };
    match fallocate(fd, FallocateFlags::KEEP_SIZE, size, bytes) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        // If reserving is not supported, the write itself shows it.
        _ => Ok(()),
    }
}

/// Cuts the last `written` bytes off the file, unless they are not at its end. Only for a regular file.
pub(super) fn take_back(fd: BorrowedFd<'_>, written: usize) -> bool {
    let Some(((size, end), cut)) = regular_size(fd).zip(tell(fd).ok()).zip(u64::try_from(written).ok())
    else {
        return false;
    };
    let Some(start) = end.checked_sub(cut) else { return false };
    // Another program truncated the file: the bytes are gone already.
    let gone = size < end || (size == end && ftruncate(fd, start).is_ok());
    gone && seek(fd, SeekFrom::Start(start.min(size))).is_ok()
}

fn say_failed(error: &SinkError) {
    let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    say(&format!("oomtrace: {error}: {why}\n  hint: {}", error.hint().unwrap_or_default()));
}

/// If this cannot be known, the file is not started with an empty line.
fn is_torn(fd: &OwnedFd) -> bool {
    ends_in_a_line(fd).unwrap_or(false)
}

fn errno_of(error: &SinkError) -> Errno {
    let source = match error {
        SinkError::Closed => return Errno::PIPE,
        SinkError::Open { source, .. }
        | SinkError::Write { source, .. }
        | SinkError::Rotate { source, .. } => source,
    };
    Errno::from_io_error(source).unwrap_or(Errno::IO)
}

fn regular_size(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = fstat(fd).ok()?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    regular.then(|| u64::try_from(stat.st_size).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("x.1"), "old\n").unwrap();
        fs::create_dir_all(at("x.2/in the way")).unwrap();
        let mut sink = FileSink::open(at("x"), Some(Rotation { max_bytes: 1, old_files: 2 })).unwrap();
        sink.write_line(b"line\n").unwrap();
        let error = sink.out.rotate(1).unwrap_err();
        assert!(matches!(&error, SinkError::Rotate { path, .. } if *path == at("x.2")), "{error}");
    }

    #[test]
    fn no_number_is_shifted_past_a_free_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("x.2"), "old 2\n").unwrap();
        fs::write(at("x.3"), "old 3\n").unwrap();
        let mut sink = FileSink::open(at("x"), Some(Rotation { max_bytes: 1, old_files: 3 })).unwrap();
        sink.write_line(b"one\n").unwrap();
        sink.write_line(b"two\n").unwrap();
        let read = |name| fs::read_to_string(at(name)).unwrap();
        assert_eq!([read("x.1"), read("x.2"), read("x.3")], ["one\n", "old 2\n", "old 3\n"]);
    }
}
