//! The lines of a real run into stores that guess a schema: DuckDB and ClickHouse (as chDB). Each line is a row, and no key
//! had to be kept as JSON text because two lines give it different types.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{build, workspace};

const RUNNER: &str = include_str!("stores.py");

/// Runs the scenarios of real kills as root, and gives every line that oomtrace printed meanwhile to both stores.
///
/// # Errors
/// If a scenario fails, a store refuses a line, or a key has two types.
pub fn run(python: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let lines = directory.path().join("oom.jsonl");
    make_kills(&lines)?;
    let text = fs::read_to_string(&lines).with_context(|| lines.display().to_string())?;
    let runner = directory.path().join("stores.py");
    fs::write(&runner, RUNNER)?;
    for engine in ["duckdb", "chdb"] {
        let mut command = Command::new(python);
        let output = command.arg(&runner).arg(engine).arg(&lines).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{engine}: {said}{}", String::from_utf8_lossy(&output.stderr));
        eprint!("{engine}: {said}");
    }
    // What was tried is worth saying: a run without kills would pass as well.
    for kind in ["start", "oom_kill", "stop"] {
        let of_kind = text.lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count();
        ensure!(of_kind > 0, "the run printed no line of type {kind}");
        eprintln!("{of_kind} lines of type {kind}");
    }
    Ok(())
}

/// The lines of such a run.
///
/// # Errors
/// If a scenario fails, or there was no kill.
pub fn real_lines() -> Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("oom.jsonl");
    make_kills(&file)?;
    let lines: Vec<String> = fs::read_to_string(&file)?.lines().map(str::to_owned).collect();
    let kills = lines.iter().filter(|line| line.contains("\"type\":\"oom_kill\"")).count();
    ensure!(kills > 0, "no kill was reported");
    eprintln!("{kills} kills, {} lines", lines.len());
    Ok(lines)
}

/// Every scenario of this host once; what oomtrace printed goes to `lines`.
fn make_kills(lines: &Path) -> Result<()> {
    let oomtrace = build::binary()?;
    let program = build::scenarios()?;
    let mut command = workspace::as_root(&program);
    let output = command.arg("--oomtrace").arg(&oomtrace).arg("--lines").arg(lines).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
