//! Measures the cost and the speed of oomtrace, and of other tracers of the same kills in the same run.
//!
//! Takes the oomtrace binary and perhaps another build of it. Prints a Markdown table on stdout and the
//! progress on stderr. `cargo xtask bench` starts it. Kills happen one at a time, each in its own cgroup with
//! a limit. The tracers take turns, so that other work of the machine affects all of them.

mod cost;
mod figures;
mod floor;
mod guest;
mod host;
mod kills;
mod marks;
mod programs;
mod ratio;
mod replay;
mod signals;
mod storm;
mod subject;
mod syscalls;
mod turns;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use oomtrace_tests::{cgroup, hog};

use crate::subject::Subject;

/// Benchmark.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program to measure.
    oomtrace: PathBuf,
    /// Another build that takes turns with it: each figure as a ratio with its 95 % interval.
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Without the minimal tracer and bpftrace.
    #[arg(long)]
    alone: bool,
    /// Only measure how late kills of others are reported during a user's storm, compared with a quiet host.
    #[arg(long, conflicts_with_all = ["against", "alone"])]
    storm: bool,
    /// Only measure how late kills are reported, of cgroups and of the whole machine, beside other tracers;
    /// only in a guest.
    #[arg(long, conflicts_with = "storm")]
    guest: bool,
    /// Only measure what the programs in the kernel cost: at a kill, and in a walk over all memory cgroups, compared with reading
    /// the cgroups' files.
    #[arg(long, conflicts_with_all = ["storm", "alone", "guest"])]
    programs: bool,
    /// How many kills each tracer sees.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How often the tracers take turns; an interval needs at least 5.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds without a kill, for wakeups.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// How many cgroups exist at a start.
    #[arg(long, default_value_t = 10_000)]
    cgroups: u32,
    /// Records to replay.
    #[arg(long, default_value_t = 200_000)]
    records: usize,
}

fn main() -> ExitCode {
    hog::serve_if_asked();
    floor::serve_if_asked();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Shows the progress.
fn progress(what: &str) {
    let _ignored = writeln!(std::io::stderr(), "{what}");
}

fn run(arguments: &Arguments) -> Result<()> {
    // SAFETY: takes nothing, cannot fail.
    ensure!(unsafe { libc::geteuid() } == 0, "real kills need root");
    host::end_orderly_on_signals()?;
    host::own_tracefs()?;
    let _quiet = host::Setting::change("/proc/sys/kernel/printk", "1")?;
    let hierarchy = cgroup::Hierarchy::find()?;
    let scratch = cgroup::Scratch::make(&hierarchy)?;
    if arguments.storm {
        return storm::measure(&arguments.oomtrace, scratch.cgroup(), &mut std::io::stdout().lock());
    }
    if arguments.programs {
        return programs::measure(arguments, &hierarchy, scratch.cgroup(), &mut std::io::stdout().lock());
    }
    let mut subjects = vec![Subject::Oomtrace(arguments.oomtrace.clone())];
    subjects.extend(arguments.against.clone().map(Subject::Before));
    let figures = if arguments.guest {
        if !arguments.alone {
            subjects.extend([Subject::Floor, Subject::OneLiner, Subject::Oomkill]);
        }
        guest::measure(arguments, &subjects, scratch.cgroup())?
    } else {
        if !arguments.alone {
            subjects.extend([Subject::Floor, Subject::Bpftrace]);
        }
        turns::measure(arguments, &subjects, scratch.cgroup())?
    };
    figures.print(&mut std::io::stdout().lock())?;
    let slower = figures.slower();
    ensure!(slower.is_empty(), "certainly more than 5 % worse than before: {}", slower.join("; "));
    Ok(())
}
