//! Runs each SQL file as it is, on lines of which some are there twice. Its first query must give the right
//! answer.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};

const RUNNER: &str = include_str!("sql.py");

/// Runs the file with this engine (`duckdb`, `chdb`).
pub fn run(engine: &str, file: &Path, lines: &[String], python: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    // The first half twice, as a shipper or a replaced tracer may report them.
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
    // Kills in a pod, and kills in a container without a pod.
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
