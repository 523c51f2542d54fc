//! The scenarios as one static program, for a guest that has only an init script besides. Prints one line for
//! each scenario: `PASS name (1.2 s)`, `FAIL name: why`, `n/a name: why not`; at the end `N passed, N
//! failed`. Exit code 1 if any failed.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use oomtrace_tests::scenarios::lacking::{self, Lacking};
use oomtrace_tests::scenarios::{self, Outcome, Scenario};
use oomtrace_tests::session::{Session, is_guest};
use oomtrace_tests::tracer::{self, Hook};
use oomtrace_tests::verifier;
use oomtrace_tests::{busy, soak};
use serde_json::Value;

/// Real OOM kills, compared with the kernel's own report.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program under test [default: $TEST_OOMTRACE_BIN, else the binary of `cargo xtask build`]
    #[arg(long)]
    oomtrace: Option<PathBuf>,
    /// How oomtrace may read the OOM killer's state.
    #[arg(long, value_enum, default_value_t)]
    hook: Hook,
    /// Run only these.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    scenario: Vec<String>,
    /// List the scenarios of this machine.
    #[arg(long)]
    list: bool,
    /// First print what this kernel offers, as `oomtrace check` finds it: lines `offers what: how`.
    #[arg(long)]
    offers: bool,
    /// Print what each program costs the verifier: lines `verified NAME: INSTRUCTIONS in MICROSECONDS`.
    #[arg(long)]
    verifier: bool,
    /// After oomtrace is attached, turn all function hooks off (`kernel.ftrace_enabled`). Only in a guest.
    #[arg(long)]
    ftrace_off_later: bool,
    /// Also write every line of oomtrace to this file, to check it against the schema elsewhere.
    #[arg(long, value_name = "PATH")]
    lines: Option<PathBuf>,
}

fn main() -> ExitCode {
    oomtrace_tests::hog::serve_if_asked();
    if std::env::args_os().nth(1).is_some_and(|word| word == soak::SUBCOMMAND) {
        return soak::main(std::env::args_os().skip(1));
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == busy::SUBCOMMAND) {
        return match busy::main(std::env::args_os().skip(1)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ignored = writeln!(std::io::stderr(), "busy: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("FAIL set-up: {error:#}"));
            say("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// Errors are ignored: the console may be gone.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ignored = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Scenarios that need a session, and those that need a special guest.
type Chosen = (Vec<&'static Scenario>, Vec<&'static Lacking>);

fn chosen(arguments: &Arguments) -> Result<Chosen> {
    let mut wanted: BTreeSet<&str> = arguments.scenario.iter().map(String::as_str).collect();
    // Always listed, because the caller may be about to start a guest.
    let all = scenarios::all(is_guest() || arguments.list);
    let chosen =
        all.filter(|scenario| arguments.scenario.is_empty() || wanted.remove(scenario.name)).collect();
    // No machine lacks all of these at once, so they run only by name.
    let lacking =
        lacking::ALL.iter().filter(|lacking| wanted.remove(lacking.name) || arguments.list).collect();
    ensure!(wanted.is_empty(), "no such scenario here: {wanted:?}; see --list");
    Ok((chosen, lacking))
}

/// Prints what `oomtrace check` finds, one line each.
fn tell_offers(binary: &Path) -> Result<()> {
    let output = Command::new(binary).args(["check", "-o", "json"]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("oomtrace check -o json")?;
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    say(&format!("offers kernel: {}", kernel.trim()));
    for finding in report.get("findings").and_then(Value::as_array).into_iter().flatten() {
        // These depend on the guest, not on its kernel.
        if !["capabilities", "attach", "bpffs", "runtimes"].contains(&&*text(finding, "name")) {
            say(&format!("offers {}: {}", text(finding, "name"), text(finding, "detail")));
        }
    }
    for hook in report.get("hooks").and_then(Value::as_array).into_iter().flatten() {
        if text(hook, "attached") == "none" {
            say(&format!("offers no hook on {}: {}", text(hook, "name"), text(hook, "reason")));
        }
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<bool> {
    let (chosen, lacking) = chosen(arguments)?;
    if arguments.list {
        let names = chosen.iter().map(|scenario| scenario.name);
        names.chain(lacking.iter().map(|lacking| lacking.name)).for_each(say);
        return Ok(true);
    }
    let binary = arguments.oomtrace.clone().map_or_else(tracer::binary, Ok)?;
    let failed_without = run_lacking(&lacking, &binary);
    if chosen.is_empty() {
        say(&format!("{} passed, {failed_without} failed", lacking.len() - failed_without));
        return Ok(failed_without == 0);
    }
    if arguments.offers {
        tell_offers(&binary)?;
    }
    if arguments.verifier {
        say_verified(&binary, arguments)?;
    }
    let mut session = Session::start(&binary, arguments.hook)?;
    let cannot = std::env::var_os("TEST_OOMTRACE_FTRACE_STAYS").is_some()
        || arguments.ftrace_off_later && !session.turn_hooks_off()?;
    let (mut passed, mut failed) = (lacking.len() - failed_without, failed_without);
    for scenario in chosen {
        let began = Instant::now();
        let outcome =
            if cannot { Ok(Outcome::NotApplicable(REFUSED.to_owned())) } else { scenario.run(&mut session) };
        match outcome {
            Ok(Outcome::Passed) => {
                passed += 1;
                say(&format!("PASS {} ({:.1} s)", scenario.name, began.elapsed().as_secs_f64()));
            }
            Ok(Outcome::NotApplicable(reason)) => say(&format!("n/a {}: {reason}", scenario.name)),
            Err(error) => {
                failed += 1;
                say(&format!("FAIL {}: {error:#}", scenario.name));
            }
        }
    }
    match session.finish() {
        Ok((lines, latencies)) => {
            if let Some(file) = &arguments.lines {
                std::fs::write(file, lines.into_iter().map(|line| line.text + "\n").collect::<String>())?;
            }
            passed += 1;
            say("PASS orderly_end");
            say_latencies(latencies);
        }
        Err(error) => {
            failed += 1;
            say(&format!("FAIL orderly_end: {error:#}"));
        }
    }
    say(&format!("{passed} passed, {failed} failed"));
    Ok(failed == 0)
}

const REFUSED: &str = "this kernel refuses kernel.ftrace_enabled=0";

/// Prints what each program costs the verifier.
fn say_verified(binary: &Path, arguments: &Arguments) -> Result<()> {
    for program in verifier::programs(binary, arguments.hook.word())? {
        let took = program.took.as_micros();
        say(&format!("verified {}: {} in {took}", program.name, program.instructions));
    }
    Ok(())
}

/// Runs those that need no session. Returns how many failed.
fn run_lacking(lacking: &[&Lacking], binary: &Path) -> usize {
    let mut failed = 0;
    for lacking in lacking {
        let began = Instant::now();
        match lacking.run(binary) {
            Ok(()) => say(&format!("PASS {} ({:.1} s)", lacking.name, began.elapsed().as_secs_f64())),
            Err(error) => {
                failed += 1;
                say(&format!("FAIL {}: {error:#}", lacking.name));
            }
        }
    }
    failed
}

fn say_latencies(mut latencies: Vec<i128>) {
    latencies.sort_unstable();
    let microseconds = |share: usize| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((latencies.len() * share / 100).min(last)).map_or(0, |ns| ns / 1000)
    };
    say(&format!("kill to line: p50 {} µs, p99 {} µs", microseconds(50), microseconds(99)));
}
