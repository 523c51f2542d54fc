//! `oomtrace report`: what recorded lines of one host or many say together.

mod counts;
mod html;
mod kills;
mod lists;
mod memory;
mod text;
mod timeline;
mod totals;

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{
    cli::Report,
    commands::{print::print, recorded},
    failure::{Code, Failure},
    filter::Filter,
};
use totals::Totals;

/// `oomtrace report`.
///
/// # Errors
/// If a file cannot be read or the page cannot be written, or a part of a file was not understood: after all else was reported.
pub fn report(args: &Report) -> Result<(), Failure> {
    if let Some(path) = &args.html {
        may_be_replaced(path)?;
    }
    let mut filter = Filter::from(&args.lines.taken.filters);
    let mut totals = Totals::default();
    let mut files = recorded::reader(&args.lines.taken);
    let read: Result<_, std::convert::Infallible> = files.read(&args.lines.files, |tally, line, inside| {
        // A filter looks into the whole event, which takes longer.
        let event = filter.is_about_kills().then(|| line.event()).flatten();
        let takes = match &event {
            Some(event) => filter.takes(event),
            None => filter.takes_kind(&line.head.r#type),
        };
        if inside && takes && !totals.add(line) {
            tally.other_version += 1;
        }
        Ok(())
    });
    let Ok(unreadable) = read;
    let most = usize::try_from(args.most).unwrap_or(usize::MAX);
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _infallible = match &args.html {
        Some(_) => html::write(&totals, most, &mut page),
        None => text::write(&totals, most, &mut page),
    };
    match &args.html {
        Some(path) => fs::write(path, &page).map_err(|error| {
            Failure::message(Code::RunTime, format!("cannot write {}: {error}", path.display()))
        })?,
        None => print(|out| out.write_all(page.as_bytes()))?,
    }
    recorded::said(&files.tally, &unreadable)
}

/// Refuses a file that is no such page: if OUT is forgotten, the first file with lines stands in its place.
fn may_be_replaced(path: &Path) -> Result<(), Failure> {
    // What cannot be read now is said when it is written.
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(html::BEGIN.len() as u64).read_to_end(&mut begin));
    if read.is_ok() && begin == html::BEGIN.as_bytes() {
        return Ok(());
    }
    let message =
        format!("{} is there and is no page of `oomtrace report`: it is not replaced", path.display());
    Err(Failure::message(Code::RunTime, message)
        .hint("--html OUT: name another file for the page, before the files with lines"))
}
