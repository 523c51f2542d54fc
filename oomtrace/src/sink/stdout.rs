//! Standard output: lines in, `write(2)` on file descriptor 1 out, past the standard library's buffer.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{Sink, SinkError, Unfinished, write_hint};

/// Standard output, whatever it is: a terminal, a pipe, a file, a socket.
#[derive(Debug, Default)]
pub struct StdoutSink {
    unfinished: Unfinished,
}

impl StdoutSink {
    /// Needs nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sink for StdoutSink {
    fn write_line(&mut self, line: &[u8]) -> Result<(), SinkError> {
        self.unfinished.write_line(stdout(), line).map_err(error)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.unfinished.finish(stdout()).map_err(error)
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn stdout() -> BorrowedFd<'static> {
    rustix::stdio::stdout()
}

fn error(errno: Errno) -> SinkError {
    match errno {
        Errno::PIPE => SinkError::Closed,
        errno => SinkError::Write {
            target: "standard output".to_owned(),
            hint: write_hint(errno),
            source: errno.into(),
        },
    }
}
