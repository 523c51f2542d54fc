//! The SQL files: each runs as it is, on lines of which some come twice, and its first question has the right answer.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};

const RUNNER: &str = include_str!("sql.py");

/// Runs the file with this engine (`duckdb`, `chdb`).
pub fn run(engine: &str, file: &Path, lines: &[String], python: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    // As a shipper or a tracer that is replaced may report them: the first half twice.
    let twice = lines.iter().chain(lines.iter().take(lines.len() / 2));
    let text: String = twice.map(|line| format!("{line}\n")).collect();
    fs::write(directory.path().join("oom.jsonl"), text)?;
    let runner = directory.path().join("sql.py");
    fs::write(&runner, RUNNER)?;
    let mut command = Command::new(python);
    command.arg(&runner).arg(engine).arg(file).current_dir(directory.path());
    let output = command.output()?;
    ensure!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout)?;
    let kills = |text: &str| {
        lines.iter().filter(|line| line.contains("\"type\":\"oom_kill\"") && line.contains(text)).count()
    };
    // In a pod, and in a container that is in none.
    let in_pods = kills("\"k8s\":{");
    let expected = [
        format!("shop|api|{in_pods}|1|52428800"),
        format!("|api-service|{}|1|52428800", kills("") - in_pods),
    ];
    for answer in expected {
        ensure!(answers.lines().any(|line| line == answer), "{engine}: no answer {answer} in:\n{answers}");
    }
    Ok(())
}
