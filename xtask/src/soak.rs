//! `cargo xtask soak`: kills known victims while all kinds of faults happen to the tracer.
//!
//! Prints a table of what happened to each victim, and with `--write` also writes it into a page.

use std::{
    ffi::OsString,
    io::{Write, stdout},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use crate::{build, page::Place, setup, workspace};

/// The page with the table, unless `--write` names another.
pub const PAGE: &str = "docs/RELIABILITY.md";

/// Kill processes while the tracer is killed, stopped, upgraded, and its output fails: each victim must be accounted for (as root)
#[derive(clap::Args)]
pub struct Args {
    /// How long it runs
    #[arg(long, default_value = "10")]
    minutes: String,
    /// Repeat the faults of this seed in the same order
    #[arg(long)]
    seed: Option<String>,
    /// Also write the table into its place on this page of the checkout [default: docs/RELIABILITY.md]
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = PAGE)]
    write: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    let place = args.write.as_deref().map(|page| Place::of_table(page, "soak")).transpose()?;
    setup::ensure(setup::BUILD)?;
    let oomtrace = build::binary()?;
    let program = build::scenarios()?;

    let mut command = workspace::as_root(&program);
    command.arg("soak").arg("--oomtrace").arg(&oomtrace).arg("--minutes").arg(&args.minutes);
    command.args(args.seed.iter().flat_map(|seed| [OsString::from("--seed"), seed.into()]));
    let output = command.stderr(Stdio::inherit()).output().with_context(|| program.display().to_string())?;
    stdout().write_all(&output.stdout)?;
    ensure!(output.status.success(), "not every victim is accounted for");
    match place {
        Some(place) => place.fill(&String::from_utf8(output.stdout)?),
        None => Ok(()),
    }
}
