//! `cargo xtask build`: the released binary, in `target/release/oomtrace`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{setup, toolchain, workspace};

/// Build target/release/oomtrace, one static binary with the eBPF object in it
#[derive(clap::Args)]
pub struct Args {}

pub fn main(_: &Args) -> Result<()> {
    let binary = binary()?;
    eprintln!("{}", binary.display());
    Ok(())
}

/// Builds the binary and returns its path.
///
/// It is linked statically (a static-pie: small, and it runs in any container or guest of this architecture).
/// This needs an explicit `--target`, because a procedural macro cannot be static.
pub fn binary() -> Result<PathBuf> {
    setup::ensure(setup::BUILD)?;
    let host = workspace::host();
    let status = workspace::cargo("build")
        .args(["--release", "--package", "oomtrace", "--target", &host])
        .env("CARGO_ENCODED_RUSTFLAGS", flags().join("\x1f"))
        .status()?;
    ensure!(status.success(), "cargo build: {status}");

    let built = workspace::target_dir().join(host).join("release/oomtrace");
    let release = workspace::target_dir().join("release");
    let (binary, fresh) = (release.join("oomtrace"), release.join(".oomtrace.new"));
    fs::create_dir_all(&release).with_context(|| release.display().to_string())?;
    // A running binary cannot be overwritten, but a new file can take its name.
    fs::copy(&built, &fresh).with_context(|| format!("{} to {}", built.display(), fresh.display()))?;
    fs::rename(&fresh, &binary).with_context(|| binary.display().to_string())?;
    Ok(binary)
}

/// Builds the program of the scenarios, without optimization and without the schema, and returns its path.
pub fn scenarios() -> Result<PathBuf> {
    const NAME: &str = "oomtrace-scenarios";
    let status = workspace::cargo("build")
        .args(["--package", "oomtrace-tests", "--no-default-features", "--bin", NAME])
        .status()?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(workspace::target_dir().join("debug").join(NAME))
}

/// The compiler flags for a released binary.
pub fn flags() -> Vec<String> {
    let mut flags = vec![String::from("-Ctarget-feature=+crt-static")];
    flags.extend(toolchain::remapped(&workspace::root()));
    flags
}
