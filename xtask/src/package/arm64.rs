//! The binary for arm64, built on amd64.
//!
//! If rustup has the target, its compiler is used. Debian has no package with the standard library of another
//! architecture, but the package of that architecture has it. So the arm64 package is unpacked into the
//! tools' directory, for Debian's compiler of the same version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{build, setup, stage::quietly, toolchain::says, workspace};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Debian's package of the standard library for its newer compiler.
const LIBRARY: &str = "libstd-rust-web-dev";

/// Builds the binary and returns its path.
pub fn binary() -> Result<PathBuf> {
    setup::ensure(setup::ARM64)?;
    let target_dir = workspace::target_dir().join("arm64");
    let (mut cargo, mut flags) = (workspace::cargo("build"), build::flags());
    if !rustup_has_it() {
        let library = library()?;
        flags.push(format!("--sysroot={}", library.display()));
        // The compiler's path does not become part of the binary.
        cargo = Command::new("/usr/bin/cargo");
        cargo.arg("build").current_dir(workspace::root()).env("RUSTC", "/usr/bin/rustc");
    }
    let status = cargo
        .args(["--release", "--locked", "--package", "oomtrace", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
        .status()?;
    ensure!(status.success(), "cargo build for arm64: {status}");
    Ok(target_dir.join(TARGET).join("release/oomtrace"))
}

fn rustup_has_it() -> bool {
    let sysroot = says(Command::new("rustc").args(["--print", "sysroot"]));
    sysroot.is_some_and(|path| Path::new(path.trim_end()).join("lib/rustlib").join(TARGET).is_dir())
}

/// Unpacks Debian's standard library for arm64, in the version of Debian's compiler.
fn library() -> Result<PathBuf> {
    let version = says(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "rustc-web"])).context(
        "no standard library for arm64: run `rustup target add aarch64-unknown-linux-gnu`, or install Debian's rustc-web",
    )?;
    let directory = setup::tools_dir()?.join(format!("arm64-{}", version.trim()));
    let library = directory.join("usr");
    if library.join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(library);
    }
    let fresh = tempfile::tempdir_in(setup::tools_dir()?)?;
    let mut update = foreign_apt(fresh.path())?;
    quietly("apt: package lists of arm64", "some seconds", update.arg("update"))?;
    let mut download = foreign_apt(fresh.path())?;
    download.current_dir(fresh.path()).args(["download", &format!("{LIBRARY}={}", version.trim())]);
    quietly("apt: the standard library for arm64", "35 MB", &mut download)?;
    let package = fs::read_dir(fresh.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt left no package")?;
    let unpacked = fresh.path().join("root");
    let status = Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked).status()?;
    ensure!(status.success(), "dpkg-deb: {status}");
    fs::rename(&unpacked, &directory).with_context(|| directory.display().to_string())?;
    Ok(library)
}

/// apt for another architecture, with its own lists. This machine's apt is not changed.
fn foreign_apt(directory: &Path) -> Result<Command> {
    for name in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(directory.join(name))?;
    }
    fs::write(directory.join("status"), "")?;
    let mut apt = Command::new("apt-get");
    apt.args([
        "-q",
        "-o",
        "APT::Architecture=arm64",
        "-o",
        "APT::Architectures=arm64",
        "-o",
        "APT::Sandbox::User=root",
    ]);
    for (option, name) in [("State::lists", "lists"), ("Cache", "cache"), ("State::status", "status")] {
        apt.arg("-o").arg(format!("Dir::{option}={}", directory.join(name).display()));
    }
    Ok(apt)
}
