//! Turns the bytes of a command line into the text that is reported.

use crate::facts::CommandLine;

/// How much of a victim's command line is reported: it can hold passwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum CommandLineChoice {
    /// All arguments.
    #[default]
    Full,
    /// Only the first argument, the name by which the program was called; or the title that a process gave
    /// itself.
    Program,
    /// Nothing: it is not even read.
    None,
}

/// The victim's arguments as the kernel side read them, in the form of `/proc/PID/cmdline`, and whether there
/// is more. `None` if `/proc/PID/cmdline` holds more than the arguments: a process that set its title has no
/// NUL at their end.
pub fn command_line_of(read: &CommandLine, wanted: CommandLineChoice) -> Option<(Vec<u8>, bool)> {
    let titled = !read.cut && read.arguments.last() != Some(&0);
    if titled { None } else { one_line(read.arguments.clone(), read.cut, wanted) }
}

/// The wanted arguments, joined with blanks, and whether they are cut; then they end in `…`. `None` if there
/// are none.
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

/// Removes an incomplete UTF-8 character at the end.
fn drop_half_a_character(text: &mut Vec<u8>) {
    let start = text.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let end = text.get(start..).unwrap_or_default();
    if str::from_utf8(end).is_err_and(|error| error.error_len().is_none()) {
        text.truncate(start);
    }
}
