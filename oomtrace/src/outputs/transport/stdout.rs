//! Standard output: writes lines with `write(2)`, without the standard library's buffer.
//!
//! The descriptor is shared with other programs, so it is never set to non-blocking. A pipe or a terminal is
//! opened again for this process alone. For a socket, each call is non-blocking.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, FsWord, Mode, OFlags, fstat, fstatfs, open};
use rustix::io::Errno;

use crate::outputs::transport::{
    Sink, SinkError, Wait,
    queue::{Outlet, Queue},
    write_hint,
};

/// The filesystem of pipes without a name (include/uapi/linux/magic.h).
const PIPEFS_MAGIC: FsWord = 0x5049_5045;

/// Standard output of any kind: a terminal, a pipe, a file, a socket.
#[derive(Debug)]
pub struct StdoutSink {
    queue: Queue,
    out: Stdout,
}

#[derive(Debug)]
struct Stdout {
    /// Opened again as non-blocking.
    own: Option<OwnedFd>,
    kind: FileType,
}

impl StdoutSink {
    /// Checks what standard output is.
    pub fn new() -> Self {
        let shared = rustix::stdio::stdout();
        let kind = fstat(shared).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode));
        let waits = matches!(kind, FileType::Fifo | FileType::CharacterDevice);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // If this is refused (another user's pipe), each write is preceded by a check for room.
        let own = waits.then(|| open("/proc/self/fd/1", flags, Mode::empty()).ok()).flatten();
        Self { queue: Queue::default(), out: Stdout { own, kind } }
    }
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self::new()
    }
}

impl Stdout {
    fn fd(&self) -> BorrowedFd<'_> {
        self.own.as_ref().map_or(rustix::stdio::stdout(), AsFd::as_fd)
    }
}

impl Outlet for Stdout {
    fn before_line(&mut self, bytes: usize) -> Result<(), Errno> {
        // Standard output is never replaced. Only in a regular file can space be reserved.
        match self.kind {
            FileType::RegularFile => super::file::reserve(self.fd(), bytes),
            _ => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.kind == FileType::Socket {
            return send(self.fd(), bytes);
        }
        if self.own.is_none() && self.kind != FileType::RegularFile && !has_room(self.fd()) {
            return Err(Errno::AGAIN);
        }
        rustix::io::write(self.fd(), bytes).map_err(|errno| match errno {
            // A terminal that was closed.
            Errno::IO if self.kind == FileType::CharacterDevice => Errno::PIPE,
            errno => errno,
        })
    }

    fn take_back(&mut self, written: usize) -> bool {
        super::file::take_back(self.fd(), written)
    }
}

impl Sink for StdoutSink {
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError> {
        self.queue.push(line, &mut self.out).map_err(error)?;
        match self.queue.refused() {
            // The kept lines will never be read.
            Some(Errno::PIPE) => Err(SinkError::Closed),
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.queue.flush(&mut self.out).map_err(error)
    }

    fn waits_for(&self) -> Option<Wait<'_>> {
        self.queue.refused().map(|errno| match errno {
            Errno::AGAIN => Wait::Reader(self.out.fd()),
            _ => Wait::Time,
        })
    }

    fn only_reader(&self) -> Option<BorrowedFd<'_>> {
        // A pipe with a name may be opened again.
        let is_nameless = || fstatfs(self.out.fd()).is_ok_and(|fs| fs.f_type == PIPEFS_MAGIC);
        (self.out.kind == FileType::Fifo && is_nameless()).then(|| self.out.fd())
    }

    fn waiting_lines(&self) -> usize {
        self.queue.lines()
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Whether a line can be written now. A pipe is writable when a page is free.
fn has_room(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    use std::os::fd::AsRawFd;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes live through the call, and the length is theirs.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn error(errno: Errno) -> SinkError {
    match errno {
        Errno::PIPE | Errno::CONNRESET => SinkError::Closed,
        errno => SinkError::Write {
            target: "standard output".to_owned(),
            hint: write_hint(errno),
            source: errno.into(),
        },
    }
}
