//! `oomtrace show`: lines that `run` recorded, for a person to read. Each as `run -o text` printed it.

mod printer;

use crate::{
    cli::Show,
    commands::{print::not_written, recorded, render, terminal},
    failure::Failure,
    filter::Filter,
    recorded::{Recorded, Tally},
};
use printer::{Ended, Printer};

/// `oomtrace show`.
///
/// # Errors
/// If a file cannot be read, or a part of it was not understood: after all else was shown.
pub fn show(args: &Show) -> Result<(), Failure> {
    let live = args.lines.files.iter().any(|file| file.as_os_str() == "-");
    let mut shown = Shown {
        printer: Printer::new(render(Some(args.output), terminal()), live),
        filter: Filter::from(&args.lines.taken.filters),
    };
    let mut files = recorded::reader(&args.lines.taken);
    let unreadable = files
        .read(&args.lines.files, |tally, line, inside| shown.line(tally, line, inside))
        .and_then(|unreadable| shown.printer.flush().map(|()| unreadable));
    match unreadable {
        Ok(unreadable) => recorded::said(&files.tally, &unreadable),
        Err(Ended::Output(error)) => Err(not_written(&error)),
        Err(Ended::Closed) => Ok(()),
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
