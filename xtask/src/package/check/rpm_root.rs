//! Tests the .rpm with `rpm --root`: a directory with its own database, and a static shell for the scripts.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::super::{architecture::Architecture, release::Release};
use crate::{setup, toolchain::in_path};

/// Installs, verifies, upgrades and removes it.
pub fn run(out: &Path, release: &Release) -> Result<()> {
    setup::ensure(setup::TEST)?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    for name in ["bin", "var/lib/rpm", "tmp", "etc", "usr/bin"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.is_file());
    let busybox = busybox.or_else(|| in_path("busybox")).context("no busybox")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for name in ["sh", "sed", "tail"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let host = Architecture::ALL.into_iter().find(|architecture| architecture.is_host());
    let machine = host.context("no package is for this machine")?.kernel();
    let package = out.join(format!("oomtrace-{}-1.{machine}.rpm", release.version));

    rpm(root, &["--initdb"])?;
    let package = package.display().to_string();
    // No package in the root provides the shell.
    rpm(root, &["--install", "--nodeps", &package])?;
    rpm(root, &["--verify", "--nodeps", "oomtrace"])?;
    let listed = rpm(root, &["--query", "--list", "oomtrace"])?;
    for path in listed.lines() {
        ensure!(root.join(path.trim_start_matches('/')).is_file(), "{path} was not installed");
    }
    let said = Command::new(root.join("usr/bin/oomtrace")).arg("--version").output()?;
    ensure!(said.status.success(), "the installed program does not start");

    // An upgrade must not change the operator's settings.
    let settings = root.join("etc/default/oomtrace");
    fs::write(&settings, "OOMTRACE_ARGS=--no-verdict\n")?;
    rpm(root, &["--upgrade", "--nodeps", "--replacepkgs", &package])?;
    ensure!(fs::read_to_string(&settings)?.contains("--no-verdict"), "an upgrade overwrote the settings");

    rpm(root, &["--erase", "oomtrace"])?;
    for path in listed.lines() {
        ensure!(!root.join(path.trim_start_matches('/')).exists(), "{path} was left behind");
    }
    Ok(())
}

fn rpm(root: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("rpm").arg("--root").arg(root).args(arguments).output()?;
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("rpm {}: {}: {said}{complaint}", arguments.join(" "), output.status);
    }
    // rpm only warns when a script fails here.
    ensure!(!complaint.contains("scriptlet failed"), "rpm {}: {complaint}", arguments.join(" "));
    Ok(said.into_owned())
}
