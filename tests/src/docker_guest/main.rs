//! Docker and Podman under systemd, machines that run out of memory, and oomtrace as a service. All in a
//! guest made for this (`cargo xtask vm --docker`), whose systemd starts this program.
//!
//! Prints one line for each case: `PASS name (1.2 s)` or `FAIL name: why`. `says name: …` shows what a
//! runtime said about a kill and the verdict. Exit code 1 if a case failed.

mod docker;
mod host_wide;
mod killers;
mod kubernetes;
mod podman;
mod rootless;
mod service;
mod units;
mod world;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use oomtrace_tests::session::is_guest;
use world::World;

/// A case: its name and what it does.
type Case = (&'static str, fn(&mut World) -> Result<()>);

/// The service runs during all of them, except those of the whole machine.
const CASES: [&[Case]; 9] = [
    service::BEGIN,
    docker::CASES,
    kubernetes::CASES,
    podman::CASES,
    rootless::CASES,
    units::CASES,
    killers::CASES,
    service::END,
    host_wide::CASES,
];

/// Real container runtimes under systemd.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program under test.
    #[arg(long, default_value = "/opt/oomtrace")]
    oomtrace: PathBuf,
    /// Its unit.
    #[arg(long, default_value = "/opt/oomtrace.service")]
    unit: PathBuf,
    /// Run only these.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// List the cases.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("FAIL set-up: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Errors are ignored: the console may be gone.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ignored = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn run(arguments: &Arguments) -> Result<bool> {
    let cases = || {
        CASES.into_iter().flatten().filter(|(name, _)| {
            arguments.scenario.is_empty() || arguments.scenario.iter().any(|wanted| wanted == name)
        })
    };
    if arguments.list {
        cases().for_each(|(name, _)| say(name));
        say("orderly_end");
        return Ok(true);
    }
    ensure!(is_guest(), "only in a guest: this starts daemons and exhausts the memory");
    let mut passed = true;
    let mut tell = |name: &str, began: Instant, outcome: Result<()>| match outcome {
        Ok(()) => say(&format!("PASS {name} ({:.1} s)", began.elapsed().as_secs_f64())),
        Err(error) => {
            passed = false;
            // On one line, whatever a program printed.
            say(&format!("FAIL {name}: {error:#}").replace('\n', " / "));
        }
    };
    let mut world = World::start(&arguments.oomtrace, &arguments.unit)?;
    for (name, case) in cases() {
        let began = Instant::now();
        world.case = name;
        let outcome = case(&mut world).and_then(|()| world.watch.tracer.check_new_lines());
        if outcome.is_err() {
            world.tidy();
        }
        tell(name, began, outcome);
    }
    tell("orderly_end", Instant::now(), world.finish());
    Ok(passed)
}
