//! The bytes of a command line in, the text that is reported out.

use crate::facts::CommandLine;

/// How much of a victim's command line is reported: it can hold passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum CommandLineChoice {
    /// All arguments.
    #[default]
    Full,
    /// The first argument alone, as the program was called; or the title that a process gave itself.
    Program,
    /// Nothing: it is not even read.
    None,
}

/// What the kernel side read of the victim's arguments, as `/proc/PID/cmdline` has them, and whether there is more. `None`
/// where that has more than the arguments: a process that gave itself a title ends them without a NUL.
pub fn command_line_of(read: &CommandLine, wanted: CommandLineChoice) -> Option<(Vec<u8>, bool)> {
    let titled = !read.cut && read.arguments.last() != Some(&0);
    if titled { None } else { one_line(read.arguments.clone(), read.cut, wanted) }
}

/// Those arguments that are wanted, joined with blanks, and whether there is more of them: then `…` is their end. `None` if
/// there is nothing.
pub(super) fn one_line(mut text: Vec<u8>, cut: bool, wanted: CommandLineChoice) -> Option<(Vec<u8>, bool)> {
    let first = text.iter().position(|byte| *byte == 0);
    let cut = cut && (wanted == CommandLineChoice::Full || first.is_none());
    match wanted {
        CommandLineChoice::Full => {}
        CommandLineChoice::Program => text.truncate(first.unwrap_or(text.len())),
        CommandLineChoice::None => return None,
    }
    let kept = text.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    text.truncate(kept);
    for byte in &mut text {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    if text.is_empty() {
        return None;
    }
    if cut {
        drop_half_a_character(&mut text);
        text.extend_from_slice("…".as_bytes());
    }
    Some((text, cut))
}

/// The start of a character of UTF-8 whose end was cut off.
fn drop_half_a_character(text: &mut Vec<u8>) {
    let start = text.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let end = text.get(start..).unwrap_or_default();
    if str::from_utf8(end).is_err_and(|error| error.error_len().is_none()) {
        text.truncate(start);
    }
}
