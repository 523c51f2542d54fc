//! How late kills of others are reported during a user's storm, compared with kills before the storm in the same run.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::storm;

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
    let quiet = storm::p99(&outcome.quiet_ns);
    let latest = outcome.amid_ns.iter().copied().max().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of less than a day")]
    let ratio = latest as f64 / quiet.max(1) as f64;
    let us = |ns: i128| ns / 1000;
    let (made, reported) = outcome.kills;
    writeln!(out, "| | quiet host | during a user's storm |\n|---|--:|--:|")?;
    writeln!(out, "| kills of others, each named | {QUIET} | {} |", outcome.amid_ns.len())?;
    writeln!(
        out,
        "| kill → line read, p50, µs | {} | {} |",
        us(storm::p50(&outcome.quiet_ns)),
        us(storm::p50(&outcome.amid_ns))
    )?;
    writeln!(out, "| kill → line read, p99 and latest, µs | {} | {} |", us(quiet), us(latest))?;
    writeln!(out, "| ratio of the two | | {ratio:.2} |")?;
    writeln!(out, "| kills of the user, and reported | | {made}, {reported} |")?;
    writeln!(out, "| peak (VmHWM), KiB | {} | {} |", outcome.memory_kib.0, outcome.memory_kib.1)?;
    ensure!(
        ratio <= RATIO_MAX,
        "the latest was {ratio:.2} times as late as the p99 of a quiet host: at most {RATIO_MAX}"
    );
    Ok(())
}
