//! `cargo xtask soak`: kills known victims while all kinds of faults happen to the tracer.
//!
//! Prints a table of what happened to each victim, and with `--write` also writes it into a page.

use std::{
    io::{Write, stdout},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build, page, setup,
    vm::measuring::{self, Measuring},
    workspace,
};

/// The page with the table, unless `--write` names another.
pub const PAGE: &str = "docs/RELIABILITY.md";

/// Kill processes while the tracer is killed, stopped, upgraded, and its output fails: each victim must be accounted for (as root)
#[derive(clap::Args)]
pub struct Args {
    /// How long it runs
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Repeat the faults of this seed in the same order
    #[arg(long)]
    seed: Option<String>,
    /// Run in a guest with this kernel, where function hooks attach [default: 6.12]
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, require_equals = true, default_missing_value = measuring::KERNEL)]
    guest: Option<String>,
    /// Also write the table into its place on this page of the checkout [default: docs/RELIABILITY.md]
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = PAGE)]
    write: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    let table = if args.guest.is_some() { "soak --guest" } else { "soak" };
    page::table(args.write.as_deref(), table, || {
        setup::ensure(setup::BUILD)?;
        args.guest.as_deref().map_or_else(|| here(args), |kernel| in_guest(args, kernel))
    })
}

/// On this machine.
fn here(args: &Args) -> Result<String> {
    let oomtrace = build::binary()?;
    let program = build::scenarios()?;
    let mut command = workspace::as_root(&program);
    command.arg("soak").arg("--oomtrace").arg(&oomtrace).args(words(args));
    let output = command.stderr(Stdio::inherit()).output().with_context(|| program.display().to_string())?;
    if !output.status.success() {
        stdout().write_all(&output.stdout)?;
    }
    ensure!(output.status.success(), "not every victim is accounted for");
    Ok(String::from_utf8(output.stdout)?)
}

/// In a guest. It fails also if a tracer there did not use a function hook.
fn in_guest(args: &Args, kernel: &str) -> Result<String> {
    let measuring = Measuring {
        program: "oomtrace-scenarios",
        words: format!("soak --oomtrace /bin/oomtrace --hooked {}", words(args).join(" ")),
        kernel,
        before: None,
        others: &[],
        files: &[],
        memory: 1024,
        // Its end takes longer in an emulator.
        total: Duration::from_secs_f64(args.minutes * 60.0 + 900.0),
    };
    measuring.table().context("not every victim is accounted for")
}

fn words(args: &Args) -> Vec<String> {
    let seed = args.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.clone()]);
    ["--minutes".to_owned(), args.minutes.to_string()].into_iter().chain(seed).collect()
}
