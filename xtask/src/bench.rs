//! `cargo xtask bench`: what oomtrace costs, beside bpftrace in the same run.
//!
//! Measures what `cargo xtask build` leaves, prints the table, and with `--write` puts it
//! into docs/BENCHMARKS.md.

use std::{
    ffi::OsString,
    fs,
    io::{Write, stdout},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{build, setup, workspace};

/// Measure latency, start, memory and throughput, beside bpftrace (as root)
#[derive(clap::Args)]
pub struct Args {
    /// Also put the table into docs/BENCHMARKS.md
    #[arg(long)]
    write: bool,
    /// Options for the measuring program, as `--kills 40`; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// The table is between these lines.
const BEGIN: &str = "<!-- table: cargo xtask bench --write -->\n";
const END: &str = "<!-- end of table -->\n";

pub fn main(args: &Args) -> Result<()> {
    setup::ensure(setup::BENCH)?;
    let oomtrace = build::binary()?;
    let status = workspace::cargo("build")
        .args([
            "--release",
            "--package",
            "oomtrace-tests",
            "--no-default-features",
            "--bin",
            "oomtrace-bench",
        ])
        .status()?;
    ensure!(status.success(), "cargo build: {status}");
    let bench = workspace::target_dir().join("release/oomtrace-bench");

    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&bench)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(&bench);
        sudo
    };
    command.arg(&oomtrace).args(&args.args).stderr(Stdio::inherit());
    let output = command.output().with_context(|| bench.display().to_string())?;
    stdout().write_all(&output.stdout)?;
    ensure!(output.status.success(), "{}: {}", bench.display(), output.status);
    if args.write { write(&String::from_utf8(output.stdout)?) } else { Ok(()) }
}

fn write(table: &str) -> Result<()> {
    let path = workspace::root().join("docs/BENCHMARKS.md");
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = page.split_once(BEGIN).context("docs/BENCHMARKS.md has no place for the table")?;
    let (_, after) = rest.split_once(END).context("docs/BENCHMARKS.md has no end of the table")?;
    fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))
        .with_context(|| path.display().to_string())
}
