//! `cargo xtask bench`: measures the cost of oomtrace, of other tracers or of another build of oomtrace, in
//! the same run.
//!
//! Measures the binary of `cargo xtask build`, prints the table, and with `--write` also writes it into a
//! page.

use std::{
    ffi::OsString,
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
pub const PAGE: &str = "docs/BENCHMARKS.md";
/// The command of the other table.
pub const PROGRAMS: &str = "bench --programs";

/// Measure latency, start, memory and throughput, beside other tracers or another build (as root)
#[derive(clap::Args)]
pub struct Args {
    /// Also write the table into its place on this page of the checkout [default: docs/BENCHMARKS.md]
    #[arg(long, value_name = "PAGE", num_args = 0..=1, require_equals = true, default_missing_value = PAGE)]
    write: Option<PathBuf>,
    /// Another build of oomtrace that takes turns with this one: each figure becomes a ratio with its 95 %
    /// interval
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Measure in a guest with this kernel, where function hooks attach and the whole machine may run out of
    /// memory [default: 6.12]
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, require_equals = true, default_missing_value = measuring::KERNEL)]
    guest: Option<String>,
    /// Only measure what the programs in the kernel cost: at a kill, and in a walk over all memory cgroups. This table has its own
    /// place on the page
    #[arg(long, conflicts_with = "guest")]
    programs: bool,
    /// Options for the measuring program, after the options above, such as `--kills 40`; `cargo xtask bench
    /// -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Args {
    /// How the table that it makes is called.
    fn table(&self) -> &'static str {
        match self {
            Self { programs: true, .. } => PROGRAMS,
            Self { guest: Some(_), .. } => "bench --guest",
            _ => "bench",
        }
    }
}

pub fn main(args: &Args) -> Result<()> {
    if let Some(before) = &args.against {
        ensure!(before.is_file(), "--against: {} is not a file", before.display());
    }
    page::table(args.write.as_deref(), args.table(), || {
        setup::ensure(setup::BENCH)?;
        args.guest.as_deref().map_or_else(|| here(args), |kernel| in_guest(args, kernel))
    })
}

/// Measures on this machine.
fn here(args: &Args) -> Result<String> {
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
    command.arg(&oomtrace);
    if let Some(before) = &args.against {
        command.arg("--against").arg(before);
    }
    if args.programs {
        command.arg("--programs");
    }
    command.args(&args.args).stderr(Stdio::inherit());
    let output = command.output().with_context(|| bench.display().to_string())?;
    if !output.status.success() {
        // The table says which figures are worse.
        stdout().write_all(&output.stdout)?;
    }
    ensure!(output.status.success(), "{}: {}", bench.display(), output.status);
    let mut table = String::from_utf8(output.stdout)?;
    if args.programs {
        table.push_str(&ranking()?);
    }
    Ok(table)
}

/// Measures in a guest. A build to compare with must be static, like the one that is measured.
fn in_guest(args: &Args, kernel: &str) -> Result<String> {
    setup::ensure(setup::BENCH_GUEST)?;
    let more = args.args.iter().map(|word| word.to_str().context("an option is not UTF-8"));
    let more = more.collect::<Result<Vec<_>>>()?.join(" ");
    let against = if args.against.is_some() { "--against /bin/before" } else { "" };
    let measuring = Measuring {
        program: "oomtrace-bench",
        words: format!("/bin/oomtrace --guest {against} {more}"),
        kernel,
        before: args.against.as_deref(),
        others: &[("bpftrace", "/usr/bin/bpftrace"), ("oomkill", "/usr/sbin/oomkill")],
        files: &["/usr/libexec/coreutils/libstdbuf.so"],
        memory: 1024,
        total: Duration::from_secs(3600),
    };
    measuring.table()
}

/// The rows of what a ranking of cgroups costs. It has no command of its own, so a test measures it.
fn ranking() -> Result<String> {
    const TEST: &str = "what_a_ranking_costs";
    let output = workspace::cargo("test")
        .args(["--quiet", "--release", "--package", "oomtrace", "--lib", TEST, "--"])
        .args(["--ignored", "--nocapture"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let rows: String =
        said.lines().filter(|line| line.starts_with("| ")).map(|line| format!("{line}\n")).collect();
    ensure!(output.status.success() && !rows.is_empty(), "{TEST}: {}: {said}", output.status);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// The page, and the options for the measuring program.
    fn parsed(words: &str) -> (Option<PathBuf>, String) {
        let Cli { args } =
            clap::Parser::try_parse_from(std::iter::once("bench").chain(words.split_whitespace())).unwrap();
        (args.write, args.args.join(OsString::from(" ").as_os_str()).into_string().unwrap())
    }

    #[test]
    fn the_page_is_an_option_here_and_others_are_the_measuring_programs() {
        assert_eq!(parsed("--kills 40 --rounds 2"), (None, "--kills 40 --rounds 2".to_owned()));
        assert_eq!(parsed("--write"), (Some(PAGE.into()), String::new()));
        assert_eq!(parsed("--write --kills 40"), (Some(PAGE.into()), "--kills 40".to_owned()));
        assert_eq!(
            parsed("--write=docs/X.md --kills 40"),
            (Some("docs/X.md".into()), "--kills 40".to_owned())
        );
        assert_eq!(parsed("--against target/old --rounds 5"), (None, "--rounds 5".to_owned()));
        assert_eq!(parsed("--guest --kills 40"), (None, "--kills 40".to_owned()));
        assert_eq!(parsed("-- --help"), (None, "--help".to_owned()));
    }
}
