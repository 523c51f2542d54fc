//! A machine that lacks something: `check` and `run` must report it with the right exit code. There is no
//! session, because nothing may be traceable.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// `EX_UNAVAILABLE`, of sysexits.h.
const UNSUPPORTED: i32 = 69;

/// A check of a machine that lacks something.
#[derive(Clone, Copy, Debug)]
pub struct Lacking {
    /// Its name.
    pub name: &'static str,
    act: fn(&Path) -> Result<()>,
}

/// All of them. Each needs a special guest.
pub const ALL: &[Lacking] = &[
    Lacking { name: "lockdown", act: lockdown },
    Lacking { name: "without_btf", act: without_btf },
    Lacking { name: "without_tracefs", act: without_tracefs },
    Lacking { name: "without_bpffs", act: without_bpffs },
];

impl Lacking {
    /// Runs it with the program at `binary`.
    pub fn run(&self, binary: &Path) -> Result<()> {
        (self.act)(binary)
    }
}

fn lockdown(binary: &Path) -> Result<()> {
    let file = "/sys/kernel/security/lockdown";
    let mode = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    ensure!(mode.contains("[confidentiality]"), "the guest is not locked down: {mode}");
    refuses(binary, "MISSING  lockdown", &["lockdown=confidentiality"])
}

fn without_btf(binary: &Path) -> Result<()> {
    absent("/sys/kernel/btf/vmlinux")?;
    refuses(binary, "MISSING  btf", &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"])
}

/// oomtrace uses its own mount.
fn without_tracefs(binary: &Path) -> Result<()> {
    absent("/sys/kernel/tracing/events")?;
    works(binary, "ok       tracefs")
}

fn without_bpffs(binary: &Path) -> Result<()> {
    works(binary, "/sys/fs/bpf is no bpffs")
}

fn absent(file: &str) -> Result<()> {
    ensure!(!Path::new(file).exists(), "the guest has {file}");
    Ok(())
}

/// `check` and `run` exit with the code for a kernel that cannot be traced, and both say why.
fn refuses(binary: &Path, finding: &str, words: &[&str]) -> Result<()> {
    let check = output(binary, &["check"])?;
    let found = String::from_utf8_lossy(&check.stdout).into_owned();
    ensure!(found.contains(finding), "check: expected \"{finding}\" in: {found}");
    ensure!(found.contains("oomtrace cannot run here"), "check: expected that it cannot run: {found}");
    let run = output(binary, &["run", "--timeout", "1s"])?;
    ensure!(run.stdout.is_empty(), "run printed: {}", String::from_utf8_lossy(&run.stdout));
    for (command, output) in [("check", &check), ("run", &run)] {
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        ensure!(
            code == Some(UNSUPPORTED),
            "{command}: expected exit code {UNSUPPORTED}, got {code:?}: {said}"
        );
        for word in words {
            ensure!(said.contains(word), "{command}: expected \"{word}\" in: {said}");
        }
    }
    Ok(())
}

/// `check` reports it, but nothing depends on it.
fn works(binary: &Path, finding: &str) -> Result<()> {
    let check = output(binary, &["check"])?;
    let found = String::from_utf8_lossy(&check.stdout);
    ensure!(found.contains(finding), "check: expected \"{finding}\" in: {found}");
    let run = output(binary, &["run", "-o", "json", "--timeout", "1s"])?;
    for (command, output) in [("check", &check), ("run", &run)] {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {}: {said}", output.status);
    }
    let lines = String::from_utf8_lossy(&run.stdout);
    ensure!(
        lines.starts_with("{\"schema\":1,\"type\":\"start\"") && lines.contains("\"type\":\"stop\""),
        "run: expected a start and a stop: {lines}"
    );
    Ok(())
}

fn output(binary: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(binary).args(arguments).output().with_context(|| format!("start {}", binary.display()))
}
