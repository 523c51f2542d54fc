//! Where lines go: writes bytes with `write(2)`.
//!
//! One line is one `write(2)`. A line that the output does not take now (no reader, a full disk) is kept in a
//! short queue and tried again when it may succeed: [`Sink::waits_for`] says what to wait for. Nothing here
//! waits. If the queue is full, kills stay in the kernel's ring.

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
    /// Takes one line, including the newline: writes it, or keeps it until it can be written.
    ///
    /// # Errors
    /// If too many lines are kept already, or the only reader is gone.
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError>;

    /// Writes the kept lines.
    ///
    /// # Errors
    /// Why some are still kept. What is written so far are complete lines, except for a FIFO or a terminal:
    /// there the rest of a line goes first.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// What must happen before [`Self::flush`] can succeed; `None` if no line is kept.
    fn waits_for(&self) -> Option<Wait<'_>>;

    /// The end of a pipe that can have only one reader: when that is gone, nothing is read any more. `None`
    /// for all others.
    fn only_reader(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How many lines are kept.
    fn waiting_lines(&self) -> usize;

    /// Opens the output again, after a log rotation (SIGHUP). Does nothing for an output without a name.
    ///
    /// # Errors
    /// If this fails; the output then stays as it was.
    fn reopen(&mut self) -> Result<(), SinkError>;
}

/// What an output waits for.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'a> {
    /// The reader: this descriptor becomes writable when there is room.
    Reader(BorrowedFd<'a>),
    /// Something without a notification: space on a disk, a reader of a FIFO.
    Time,
}

/// Why an output takes no lines.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The reader of standard output is gone: the run has no purpose any more and ends quietly.
    #[error("the reader of standard output is gone")]
    Closed,
    /// A file cannot be opened.
    #[error("cannot open {} for appending", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// A hint for the operator.
        hint: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A write failed.
    #[error("cannot write to {target}")]
    Write {
        /// The output.
        target: String,
        /// A hint for the operator.
        hint: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A file that became too large could not be renamed.
    #[error("cannot rotate {}", path.display())]
    Rotate {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl SinkError {
    /// A hint for the operator; `None` if nothing needs to be done.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Open { hint, .. } | Self::Write { hint, .. } => Some(hint),
            Self::Rotate { .. } => Some("it grows beyond its limit until its directory can be written"),
        }
    }
}

/// A hint for a failed write.
fn write_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            "free space there: while this run goes on, kills wait in the kernel's ring"
        }
        Errno::FBIG => "raise the limit on file sizes (ulimit -f), or rotate the file and send SIGHUP",
        Errno::AGAIN => {
            "its reader does not keep up: while this run goes on, kills wait in the kernel's ring"
        }
        Errno::PIPE => {
            "its reader is gone: while this run goes on, kills wait in the kernel's ring until one opens it"
        }
        _ => "while this run goes on, kills wait in the kernel's ring until it can be written",
    }
}
