//! `oomtrace show`: lines that `run` recorded, for a person to read. Each as `run -o text` printed it.

mod printer;

use crate::{
    cli::{Show, values::Moment},
    commands::{print::not_written, render, terminal},
    failure::{Code, Failure},
    filter::Filter,
    host::clock::{self, ClockOffset},
    recorded::{Files, Recorded, Tally},
};
use printer::{Ended, Printer};

/// `oomtrace show`.
///
/// # Errors
/// If a file cannot be read, or a part of it was not understood: after all else was shown.
pub fn show(args: &Show) -> Result<(), Failure> {
    let live = args.files.iter().any(|file| file.as_os_str() == "-");
    let mut shown = Shown {
        printer: Printer::new(render(Some(args.output), terminal()), live),
        filter: Filter::from(&args.filters),
    };
    let mut files = between(args.since, args.until);
    let unreadable = files
        .read(&args.files, |tally, line, inside| shown.line(tally, line, inside))
        .and_then(|unreadable| shown.printer.flush().map(|()| unreadable));
    match unreadable {
        Ok(unreadable) => said(&files.tally, &unreadable),
        Err(Ended::Output(error)) => Err(not_written(&error)),
        Err(Ended::Closed) => Ok(()),
    }
}

/// A reader of the lines between two moments.
pub(super) fn between(since: Option<Moment>, until: Option<Moment>) -> Files {
    let now = ClockOffset::sample().unix_ns(clock::boot_time());
    let time = |moment: Moment| clock::rfc3339(moment.unix_ns(now));
    Files::new(since.map(time), until.map(time))
}

/// Reports what was left out on standard error, and fails with what could not be read or was not understood.
pub(super) fn said(tally: &Tally, unreadable: &[String]) -> Result<(), Failure> {
    tally.say();
    if !unreadable.is_empty() {
        return Err(Failure::message(Code::RunTime, unreadable.join("; ")));
    }
    match tally.not_understood() {
        Some(what) => {
            let failure = Failure::message(Code::Data, format!("not understood: {what}"));
            Err(match tally.kernel_log {
                true => failure.hint("kills of a kernel's log are printed by `oomtrace log FILE`"),
                false => failure,
            })
        }
        None => Ok(()),
    }
}

/// What is shown.
struct Shown {
    printer: Printer,
    filter: Filter,
}

impl Shown {
    fn line(&mut self, tally: &mut Tally, line: &Recorded<'_>, inside: bool) -> Result<(), Ended> {
        if !inside {
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
            tally.other_version += 1;
        }
        if takes { self.printer.print(line, event.as_ref()) } else { Ok(()) }
    }
}
