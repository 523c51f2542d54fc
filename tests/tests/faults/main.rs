//! What must hold when something around the tracer fails: a full disk, a reader that does not read, a late
//! start, few privileges. Real kills, each with its own name. Kills of others on this machine are ignored.

#![allow(clippy::print_stderr, reason = "a test")]

mod facts;
mod hangs;
mod output;
mod slow;
mod start;
mod storm;
mod users;
mod world;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use oomtrace_tests::hog;
use world::World;

fn main() -> ExitCode {
    hog::serve_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let world: Arc<Mutex<Option<World>>> = Arc::default();
    let tests: [(&str, Test); 23] = [
        ("full_disk", output::full_disk),
        ("blocked_pipe", output::blocked_pipe),
        ("blocked_pipe_and_a_small_ring", output::blocked_pipe_and_a_small_ring),
        ("ended_while_blocked", output::ended_while_blocked),
        ("reader_gone", output::reader_gone),
        ("logrotate", output::logrotate),
        ("since_boot", start::since_boot),
        ("since_boot_amid_kills", start::since_boot_amid_kills),
        ("service_manager", start::service_manager),
        ("least_privilege", start::least_privilege),
        ("home_that_never_answers", hangs::home_that_never_answers),
        ("home_that_hangs_its_reader", hangs::home_that_hangs_its_reader),
        ("homes_that_hang_all_readers", hangs::homes_that_hang_all_readers),
        ("victim_that_locks_its_memory", hangs::victim_that_locks_its_memory),
        ("victim_that_does_not_end", hangs::victim_that_does_not_end),
        ("an_unwanted_command_line_is_not_copied", facts::an_unwanted_command_line_is_not_copied),
        ("leaves_no_core", facts::leaves_no_core),
        ("a_users_kills_are_reported_as_the_users", users::a_users_kills_are_reported_as_the_users),
        ("a_users_storm_beside_others", storm::a_users_storm_beside_others),
        ("count_counts_kills", facts::count_counts_kills),
        ("simulate_takes_nothing_from_the_log", facts::simulate_takes_nothing_from_the_log),
        ("pids_used_again", facts::pids_used_again),
        ("pids_of_another_namespace", facts::pids_of_another_namespace),
    ];
    let trials = tests.map(|(name, test)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
            if world.is_none() {
                *world = Some(World::make().map_err(|error| format!("{error:#}"))?);
            }
            let world = world.as_ref().ok_or("no world")?;
            test(world).map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    drop(world);
    conclusion.exit_code()
}

type Test = fn(&World) -> Result<()>;
