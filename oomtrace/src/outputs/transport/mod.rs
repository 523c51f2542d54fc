//! Where lines go: bytes in, `write(2)` out.
//!
//! One line is one `write(2)`. What the output does not take now (nobody reads, a full disk) is kept in a short
//! queue and tried again when it may work: [`Sink::waits_for`] says what to wait for. Nothing here ever waits
//! by itself. Whoever has more to tell than the queue holds keeps it where it is: kills stay in the kernel's ring.

mod file;
mod queue;
mod stdout;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::io::Errno;

pub use file::{Access, FileSink, Rotation, create_private, others_may_write};
pub use stdout::StdoutSink;

/// Takes lines.
pub trait Sink {
    /// Takes one line, newline included: writes it, or keeps it until it can be written.
    ///
    /// # Errors
    /// The line was not taken, because too many are kept already; or nobody will ever read.
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError>;

    /// Writes what is kept.
    ///
    /// # Errors
    /// Why there still is something. What is written so far is whole lines, except where that cannot be had
    /// (a FIFO, a terminal): there the rest of a line goes first.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// What must happen before [`Self::flush`] is worth another try; `None` if nothing is kept.
    fn waits_for(&self) -> Option<Wait<'_>>;

    /// The end of a pipe that only one reader ever has: where that is gone, nobody will read. `None` for all others.
    fn only_reader(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How many lines are kept.
    fn waiting_lines(&self) -> usize;

    /// Opens the output anew, after a log rotation (SIGHUP). Nothing to do for what has no name.
    ///
    /// # Errors
    /// The output is the same as before.
    fn reopen(&mut self) -> Result<(), SinkError>;
}

/// What an output waits for.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'a> {
    /// Its reader: this can be written to when there is room.
    Reader(BorrowedFd<'a>),
    /// Something that nothing tells of: room on a disk, a reader of a FIFO.
    Time,
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
    /// A file that became too large could not be renamed.
    #[error("cannot rotate {}", path.display())]
    Rotate {
        /// Which.
        path: PathBuf,
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
            Self::Rotate { .. } => Some("it grows beyond its limit until its directory can be written"),
        }
    }
}

/// What the operator can do about a failed write.
fn write_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => "free space there: kills wait in the kernel's ring until then",
        Errno::FBIG => "raise the limit on file sizes (ulimit -f), or rotate the file and send SIGHUP",
        Errno::AGAIN => "its reader does not keep up: kills wait in the kernel's ring until it reads",
        Errno::PIPE => "its reader is gone: kills wait in the kernel's ring until one opens it",
        _ => "kills wait in the kernel's ring until it can be written",
    }
}
