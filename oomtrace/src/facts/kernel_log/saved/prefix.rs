//! Parses the text before the kernel's own in a line of a saved log. The line shows the format; there is no
//! option.
//!
//! | Written by | Looks like |
//! |---|---|
//! | `cat /dev/kmsg` | `6,1234,5678901,-;TEXT` |
//! | `dmesg`, with `-x`, `-r` | `[ 5.678901] TEXT`, `kern  :info  : [ 5.678901] TEXT`, `<6>[ 5.678901] TEXT` |
//! | `dmesg -T` | `[Sat Nov 21 03:12:45 2026] TEXT` |
//! | `dmesg --time-format=iso` | `2026-11-21T03:12:45,123456+00:00 TEXT` |
//! | `journalctl -o short-monotonic` | `[ 5.678901] HOST kernel: TEXT` |
//! | `journalctl -o short`, syslog | `Nov 21 03:12:45 HOST kernel: TEXT` |
//! | `journalctl -o short-iso`, syslog | `2026-11-21T03:12:45+00:00 HOST kernel: TEXT` |
//! | `journalctl -o short-full` | `Sat 2026-11-21 03:12:45 UTC HOST kernel: TEXT` |
//! | `journalctl -o short-unix` | `1795230765.123456 HOST kernel: TEXT` |
//!
//! A log daemon may put the kernel's own `[ 5.678901]` before the text. Some kernels add `[ T123]`.

use std::borrow::Cow;

use crate::facts::kernel_log::{
    record,
    saved::{Stamp, time},
};

/// A line without its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedLine<'a> {
    /// When it was written.
    pub stamp: Stamp,
    /// The name of the host.
    pub host: Option<Cow<'a, str>>,
    /// Whether the log says that the kernel wrote it.
    pub is_kernel: bool,
    /// It continues an earlier line.
    pub continues: bool,
    /// The text after the prefix.
    pub text: Cow<'a, [u8]>,
}

/// Parses lines.
#[derive(Debug)]
pub struct Prefixes {
    now: i128,
    /// Whether a host and a name follow `[ 5.678901]`. The first such line decides.
    journal: Option<bool>,
}

impl Prefixes {
    /// For logs that were written before `now`, in nanoseconds since 1970. Some formats have no year.
    pub fn new(now: i128) -> Self {
        Self { now, journal: None }
    }

    /// Parses a line; `None` if its format is not known.
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Option<SavedLine<'a>> {
        if let Some((meta, text)) = record::parse(line) {
            let stamp = Stamp::SinceBoot(meta.time_us.saturating_mul(1000));
            let (is_kernel, continues) = (meta.is_kernel(), meta.continues);
            return Some(SavedLine { stamp, host: None, is_kernel, continues, text });
        }
        let (is_kernel, line) = without_priority(line);
        let mut parsed = match line.first()? {
            b'[' => self.bracket(line),
            _ => dated(line, self.now),
        }?;
        parsed.is_kernel &= is_kernel;
        Some(parsed)
    }

    /// `[ 5.678901] …` and `[Sat Nov 21 03:12:45 2026] …`.
    fn bracket<'a>(&mut self, line: &'a [u8]) -> Option<SavedLine<'a>> {
        let (inside, rest) = in_brackets(line)?;
        if let Some(since_boot) = time::seconds(inside.trim_start()) {
            let stamp = Stamp::SinceBoot(since_boot);
            let named = rest.strip_prefix(b" ").and_then(|rest| named(rest, stamp));
            let is_journal = *self.journal.get_or_insert_with(|| {
                named.as_ref().is_some_and(|(line, has_pid)| line.is_kernel || *has_pid)
            });
            return match named {
                Some((line, _)) if is_journal => Some(line),
                // A remark of journald, such as `-- Boot … --`, belongs to no host.
                None if is_journal => None,
                _ => Some(of_kernel(stamp, None, without_caller(rest))),
            };
        }
        let mut words = inside.split_ascii_whitespace();
        let (_weekday, month, day, clock, year) =
            (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        let unix = time::with_year(month, day, clock, year)?;
        words.next().is_none().then(|| of_kernel(Stamp::Local(unix), None, without_caller(rest)))
    }
}

fn of_kernel<'a>(stamp: Stamp, host: Option<Cow<'a, str>>, text: &'a [u8]) -> SavedLine<'a> {
    SavedLine { stamp, host, is_kernel: true, continues: false, text: Cow::Borrowed(text) }
}

