//! Runs the tests with a name and hides the output of binaries without such a test.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write, stderr, stdout},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Runs `cargo test` and shows the relevant output. Adds the number of tests that ran to `count`.
///
/// # Errors
/// If it cannot be run, or fails.
pub fn run(command: &mut Command, count: &mut usize) -> Result<()> {
    let program = command.get_program().display().to_string();
    // One pipe for both outputs, because cargo names the binary of a test on stderr.
    let (reader, writer) = std::io::pipe()?;
    if stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child =
        command.stdout(writer.try_clone()?).stderr(writer).spawn().with_context(|| program.clone())?;
    // The command keeps copies of the pipe's writing end. They must be dropped, or the reader waits for ever.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut matching = Matching::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        stdout().write_all(matching.shown(line).as_bytes())?;
    }
    *count += matching.count;
    let status = child.wait()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

/// Filters the output line by line.
#[derive(Default)]
struct Matching {
    /// Tests that ran.
    count: usize,
    /// Lines that were not shown yet: the name of a binary, and blank lines. Dropped if the binary runs no
    /// test.
    held: String,
}

impl Matching {
    /// What to show after this line. Only the output of binaries without such a test is left out.
    fn shown(&mut self, line: String) -> String {
        let words = plain(&line);
        let words = words.trim();
        let names_a_binary = words.starts_with("Running ") || words.starts_with("Doc-tests ");
        if words.is_empty() || names_a_binary {
            let shown = if names_a_binary { std::mem::take(&mut self.held) } else { String::new() };
            self.held.push_str(&line);
            self.held.push('\n');
            // Blank lines before a binary belong to the output before it, which is most likely hidden.
            return if shown.trim().is_empty() { String::new() } else { shown };
        }
        if let Some(number) = tests(words) {
            self.count += number;
            if number == 0 {
                self.held.clear();
                return String::new();
            }
        } else if words.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured;") {
            return String::new();
        }
        std::mem::take(&mut self.held) + &line + "\n"
    }
}

/// N of `running N tests`.
fn tests(words: &str) -> Option<usize> {
    let number = words.strip_prefix("running ")?;
    number.strip_suffix(" tests").or_else(|| number.strip_suffix(" test"))?.parse().ok()
}

/// A line without the colours of a terminal.
fn plain(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> (String, usize) {
        let mut matching = Matching::default();
        let shown = output.lines().map(|line| matching.shown(line.to_owned())).collect();
        (shown, matching.count)
    }

    const EMPTY: &str = "\x1b[1m\x1b[92m     Running\x1b[0m tests/none.rs (target/debug/deps/none-1)\n\nrunning 0 tests\n\n\
        test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 63 filtered out; finished in 0.00s\n\n   \
        Doc-tests oomtrace\n\nrunning 0 tests\n\n\
        test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n";

    #[test]
    fn a_binary_without_such_a_test_says_nothing() {
        assert_eq!(shown(EMPTY), (String::new(), 0));
    }

    #[test]
    fn one_that_fails_is_shown_whole() {
        let fails = "     Running tests/some.rs (target/debug/deps/some-1)\n\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\n\n\
            failures:\n\n---- b stdout ----\nassertion failed\n\n\nfailures:\n    b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n\n\
            error: test failed, to rerun pass `--test some`\n";
        let other = "     Running tests/abort.rs (target/debug/deps/abort-1)\n\nrunning 1 test\nit is\n";
        let (text, count) = shown(&format!("   Compiling x\n{EMPTY}{fails}{EMPTY}{other}"));
        assert_eq!(text, format!("   Compiling x\n{fails}{other}"));
        assert_eq!(count, 3);
    }

    #[test]
    fn one_that_does_not_come_to_its_tests_is_shown() {
        let dies = "     Running tests/some.rs (target/debug/deps/some-1)\n\
            error: test failed, to rerun pass `--test some`\n";
        assert_eq!(shown(&format!("{EMPTY}{dies}{EMPTY}")), (dies.to_owned(), 0));
    }

    #[test]
    fn the_number_of_tests() {
        assert_eq!(tests("running 1 test"), Some(1));
        assert_eq!(tests("running 12 tests"), Some(12));
        assert_eq!(tests("running out of memory"), None);
    }
}
