//! `oomtrace log`: prints kills from the kernel's log alone, of this host or a saved one. Needs no eBPF, no
//! BTF and no privilege except to read the log.

mod remarks;
mod saved;
mod this_host;

use std::io::{self, ErrorKind, Write};

use crate::{
    cli::Log,
    commands::{print::not_written, render, terminal},
    enrich::enricher::LogOrigin,
    event::{Event, Host, Reason},
    facts::kernel_log::saved::Stamp,
    failure::Failure,
    filter::Filter,
    outputs::encode::Render,
};

/// `oomtrace log`.
///
/// # Errors
/// If a log cannot be read, or if a part of it is not understood.
pub fn log(args: &Log) -> Result<(), Failure> {
    let mut lines = Lines::new(render(args.output, terminal()), Filter::from(&args.filters));
    let done = match args.files.as_slice() {
        [] => this_host::print(&mut lines),
        files => saved::print(files, &mut lines),
    };
    match done {
        // Standard output has no reader, so nothing is left to do.
        Err(Ended::Closed) | Ok(()) => Ok(()),
        Err(Ended::Failure(failure)) => Err(failure),
    }
}

/// The time and the host of a kill in a saved log.
pub fn origin(stamp: Stamp, host: Host) -> LogOrigin {
    let (unix_ns, inexact) = match stamp {
        Stamp::SinceBoot(ns) => (i128::from(ns), Reason::LogSinceBoot),
        Stamp::Utc(ns) => (ns, Reason::LogDaemonClock),
        Stamp::UtcOfLog(ns) => (ns, Reason::LogClock),
        Stamp::Local(ns) => (ns, Reason::LogLocalTime),
    };
    LogOrigin::Saved { unix_ns, inexact, host }
}

/// Why printing ended early.
enum Ended {
    /// Standard output has no reader any more.
    Closed,
    /// Something failed.
    Failure(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Writes each event as one line to standard output.
struct Lines {
    render: Render,
    filter: Filter,
    line: Vec<u8>,
}

impl Lines {
    fn new(render: Render, filter: Filter) -> Self {
        Self { render, filter, line: Vec::new() }
    }

    /// Returns whether the filter takes the event.
    fn print(&mut self, event: &Event) -> Result<bool, Ended> {
        if !self.filter.takes(event) {
            return Ok(false);
        }
        let written = self
            .render
            .line(event, &mut self.line)
            .map_err(io::Error::from)
            .and_then(|()| io::stdout().lock().write_all(&self.line));
        written.map(|()| true).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Ended::Closed,
            _ => Ended::Failure(not_written(&error)),
        })
    }
}
