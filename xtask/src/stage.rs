//! Progress for the user: what runs, how long it may take, and how long it took.
//!
//! Everything goes to stderr.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write, stderr},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs a command and shows all its output only if it fails. Meanwhile a terminal shows its last line.
/// `expected` says how long it may take.
pub fn quietly(title: &str, expected: &str, command: &mut Command) -> Result<()> {
    eprintln!("{title} ({expected})");
    let started = Instant::now();
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| program(command))?;
    // The command keeps copies of the pipe's writing end. They must be dropped, or the reader waits for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut output = String::new();
    let live = stderr().is_terminal();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        if live {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(76).collect();
            write!(stderr(), "\r\x1b[K  {shown}")?;
        }
        output.push_str(&line);
        output.push('\n');
    }
    if live {
        write!(stderr(), "\r\x1b[K")?;
    }
    let status = child.wait()?;
    if !status.success() {
        write!(stderr(), "{output}")?;
        bail!("{title}: {status}");
    }
    eprintln!("  done in {}", seconds(started.elapsed()));
    Ok(())
}

/// Stages that all run, even if an earlier one failed.
#[derive(Default)]
pub struct Stages {
    ended: Vec<(String, Duration, bool)>,
}

impl Stages {
    /// Runs one stage, with direct access to the terminal.
    pub fn run(&mut self, title: &str, command: &mut Command) {
        self.call(title, || {
            let status = command.status().with_context(|| program(command))?;
            if status.success() { Ok(()) } else { bail!("{}: {status}", program(command)) }
        });
    }

    /// Runs one stage that is more than a command. Returns whether it passed.
    pub fn call(&mut self, title: &str, stage: impl FnOnce() -> Result<()>) -> bool {
        eprintln!("── {title}");
        let started = Instant::now();
        let outcome = stage();
        if let Err(error) = &outcome {
            eprintln!("{title}: {error:#}");
        }
        self.ended.push((title.to_owned(), started.elapsed(), outcome.is_ok()));
        outcome.is_ok()
    }

    /// Prints the result and the time of each stage. Fails if one failed.
    pub fn finish(self) -> Result<()> {
        eprintln!();
        for (title, took, passed) in &self.ended {
            eprintln!("{:>8}  {}  {title}", seconds(*took), if *passed { "pass" } else { "FAIL" });
        }
        let failed = self.ended.iter().filter(|(_, _, passed)| !passed).count();
        if failed > 0 {
            bail!("{failed} of {} stages failed", self.ended.len());
        }
        Ok(())
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn program(command: &Command) -> String {
    command.get_program().display().to_string()
}
