//! `oomtrace explain`: all that recorded lines say about one kill, on one card.

mod card;
mod search;

use std::convert::Infallible;

use crate::{
    cli::Explain,
    commands::{print::print, recorded},
    failure::{Code, Failure},
    filter::Filter,
};
use search::Search;

/// `oomtrace explain`.
///
/// # Errors
/// If no such kill is in the files, a file cannot be read, or a part of it was not understood: after the card was printed.
pub fn explain(args: &Explain) -> Result<(), Failure> {
    let mut search = Search::new(Filter::from(&args.lines.filters), args.event);
    let mut files = recorded::reader(&args.lines);
    let read: Result<_, Infallible> = files.read(&args.lines.files, |tally, line, inside| {
        if inside && !search.see(line) {
            tally.other_version += 1;
        }
        Ok(())
    });
    let Ok(unreadable) = read;
    let found = search.end();
    if let Some(found) = &found {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = card::write(found, &mut text);
        print(|out| out.write_all(text.as_bytes()))?;
    }
    recorded::said(&files.tally, &unreadable)?;
    found.map(drop).ok_or_else(|| {
        Failure::message(
            Code::RunTime,
            "no such kill is in these files: `oomtrace show --type oom_kill FILE` lists those that are there",
        )
    })
}
