//! The scenarios as tests of `cargo test`. They share one machine, one kernel log and one tracer, so they run
//! one after another in the listed order. The last test is the tracer's end.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use oomtrace_tests::hog;
use oomtrace_tests::scenarios::{self, Outcome, Scenario};
use oomtrace_tests::session::{Session, is_guest};
use oomtrace_tests::tracer::{self, Hook};

/// The session, after the first test has started it; or why it could not start.
type Shared = Arc<Mutex<Option<Result<Session, String>>>>;

fn main() -> ExitCode {
    hog::serve_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared = Shared::default();
    let mut trials: Vec<Trial> = scenarios::all(is_guest())
        .map(|scenario| {
            let shared = Arc::clone(&shared);
            Trial::ignorable_test(scenario.name, move || run(scenario, &shared).map_err(failed))
        })
        .collect();
    let last = Arc::clone(&shared);
    trials.push(Trial::test("orderly_end", move || finish(&last).map_err(failed)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // If only some tests run, it may still be there.
    drop(shared);
    conclusion.exit_code()
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn start() -> Result<Session> {
    let hook = std::env::var("TEST_OOMTRACE_HOOK").unwrap_or_else(|_| "auto".to_owned());
    let hook = <Hook as clap::ValueEnum>::from_str(&hook, false)
        .map_err(anyhow::Error::msg)
        .context("TEST_OOMTRACE_HOOK")?;
    Session::start(&tracer::binary()?, hook)
}

fn run(scenario: &Scenario, shared: &Shared) -> Result<Completion> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match shared.get_or_insert_with(|| start().map_err(|error| format!("{error:#}"))) {
        Ok(session) => Ok(match scenario.run(session)? {
            Outcome::Passed => Completion::Completed,
            Outcome::NotApplicable(reason) => Completion::ignored_with(format!("n/a: {reason}")),
        }),
        Err(error) => bail!("{error}"),
    }
}

fn finish(shared: &Shared) -> Result<()> {
    let session = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    match session {
        Some(Ok(session)) => session.finish().map(drop),
        Some(Err(error)) => bail!("{error}"),
        None => start()?.finish().map(drop),
    }
}
