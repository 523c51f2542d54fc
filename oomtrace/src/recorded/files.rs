//! Files of recorded lines: read in the order of time, each line once; what was not understood is counted.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    recorded::{LINE_BYTES, Recorded, Twice, order, tally::Tally},
    saved::{self, Lines, Read},
};

/// Reads files of recorded lines.
#[derive(Debug, Default)]
pub struct Files {
    /// Events from this time on, as RFC 3339.
    since: Option<String>,
    /// Events before this time.
    until: Option<String>,
    twice: Twice,
    /// What was found.
    pub tally: Tally,
}

/// Why reading ended before the end of a file.
enum Ended<E> {
    /// The file cannot be read.
    Input(io::Error),
    /// Whoever takes the lines takes no more.
    Taker(E),
}

impl Files {
    /// Of lines of any time, or of a time between two.
    pub fn new(since: Option<String>, until: Option<String>) -> Self {
        Self { since, until, ..Self::default() }
    }

    /// Hands over each line of the files, and whether its time is one that was asked for. Returns which files could not be read,
    /// and why.
    ///
    /// # Errors
    /// That of `take`.
    pub fn read<E>(
        &mut self,
        files: &[PathBuf],
        mut take: impl FnMut(&mut Tally, &Recorded<'_>, bool) -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        let mut unreadable = Vec::new();
        for file in order::by_first_line(files) {
            match self.file(file, &mut take) {
                Err(Ended::Input(error)) => unreadable.push(format!("{}: {error}", saved::name(file))),
                Err(Ended::Taker(error)) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(unreadable)
    }

    fn file<E>(
        &mut self,
        file: &Path,
        take: &mut impl FnMut(&mut Tally, &Recorded<'_>, bool) -> Result<(), E>,
    ) -> Result<(), Ended<E>> {
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
                        self.line(&line, take).map_err(Ended::Taker)?;
                    }
                    None => {
                        self.tally.kernel_log |= is_kernel_log(lines.line());
                        self.tally.unknown(file, lines.number());
                    }
                },
            }
        }
    }

    fn line<E>(
        &mut self,
        line: &Recorded<'_>,
        take: &mut impl FnMut(&mut Tally, &Recorded<'_>, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.twice.is_again(&line.head) {
            self.tally.twice += 1;
            return Ok(());
        }
        self.tally.see(line);
        let asked_for_time = self.since.is_some() || self.until.is_some();
        let inside = if asked_for_time && !line.has_calendar_time() {
            self.tally.without_time += 1;
            true
        } else {
            self.since.as_ref().is_none_or(|since| *line.head.time >= **since)
                && self.until.as_ref().is_none_or(|until| *line.head.time < **until)
        };
        take(&mut self.tally, line, inside)
    }
}

/// Whether it looks like a line of a kernel's log.
fn is_kernel_log(line: &[u8]) -> bool {
    let contains = |part: &[u8]| line.windows(part.len()).any(|window| window == part);
    line.starts_with(b"[") || contains(b" kernel: ") || contains(b" invoked oom-killer: ")
}
