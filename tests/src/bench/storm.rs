//! How late kills of others are reported during a user's storm, compared with kills before the storm in the same run.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::storm;

use crate::figures::percentile;

/// Kills of others on a quiet host. Fewer have no p99.
const QUIET: usize = 100;
/// The slowest report during the storm may take this many times the p99 before it.
const RATIO_MAX: f64 = 3.0;

/// Measures, and prints the table.
///
/// # Errors
/// If a kill has no line or no name, or is reported too late.
pub fn measure(oomtrace: &Path, parent: &Cgroup, out: &mut impl Write) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("oomtrace-storm-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let outcome = storm::run(oomtrace, &dir, parent, QUIET);
    std::fs::remove_dir_all(&dir)?;
    let outcome = outcome?;
    let us = |ns: &[i128], percent| percentile(ns, percent).context("no kill of others");
    let (quiet, latest) = (us(&outcome.quiet_ns, 99)?, us(&outcome.amid_ns, 100)?);
    let (quiet_p50, amid_p50) = (us(&outcome.quiet_ns, 50)?, us(&outcome.amid_ns, 50)?);
    let ratio = latest / quiet;
    let (made, reported) = outcome.kills;
    writeln!(out, "| | quiet host | during a user's storm |\n|---|--:|--:|")?;
    writeln!(out, "| kills of others, each named | {QUIET} | {} |", outcome.amid_ns.len())?;
    writeln!(out, "| kill → line read, p50, µs | {quiet_p50:.0} | {amid_p50:.0} |")?;
    writeln!(out, "| kill → line read, p99 and latest, µs | {quiet:.0} | {latest:.0} |")?;
    writeln!(out, "| ratio of the two | | {ratio:.2} |")?;
    writeln!(out, "| kills of the user, and reported | | {made}, {reported} |")?;
    writeln!(out, "| peak (VmHWM), KiB | {} | {} |", outcome.memory_kib.0, outcome.memory_kib.1)?;
    ensure!(
        ratio <= RATIO_MAX,
        "the latest was {ratio:.2} times as late as the p99 of a quiet host: at most {RATIO_MAX}"
    );
    Ok(())
}
