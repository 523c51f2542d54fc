//! A made-up fleet in ClickHouse (as chDB), with the table and the questions of docs/recipes: what it costs, and that each answer
//! is right.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};

const RUNNER: &str = include_str!("fleet.py");

/// Kills of the fleet. About 2.2 GB as lines, in a temporary directory.
const KILLS: &str = "1000000";

/// Makes the fleet's lines out of those of the docs, and asks the questions of `recipe`.
///
/// # Errors
/// If the engine refuses a line or gives a wrong answer.
pub fn run(recipe: &Path, lines: &[String], python: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let samples = directory.path().join("samples.jsonl");
    fs::write(&samples, lines.join("\n") + "\n")?;
    let runner = directory.path().join("fleet.py");
    fs::write(&runner, RUNNER)?;
    let mut command = Command::new(python);
    command.arg(&runner).arg(recipe).arg(&samples).arg(KILLS).current_dir(directory.path());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    eprint!("{said}");
    Ok(())
}
