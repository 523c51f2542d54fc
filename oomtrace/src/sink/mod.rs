//! Where lines go: bytes in, `write(2)` out.
//!
//! One line is one `write(2)`. Where the kernel takes only a part of it (a disk that just got
//! full), the rest goes out before anything else does, so that no line is ever torn. A sink
//! keeps at most that one line; it does not queue and does not try again by itself.

mod file;
mod stdout;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub use file::FileSink;
pub use stdout::StdoutSink;

/// How long one line may wait for a reader that does not read, where the output does not block.
/// Meanwhile kills gather in the kernel's ring, which holds far more than happen in that time.
const STALL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Takes lines.
pub trait Sink {
    /// Writes one line, newline included.
    ///
    /// # Errors
    /// The line is not in the output, and no part of it. On `Ok` it is, or the output has its
    /// beginning and the next call writes the rest.
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError>;

    /// Writes what is left of a line of which the output has the beginning. To be called before the end.
    ///
    /// # Errors
    /// The last line of the output is torn.
    fn finish(&mut self) -> Result<(), SinkError>;

    /// Opens the output anew, after a log rotation (SIGHUP). Nothing to do for what has no name.
    ///
    /// # Errors
    /// The output is the same as before.
    fn reopen(&mut self) -> Result<(), SinkError>;
}

/// Why an output takes no lines.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Who read standard output has gone: the run has no purpose any more and ends quietly.
    #[error("nobody reads standard output any more")]
    Closed,
    /// A file cannot be opened.
    #[error("cannot open {} for appending", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the operator can do.
        hint: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A write failed.
    #[error("cannot write to {target}")]
    Write {
        /// To what.
        target: String,
        /// What the operator can do.
        hint: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl SinkError {
    /// What the operator can do; `None` where nothing needs to be done.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Open { hint, .. } | Self::Write { hint, .. } => Some(hint),
        }
    }
}

/// The line of which the output has a part.
#[derive(Debug, Default)]
struct Unfinished {
    line: Vec<u8>,
    written: usize,
}

impl Unfinished {
    /// Writes what is left of the line before, then `line`.
    fn write_line(&mut self, fd: BorrowedFd<'_>, line: &[u8]) -> Result<(), Errno> {
        self.finish(fd)?;
        let written = write(fd, line)?;
        if written < line.len() {
            self.line.extend_from_slice(line);
            self.written = written;
            // The line counts as written. If what is in the way stays, the next line meets it.
            let _met_again = self.finish(fd);
        }
        Ok(())
    }

    /// Writes what is left of the line before.
    fn finish(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        while let Some(rest) = self.line.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.written += write(fd, rest)?;
        }
        self.line.clear();
        self.written = 0;
        Ok(())
    }
}

/// One `write(2)`, repeated where a signal came first or, for at most [`STALL`], where the reader is slow.
fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut waited = false;
    loop {
        match rustix::io::write(fd, bytes) {
            // Only a device that refuses without an error does that; to ask again would be without end.
            Ok(0) if !bytes.is_empty() => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !waited => {
                waited = true;
                match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&STALL)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            result => return result,
        }
    }
}

/// What the operator can do about a failed write.
fn write_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => "free space there: lines are lost until then",
        Errno::FBIG => "raise the limit on file sizes (ulimit -f), or rotate the file and send SIGHUP",
        Errno::AGAIN => "its reader does not keep up: lines are lost until it reads",
        Errno::PIPE => "its reader is gone: lines are lost until one opens it",
        _ => "lines are lost until it can be written",
    }
}
