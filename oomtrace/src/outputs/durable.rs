//! The durable output: writes the line of an event to the sink. While it takes no lines, records stay in the
//! ring.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    event::Event,
    outputs::{
        encode::Render,
        transport::{Sink, SinkError, Wait},
    },
};

/// A format and a sink.
pub struct Durable {
    render: Render,
    sink: Box<dyn Sink>,
    line: Vec<u8>,
}

impl Durable {
    /// Writes lines in this format to this sink.
    pub fn new(render: Render, sink: Box<dyn Sink>) -> Self {
        // A line is under 4096 bytes, so this never grows.
        Self { render, sink, line: Vec::with_capacity(8 << 10) }
    }

    /// Returns whether the line was written or is kept until it can be.
    pub(super) fn write(&mut self, event: &Event) -> Result<bool, SinkError> {
        if self.render.line(event, &mut self.line).is_err() {
            return Ok(false);
        }
        match self.sink.write_line(&self.line) {
            Ok(()) => Ok(true),
            Err(SinkError::Closed) => Err(SinkError::Closed),
            Err(_) => Ok(false),
        }
    }

    /// Makes the line of an event and drops it.
    pub(crate) fn rehearse(&mut self, event: &Event) {
        let _no_line = self.render.line(event, &mut self.line);
        self.line.clear();
    }

    /// Whether lines are kept that could not be written.
    pub fn is_blocked(&self) -> bool {
        self.sink.waits_for().is_some()
    }

    /// The sink: what it waits for, its reader, its waiting lines.
    pub fn sink(&self) -> &dyn Sink {
        &*self.sink
    }

    /// Writes the kept lines.
    ///
    /// # Errors
    /// Why some are still kept.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()
    }

    /// Opens the output again, after a log rotation.
    ///
    /// # Errors
    /// If this fails; the output then stays as it was.
    pub fn reopen(&mut self) -> Result<(), SinkError> {
        self.sink.reopen()
    }

    /// Waits until the output has taken all lines, for at most `limit`. Returns whether it has.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn settle(&mut self, limit: Duration) -> Result<bool, SinkError> {
        let began = Instant::now();
        loop {
            match self.sink.flush() {
                Ok(()) => return Ok(true),
                Err(SinkError::Closed) => return Err(SinkError::Closed),
                Err(_) if began.elapsed() >= limit => return Ok(false),
                Err(_) => {}
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let _tried_again_anyway = match self.sink.waits_for() {
                Some(Wait::Reader(fd)) => {
                    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&wait))
                }
                _ => poll(&mut [], Some(&wait)),
            };
        }
    }
}
