//! `cargo xtask lint`: formatting, clippy and docs of both sides, warnings being errors.

use anyhow::Result;

use crate::{setup, stage::Stages, workspace};

/// Check formatting, lints and docs of both sides
#[derive(clap::Args)]
pub struct Args {}

pub fn main(_: &Args) -> Result<()> {
    // Also checks the user side, whose build script builds the eBPF object.
    setup::ensure(setup::BUILD)?;

    let deny = ["--", "--deny", "warnings"];
    let ebpf = workspace::ebpf();
    let mut stages = Stages::default();
    stages.run("format, user side", workspace::cargo("fmt").args(["--all", "--check"]));
    stages.run("format, eBPF", workspace::cargo("fmt").args(["--all", "--check"]).current_dir(&ebpf));
    stages.run(
        "clippy, user side",
        workspace::cargo("clippy").args(["--locked", "--workspace", "--all-targets"]).args(deny),
    );
    // For the host's target: the compiler that knows the eBPF target has no clippy.
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
    stages.finish()
}
