//! `oomtrace explain`: all that recorded lines say about one kill, on one card.

mod card;
mod curve;
mod details;
mod next;
mod search;
mod split;

use std::{
    convert::Infallible,
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{
    cli::Explain,
    commands::{print::print, recorded},
    failure::{Code, Failure},
    filter::Filter,
    outputs::encode::text::plain,
    stderr::say,
};
use search::{Search, Wanted};

/// Where the packaged service writes.
const DEFAULT_FILES: &str = "/var/log/oomtrace";

/// `oomtrace explain`.
///
/// # Errors
/// If no such kill is in the files, a file cannot be read, or a part of it was not understood: after the card was printed.
pub fn explain(args: &Explain) -> Result<(), Failure> {
    let (wanted, files) = asked(args)?;
    let none = match &wanted {
        Wanted::Of(name) => {
            let name = plain(name);
            format!(
                "no kill of a container, pod, unit or service {name} is in these files (and no file has this name)"
            )
        }
        Wanted::Number(seq) => format!("no kill with the number {seq} is in these files"),
        Wanted::Last => "no such kill is in these files".into(),
    };
    let mut search = Search::new(Filter::from(&args.taken.filters), wanted);
    let mut reader = recorded::reader(&args.taken);
    let read: Result<_, Infallible> = reader.read(&files, |tally, line, inside| {
        if !search.see(line, inside) && inside {
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
    recorded::said(&reader.tally, &unreadable)?;
    found.map(drop).ok_or_else(|| {
        Failure::message(
            Code::RunTime,
            format!("{none}: `oomtrace show --type oom_kill FILE` lists those that are there"),
        )
    })
}

/// Which kill is asked for, and in which files.
fn asked(args: &Explain) -> Result<(Wanted, Vec<PathBuf>), Failure> {
    let mut files = args.files.clone();
    let by_option = args.event.map_or(Wanted::Last, Wanted::Number);
    let Some(word) = &args.which else { return Ok((by_option, default_files()?)) };
    let number = word.to_str().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    if is_file(word) {
        if number.is_some() {
            say(&format!(
                "oomtrace: {0} is a file here: it is read. For the kill with this number, type --event {0}",
                word.display()
            ));
        }
        files.insert(0, word.into());
        return Ok((by_option, files));
    }
    let word = word.to_str().ok_or_else(|| {
        Failure::message(Code::Usage, format!("{} is no file, and no name: it is not UTF-8", word.display()))
    })?;
    if files.is_empty() {
        files = default_files().map_err(|failure| {
            failure.hint(format!("no file is named {}, so it is taken as what to look for", plain(word)))
        })?;
    }
    match (number, by_option, args.last) {
        (Some(_), _, true) | (Some(_), Wanted::Number(_), _) => Err(Failure::message(
            Code::Usage,
            format!("{word} is a number of a kill, and --event or --last asks for another"),
        )),
        (Some(digits), ..) => {
            let too_large = format!(
                "{digits} is larger than any number of a kill; for a name, type --container {digits}"
            );
            let seq = digits.parse().map_err(|_| Failure::message(Code::Usage, too_large))?;
            Ok((Wanted::Number(seq), files))
        }
        (None, Wanted::Number(seq), _) => Err(Failure::message(
            Code::Usage,
            format!(
                "no file is named {}, so it is taken as a container's name; --event {seq} asks for one kill already",
                plain(word)
            ),
        )),
        (None, ..) => Ok((Wanted::Of(word.to_owned()), files)),
    }
}

/// Whether it can be read as a file. A directory cannot.
fn is_file(word: &OsStr) -> bool {
    word == "-" || Path::new(word).metadata().is_ok_and(|metadata| !metadata.is_dir())
}

/// All files of the packaged service.
fn default_files() -> Result<Vec<PathBuf>, Failure> {
    let none = |why: &str| {
        Failure::message(
            Code::RunTime,
            format!(
                "no FILE was given, and {why}: give the files that `run --file` wrote, or read the journal: `journalctl -u oomtrace -o cat | grep '^{{' | oomtrace explain -`"
            ),
        )
    };
    let names = fs::read_dir(DEFAULT_FILES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => none(&format!("{DEFAULT_FILES} does not exist")),
        _ => none(&format!("{DEFAULT_FILES} cannot be read: {error}")),
    })?;
    let is_one =
        |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains(".jsonl"));
    let mut files: Vec<PathBuf> = names.flatten().map(|entry| entry.path()).filter(is_one).collect();
    // Of files that begin at one time, the newer ones come last.
    files.sort_unstable_by(|one, other| other.cmp(one));
    if files.is_empty() { Err(none(&format!("{DEFAULT_FILES} has no *.jsonl"))) } else { Ok(files) }
}
