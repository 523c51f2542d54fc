//! `schema`, `completions` and `man`: texts made from the program's own types.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::{
    cli::Cli,
    event::schema as json_schema,
    failure::{Code, Failure},
};

/// `oomtrace schema`.
///
/// # Errors
/// If standard output cannot be written.
pub fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&json_schema::schema()).unwrap_or_default();
    print(|out| writeln!(out, "{text}"))
}

/// `oomtrace completions SHELL`.
///
/// # Errors
/// If standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "oomtrace", &mut text);
    print(|out| out.write_all(&text))
}

/// `oomtrace man`.
///
/// # Errors
/// If standard output cannot be written.
pub fn man(command: Option<&str>) -> Result<(), Failure> {
    let mut cli = Cli::command();
    // So that it names each command like the command's own page.
    cli.build();
    let command = command.and_then(|name| cli.find_subcommand(name)).unwrap_or(&cli);
    let man = clap_mangen::Man::new(command.clone());
    print(|out| man.render(out))
}

/// Writes to standard output. A reader that is gone is no error.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(not_written(&error)),
        _ => Ok(()),
    }
}

/// That standard output takes nothing.
pub(super) fn not_written(error: &io::Error) -> Failure {
    Failure::message(Code::RunTime, format!("cannot write to standard output: {error}"))
}
