//! `cargo xtask bench`: what oomtrace costs, beside bpftrace in the same run.
//!
//! Measures what `cargo xtask build` leaves, prints the table, and with `--write` puts it
//! into docs/BENCHMARKS.md.

use std::{
    ffi::OsString,
    io::{Write, stdout},
    path::Path,
    process::Stdio,
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

    let mut command = workspace::as_root(&bench);
    command.arg(&oomtrace).args(&args.args).stderr(Stdio::inherit());
    let output = command.output().with_context(|| bench.display().to_string())?;
    stdout().write_all(&output.stdout)?;
    ensure!(output.status.success(), "{}: {}", bench.display(), output.status);
    if args.write {
        workspace::write_table(Path::new("docs/BENCHMARKS.md"), "bench", &String::from_utf8(output.stdout)?)
    } else {
        Ok(())
    }
}
