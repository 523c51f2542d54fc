//! `cargo xtask fuzz`: runs every parser with mutated input. The corpus is in `fuzz/corpus`.

use std::{ffi::OsString, process::Command};

use anyhow::{Result, ensure};

use crate::{setup, workspace};

/// Run every parser with mutated input: 10 million inputs by default
#[derive(clap::Args)]
pub struct Args {
    /// `--inputs N`, `--seconds N`, `--target NAME`, `--seed N`, `--batch N`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let status = fuzz("fuzz").args(&args.options).status()?;
    ensure!(status.success(), "fuzzing: {status}");
    Ok(())
}

/// For `cargo xtask test`: a short run, built like the other tests.
pub fn shortly() -> Command {
    let mut command = fuzz("dev");
    command.args(["--seconds", "20"]);
    command
}

fn fuzz(profile: &str) -> Command {
    let mut command = workspace::cargo("run");
    command.args(["--quiet", "--package", "oomtrace-fuzz", "--profile", profile, "--"]);
    command
}
