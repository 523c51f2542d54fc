//! `cargo xtask run`: builds, then executes `oomtrace run`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    process::Command,
};

use anyhow::{Context, Result};

use crate::build;

/// Build, then run `oomtrace run` as root
#[derive(clap::Args)]
pub struct Args {
    /// Options for `oomtrace run`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn main(args: &Args) -> Result<()> {
    let binary = build::binary()?;
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&binary)
    } else {
        eprintln!("not root: sudo {} run", binary.display());
        let mut sudo = Command::new("sudo");
        sudo.arg(&binary);
        sudo
    };
    let program = OsStr::to_owned(command.get_program());
    // exec returns only if it fails.
    Err(command.arg("run").args(&args.args).exec()).with_context(|| program.display().to_string())
}
