//! What oomtrace costs and how fast it is, beside bpftrace on the same tracepoint in the same run.
//!
//! In: the oomtrace binary. Out: a Markdown table on stdout, what is being measured on
//! stderr. Started by `cargo xtask bench`. Kills happen one at a time, each in a cgroup of its
//! own with a limit; the two tracers take turns, so that the machine's other work meets both.

mod cost;
mod figures;
mod host;
mod kills;
mod subject;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use oomtrace_tests::{cgroup, hog};

use crate::figures::{Figures, Sample};
use crate::kills::Kills;
use crate::subject::Subject;

/// Benchmark.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program to measure.
    oomtrace: PathBuf,
    /// Kills each tracer sees.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How often the tracers take turns.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds without a kill, for wakeups.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Cgroups that are there at a start.
    #[arg(long, default_value_t = 10_000)]
    cgroups: u32,
    /// Records to replay.
    #[arg(long, default_value_t = 200_000)]
    records: usize,
}

fn main() -> ExitCode {
    hog::serve_if_asked();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// For whoever watches.
fn progress(what: &str) {
    let _nobody_watches = writeln!(std::io::stderr(), "{what}");
}

fn run(arguments: &Arguments) -> Result<()> {
    // SAFETY: takes nothing, cannot fail.
    ensure!(unsafe { libc::geteuid() } == 0, "real kills need root");
    host::end_orderly_on_signals()?;
    host::own_tracefs()?;
    let _quiet = host::Setting::change("/proc/sys/kernel/printk", "1")?;
    let hierarchy = cgroup::Hierarchy::find()?;
    let scratch = cgroup::Scratch::make(&hierarchy)?;
    let mut kills = Kills::new(scratch.cgroup());
    let mut figures = Figures::default();

    let subjects = [Subject::Oomtrace(arguments.oomtrace.clone()), Subject::Bpftrace];
    let per_round = arguments.kills.div_ceil(arguments.rounds);
    for round in 1..=arguments.rounds {
        for subject in &subjects {
            progress(&format!(
                "round {round} of {}: {per_round} kills, {}",
                arguments.rounds,
                subject.name()
            ));
            let mut running = subject.start(&[])?;
            host::pause(Duration::from_secs(1))?;
            let mut sample = Sample { attached: running.attached(), ..Sample::default() };
            sample.latencies = kills.latencies(&running, per_round)?;
            sample.memory = cost::memory(running.pid())?;
            if round == 1 {
                progress(&format!("  {} s without a kill", arguments.idle));
                let before = cost::switches(running.pid())?;
                host::pause(Duration::from_secs(arguments.idle))?;
                sample.wakeups = Some(cost::switches(running.pid())?.saturating_sub(before));
            }
            running.stop()?;
            figures.of(subject).push(sample);
        }
    }
    let [oomtrace, _] = &subjects;
    progress("BPF run times, and records to replay");
    let records = tempfile()?;
    figures.programs = cost::programs(oomtrace, &mut kills, &records)?;
    progress(&format!("{} records to lines", arguments.records));
    figures.lines_per_second = Some(cost::throughput(&arguments.oomtrace, &records, arguments.records)?);
    std::fs::remove_file(&records)?;
    figures.pipe = subject::pipe_cost()?;
    progress(&format!("start with {} cgroups", arguments.cgroups));
    figures.crowd = Some(cost::crowd(&subjects, scratch.cgroup(), arguments.cgroups)?);
    figures.print(&mut std::io::stdout().lock(), arguments.idle)
}

/// A file's name that nobody else has.
fn tempfile() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("oomtrace-bench-{}.records", std::process::id()));
    std::fs::File::create_new(&path)?;
    Ok(path)
}
