//! `cargo xtask lint`: formatting, length of files, clippy, docs and dependencies of both sides. A warning is an error.

mod size;

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{setup, stage::Stages, toolchain, workspace};

/// Check formatting, length of files, lints, docs and dependencies of both sides
#[derive(clap::Args)]
pub struct Args {}

pub fn main(_: &Args) -> Result<()> {
    // This also checks the user side, whose build script builds the eBPF object.
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::DENY)?;

    let deny = ["--", "--deny", "warnings"];
    let ebpf = workspace::ebpf();
    let mut stages = Stages::default();
    stages.run("format, user side", workspace::cargo("fmt").args(["--all", "--check"]));
    stages.run("format, eBPF", workspace::cargo("fmt").args(["--all", "--check"]).current_dir(&ebpf));
    stages.call("length of files", || size::check(&workspace::root()));
    stages.run(
        "clippy, user side",
        workspace::cargo("clippy").args(["--locked", "--workspace", "--all-targets"]).args(deny),
    );
    // For the host's target, because the compiler for the eBPF target has no clippy.
    stages.run(
        "clippy, eBPF",
        workspace::cargo("clippy")
            .args(["--locked", "--target", &workspace::host(), "--target-dir"])
            .arg(workspace::target_dir().join("bpf"))
            .args(deny)
            .current_dir(&ebpf),
    );
    stages.run(
        "docs",
        workspace::cargo("doc")
            .args(["--locked", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    );
    for (title, directory) in [("dependencies, user side", workspace::root()), ("dependencies, eBPF", ebpf)] {
        stages.run(title, &mut dependencies(&directory)?);
    }
    stages.finish()
}

/// Checks which crates may be used, with which licenses, and from where. Security advisories are left out:
/// they come from the network and change without a change here.
fn dependencies(directory: &Path) -> Result<Command> {
    let mut deny = Command::new(toolchain::made("cargo-deny").context("cargo-deny is not there")?);
    deny.args(["--locked", "--config"])
        .arg(workspace::root().join("deny.toml"))
        .args(["check", "--hide-inclusion-graph", "--show-stats", "bans", "licenses", "sources"])
        .current_dir(directory);
    Ok(deny)
}
