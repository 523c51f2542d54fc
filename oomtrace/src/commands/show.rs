//! `oomtrace show`: lines that `run` recorded, for a person to read. Each as `run -o text` printed it.

mod order;
mod printer;
mod remarks;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    cli::Show,
    commands::{print::not_written, render, terminal},
    failure::{Code, Failure},
    filter::Filter,
    host::clock::{self, ClockOffset},
    recorded::{Recorded, Twice},
    saved::{self, Lines, Read},
};
use printer::{Ended, Printer};
use remarks::Tally;

/// What is read of a line; oomtrace's own have less than 4096 bytes.
const LINE_BYTES: usize = 64 << 10;

/// `oomtrace show`.
///
/// # Errors
/// If a file cannot be read, or a part of it was not understood: after all else was shown.
pub fn show(args: &Show) -> Result<(), Failure> {
    let now = ClockOffset::sample().unix_ns(clock::boot_time());
    let live = args.files.iter().any(|file| file.as_os_str() == "-");
    let mut shown = Shown {
        printer: Printer::new(render(Some(args.output), terminal()), live),
        filter: Filter::from(&args.filters),
        since: args.since.map(|moment| clock::rfc3339(moment.unix_ns(now))),
        until: args.until.map(|moment| clock::rfc3339(moment.unix_ns(now))),
        twice: Twice::default(),
        tally: Tally::default(),
    };
    let unreadable = match shown.files(&args.files) {
        Ok(unreadable) => unreadable,
        Err(Ended::Output(error)) => return Err(not_written(&error)),
        Err(Ended::Closed | Ended::Input(_)) => return Ok(()),
    };
    shown.tally.say();
    if !unreadable.is_empty() {
        return Err(Failure::message(Code::RunTime, unreadable.join("; ")));
    }
    match shown.tally.not_understood() {
        Some(what) => Err(Failure::message(Code::Data, format!("not understood: {what}"))),
        None => Ok(()),
    }
}

/// What is shown, and what was found besides.
struct Shown {
    printer: Printer,
    filter: Filter,
    since: Option<String>,
    until: Option<String>,
    twice: Twice,
    tally: Tally,
}

impl Shown {
    /// Shows the files. Returns which could not be read, and why.
    fn files(&mut self, files: &[PathBuf]) -> Result<Vec<String>, Ended> {
        let mut unreadable = Vec::new();
        for file in order::by_first_line(files) {
            match self.file(file) {
                Err(Ended::Input(error)) => unreadable.push(format!("{}: {error}", saved::name(file))),
                done => done?,
            }
        }
        self.printer.flush()?;
        Ok(unreadable)
    }

    fn file(&mut self, file: &Path) -> Result<(), Ended> {
        let input = saved::open(file).map_err(Ended::Input)?;
        let mut lines = Lines::new(input, LINE_BYTES);
        loop {
            match lines.advance().map_err(Ended::Input)? {
                Read::End => return Ok(()),
                Read::Long => self.tally.unknown(file, lines.number()),
                Read::Line if lines.line().is_empty() => {}
                Read::Line => match Recorded::of(lines.line()) {
                    Some(line) => {
                        if line.follows_torn {
                            self.tally.unknown(file, lines.number());
                        }
                        self.line(&line)?;
                    }
                    None => self.tally.unknown(file, lines.number()),
                },
            }
        }
    }

    fn line(&mut self, line: &Recorded<'_>) -> Result<(), Ended> {
        if self.twice.is_again(&line.head) {
            self.tally.twice += 1;
            return Ok(());
        }
        self.tally.see(line);
        let asked_for_time = self.since.is_some() || self.until.is_some();
        if asked_for_time && !line.has_calendar_time() {
            self.tally.without_time += 1;
        } else if self.since.as_ref().is_some_and(|since| *line.head.time < **since)
            || self.until.as_ref().is_some_and(|until| *line.head.time >= **until)
        {
            // A later line may belong to this one.
            if let Some(event) = self.filter.is_about_kills().then(|| line.event()).flatten() {
                self.filter.takes(&event);
            }
            return Ok(());
        }
        // As it is, unless a filter has to look into it.
        let as_it_is = self.printer.passes_lines() && !self.filter.is_about_kills();
        let event = if as_it_is { None } else { line.event() };
        let takes = match &event {
            Some(event) => self.filter.takes(event),
            // What is not understood is not judged.
            None => self.filter.takes_kind(&line.head.r#type),
        };
        if !as_it_is && event.is_none() {
            self.tally.other_version += 1;
        }
        if takes { self.printer.print(line, event.as_ref()) } else { Ok(()) }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Output(error),
        }
    }
}
