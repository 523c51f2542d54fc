//! `cargo xtask soak`: victims that are all known, against a tracer that everything happens to.
//!
//! Prints the table of what became of each victim, and with `--write` puts it into docs/RELIABILITY.md.

use std::{
    ffi::OsString,
    io::{Write, stdout},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use crate::{build, setup, workspace};

/// Kill processes while the tracer is killed, stopped, upgraded, and its output fails: each victim must be accounted for (as root)
#[derive(clap::Args)]
pub struct Args {
    /// For how long
    #[arg(long, default_value = "10")]
    minutes: String,
    /// The same faults in the same order again
    #[arg(long)]
    seed: Option<String>,
    /// Put the table into this page too
    #[arg(long, value_name = "PAGE")]
    write: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let oomtrace = build::binary()?;
    let status = workspace::cargo("build")
        .args(["--package", "oomtrace-tests", "--no-default-features", "--bin", "oomtrace-scenarios"])
        .status()?;
    ensure!(status.success(), "cargo build: {status}");
    let program = workspace::target_dir().join("debug/oomtrace-scenarios");

    let mut command = workspace::as_root(&program);
    command.arg("soak").arg("--oomtrace").arg(&oomtrace).arg("--minutes").arg(&args.minutes);
    command.args(args.seed.iter().flat_map(|seed| [OsString::from("--seed"), seed.into()]));
    let output = command.stderr(Stdio::inherit()).output().with_context(|| program.display().to_string())?;
    stdout().write_all(&output.stdout)?;
    ensure!(output.status.success(), "not every victim is accounted for");
    match &args.write {
        Some(page) => workspace::write_table(page, "soak", &String::from_utf8(output.stdout)?),
        None => Ok(()),
    }
}
