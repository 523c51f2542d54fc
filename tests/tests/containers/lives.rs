//! A child in a container is killed, and the container lives on, or not.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::EAT;
use serde_json::json;

use crate::Case;
use crate::docker::{LIMIT, by_own_limit, told, verdict_as_inspected};
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    ("docker_child_killed_while_pid_1_lives", child),
    ("docker_child_killed_and_pid_1_ends", child_and_then_pid_1),
];

/// The finding of a container that lives on.
pub(crate) const LIVES: &str = "child_killed_container_lives";

fn child(world: &mut World) -> Result<()> {
    let id = world.docker.run("forking", &["-m", LIMIT], &format!("{EAT}; exec sleep 600"))?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "forking"))?;
    let state = world.docker.state(&id)?;
    ensure!(state.get("Running") == Some(&json!(true)), "PID 1 died too: {state}");
    let lives =
        world.watch.finding_of(&line, LIVES)?.context("the container lives on, and no finding says so")?;
    ensure!(lives.get("pid") == state.get("Pid") && lives.get("comm").is_some(), "{lives}, docker: {state}");
    verdict_as_inspected(world, &line, &id)?;
    world.docker.remove(&[&id])
}

/// The first process ends because its child was killed, and Docker starts the container anew.
fn child_and_then_pid_1(world: &mut World) -> Result<()> {
    let options = ["-m", LIMIT, "--restart", "on-failure:1"];
    let id = world.docker.run("follows", &options, &format!("{EAT} || exit 3"))?;
    for _ in 0..2 {
        let line = world.watch.kill_in(&id)?;
        ensure!(line.number("victim.namespace_pid") > Some(1), "not a child: {}", line.text);
        let lives = world.watch.finding_of(&line, LIVES)?;
        ensure!(lives.is_none(), "the first process has ended: {lives:?}");
    }
    world.docker.remove(&[&id])
}