/// Lines that start with a date.
fn dated(line: &[u8], now: i128) -> Option<SavedLine<'_>> {
    let (first, rest) = word(line)?;
    if first.len() >= 20 && first.as_bytes().get(10) == Some(&b'T') {
        let unix = time::rfc3339(&first.replace(',', "."))?;
        // The comma shows that this is dmesg's format, which has no host.
        return match first.contains(',') {
            true => Some(of_kernel(Stamp::UtcOfLog(unix), None, without_caller(rest))),
            false => named(rest, Stamp::Utc(unix)).map(|(line, _)| line),
        };
    }
    if first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let stamp = Stamp::Utc(time::seconds(first)?.into());
        return named(rest, stamp).map(|(line, _)| line);
    }
    let (second, rest) = word(rest)?;
    let (third, rest) = word(rest)?;
    if let Some(unix) = time::without_year(first, second, third, now) {
        return named(rest, Stamp::Local(unix)).map(|(line, _)| line);
    }
    // The line starts with the weekday.
    let unix = time::iso(second, third)?;
    let (zone, rest) = word(rest)?;
    let stamp = if zone == "UTC" { Stamp::Utc(unix) } else { Stamp::Local(unix) };
    named(rest, stamp).map(|(line, _)| line)
}

/// `HOST NAME: TEXT` or `HOST NAME[PID]: TEXT`, and whether there is a pid. The kernel has the name `kernel`
/// and no pid.
fn named(text: &[u8], stamp: Stamp) -> Option<(SavedLine<'_>, bool)> {
    /// The kernel allows at most 64 bytes for a host's name.
    const HOST_BYTES: usize = 255;
    let (host, rest) = word(text)?;
    let end = rest.iter().position(|byte| *byte == b':' || *byte == b' ')?;
    let name = rest.get(..end)?;
    let text = rest.get(end..)?.strip_prefix(b":")?;
    if host.len() > HOST_BYTES || name.is_empty() {
        return None;
    }
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let has_pid = name.ends_with(b"]");
    // A log daemon may leave the kernel's own time before the text.
    let text = match in_brackets(text) {
        Some((inside, rest)) if time::seconds(inside.trim_start()).is_some() => without_caller(rest),
        _ => text,
    };
    let mut line = of_kernel(stamp, Some(Cow::Borrowed(host)), text);
    line.is_kernel = name == b"kernel";
    Some((line, has_pid))
}

/// The first word, and the text after it and its blanks.
fn word(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    let (word, rest) = text.split_at_checked(end)?;
    let word = str::from_utf8(word).ok().filter(|word| !word.is_empty())?;
    Some((word, rest.trim_ascii_start()))
}

/// The text in the brackets at the start of `text`, and the text after them.
fn in_brackets(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().take(64).position(|byte| *byte == b']')?;
    let inside = text.get(..end)?.strip_prefix(b"[")?;
    Some((str::from_utf8(inside).ok()?, text.get(end + 1..)?))
}

/// Removes one blank and, if it is there, `[ T123] `.
fn without_caller(rest: &[u8]) -> &[u8] {
    let blank = |text| <[u8]>::strip_prefix(text, b" ").unwrap_or(text);
    let rest = blank(rest);
    match in_brackets(rest).map(|(inside, behind)| (inside.trim_start(), behind)) {
        Some((inside, behind))
            if inside
                .strip_prefix(['T', 'C'])
                .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())) =>
        {
            blank(behind)
        }
        _ => rest,
    }
}

/// Removes `<6>` or `kern  :info  : ` from a line of dmesg. Returns whether the line is the kernel's, and the
/// rest.
fn without_priority(line: &[u8]) -> (bool, &[u8]) {
    if let Some(rest) = line.strip_prefix(b"<") {
        let end = rest.iter().take(4).position(|byte| *byte == b'>');
        let number = end.and_then(|end| str::from_utf8(rest.get(..end)?).ok()?.parse::<u32>().ok());
        return match (number, end.and_then(|end| rest.get(end + 1..))) {
            (Some(priority), Some(rest)) => (priority >> 3 == 0, rest),
            _ => (true, line),
        };
    }
    let mut parts = line.splitn(3, |byte| *byte == b':');
    let mut padded = || parts.next().map(<[u8]>::trim_ascii_end).filter(|part| part.is_ascii());
    let is_word = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_lowercase);
    match (padded(), padded(), parts.next()) {
        (Some(facility), Some(level), Some(rest))
            if is_word(facility) && is_word(level) && rest.starts_with(b" [") =>
        {
            (facility == b"kern", rest.trim_ascii_start())
        }
        _ => (true, line),
    }
}
