//! Real container runtimes: what oomtrace reports about kills in them must match what the runtime was told to
//! run.
//!
//! The runtimes' daemons are started and ended here, with their own directories and sockets. A runtime that
//! cannot start is a failure. The cases run one after another, because they share the daemons and the tracer.

mod containerd;
mod cri;
mod daemon;
mod docker;
mod lives;
mod podman;
mod programs;
mod signals;
mod storm;
mod world;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use oomtrace_tests::hog;
use world::World;

/// A case: its name and what it does.
type Case = (&'static str, fn(&mut World) -> Result<()>);
/// The world, after the first case has started it; or why it could not start.
type Shared = Arc<Mutex<Option<Result<World, String>>>>;

fn main() -> ExitCode {
    hog::serve_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let shared = Shared::default();
    let cases = [
        docker::CASES,
        lives::CASES,
        containerd::CASES,
        cri::CASES,
        podman::CASES,
        programs::CASES,
        signals::CASES,
        storm::CASES,
    ]
    .into_iter()
    .flatten();
    let mut trials: Vec<Trial> = cases
        .map(|(name, run)| {
            let shared = Arc::clone(&shared);
            Trial::test(format!("containers::{name}"), move || in_world(&shared, *run).map_err(failed))
        })
        .collect();
    let last = Arc::clone(&shared);
    trials.push(Trial::test("containers::orderly_end", move || finish(&last).map_err(failed)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // If only some cases run, it may still be there.
    drop(shared);
    conclusion.exit_code()
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn in_world(shared: &Shared, run: fn(&mut World) -> Result<()>) -> Result<()> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match shared.get_or_insert_with(|| World::start().map_err(|error| format!("{error:#}"))) {
        Ok(world) => {
            run(world)?;
            world.watch.tracer.check_new_lines()
        }
        Err(error) => bail!("{error}"),
    }
}

fn finish(shared: &Shared) -> Result<()> {
    match shared.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(Ok(world)) => world.finish(),
        Some(Err(error)) => bail!("{error}"),
        None => Ok(()),
    }
}
