//! Builds the packages a second time from a copy of the checkout in another directory, and compares them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::super::{architecture::Architecture, make};
use crate::workspace;

/// Makes all packages here and in another directory from the current sources, and compares the checksums.
pub fn run(architectures: &[Architecture]) -> Result<()> {
    // A path of another length, so that a path inside a file would move everything after it.
    let directory = tempfile::Builder::new().prefix("another-place-for-").tempdir()?;
    let copy = directory.path().join("oomtrace");
    copied(&workspace::root(), &copy)?;
    let (here, again) = (directory.path().join("here"), directory.path().join("elsewhere"));
    make(architectures, &here)?;
    let mut cargo = workspace::cargo("xtask");
    cargo.arg("package").arg("--out").arg(&again).current_dir(&copy).env_remove("CARGO_TARGET_DIR");
    cargo.env_remove("CARGO_MANIFEST_DIR");
    for architecture in architectures {
        cargo.args(["--arch", architecture.debian()]);
    }
    let status = cargo.status()?;
    ensure!(status.success(), "cargo xtask package in {}: {status}", copy.display());
    let sums = |out: &Path| fs::read_to_string(out.join("SHA256SUMS")).context("SHA256SUMS");
    let (first, second) = (sums(&here)?, sums(&again)?);
    let differ: Vec<&str> =
        first.lines().filter(|line| !second.lines().any(|other| other == *line)).collect();
    ensure!(differ.is_empty(), "these differ when they are built elsewhere:\n{}", differ.join("\n"));
    ensure!(first == second, "one build made other files than the other:\n{first}\n{second}");
    Ok(())
}

/// Copies the files that git tracks or would add, as they are now.
fn copied(from: &Path, to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(from);
    let output = git.output()?;
    ensure!(output.status.success(), "git ls-files: {}", output.status);
    for name in String::from_utf8(output.stdout)?.split('\0').filter(|name| !name.is_empty()) {
        // Removed, but the removal is not committed yet.
        if !from.join(name).is_file() {
            continue;
        }
        let copy = to.join(name);
        fs::create_dir_all(copy.parent().context("a file in no directory")?)?;
        fs::copy(from.join(name), &copy).with_context(|| name.to_owned())?;
    }
    Ok(())
}
