//! `cargo xtask soak`: victims that are all known, against a tracer that everything happens to.
//!
//! Prints the table of what became of each victim, and with `--write` puts it into docs/RELIABILITY.md.

use std::{
    ffi::OsString,
    fs,
    io::{Write, stdout},
    path::PathBuf,
    process::{Command, Stdio},
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

/// The table is between these lines.
const BEGIN: &str = "<!-- table: cargo xtask soak --write -->\n";
const END: &str = "<!-- end of table -->\n";

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let oomtrace = build::binary()?;
    let status = workspace::cargo("build")
        .args(["--package", "oomtrace-tests", "--no-default-features", "--bin", "oomtrace-scenarios"])
        .status()?;
    ensure!(status.success(), "cargo build: {status}");
    let program = workspace::target_dir().join("debug/oomtrace-scenarios");

    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(&program);
        sudo
    };
    command.arg("soak").arg("--oomtrace").arg(&oomtrace).arg("--minutes").arg(&args.minutes);
    command.args(args.seed.iter().flat_map(|seed| [OsString::from("--seed"), seed.into()]));
    let output = command.stderr(Stdio::inherit()).output().with_context(|| program.display().to_string())?;
    stdout().write_all(&output.stdout)?;
    ensure!(output.status.success(), "not every victim is accounted for");
    match &args.write {
        Some(page) => write(page, &String::from_utf8(output.stdout)?),
        None => Ok(()),
    }
}

fn write(page: &PathBuf, table: &str) -> Result<()> {
    let path = workspace::root().join(page);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).context("the page has no place for the table")?;
    let (_, after) = rest.split_once(END).context("the page has no end of the table")?;
    fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))
        .with_context(|| path.display().to_string())
}
