//! Many containers at once.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow, ensure};
use serde_json::json;

use crate::Case;
use crate::docker::told;
use crate::image::EAT;
use crate::world::{World, expect};

pub(crate) const CASES: &[Case] = &[("docker_storm", storm)];

const CONTAINERS: usize = 60;
const AT_ONCE: usize = 8;

/// 60 containers, 8 at a time, each over its 16 MB: all must be named. What Docker shows of them is only told.
fn storm(world: &mut World) -> Result<()> {
    let next = AtomicUsize::new(0);
    let docker = &world.docker;
    let one_after_another = || -> Result<Vec<(String, String)>> {
        let mut started = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= CONTAINERS {
                return Ok(started);
            }
            let name = format!("storm-{number}");
            let id = docker.run(&name, &["-m", "16m"], &format!("exec {EAT}"))?;
            docker.cli(&["wait", &id])?;
            started.push((name, id));
        }
    };
    let containers = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one_after_another)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    let mut shown = 0;
    for (name, id) in &containers {
        let line = world.kill_in(id)?;
        expect(&line, &[("container", told(id, name))])?;
        let state = world.docker.state(id)?;
        shown += usize::from(state.get("OOMKilled") == Some(&json!(true)));
        let verdict = world.verdict_of(&line)?;
        expect(&verdict, &[("missed", json!(state.get("OOMKilled") != Some(&json!(true))))])?;
    }
    ensure!(containers.len() == CONTAINERS, "only {} containers ran", containers.len());
    let version = world.docker.cli(&["version", "-f", "{{.Server.Version}}"])?;
    let mut stderr = std::io::stderr().lock();
    let _nobody_reads = writeln!(
        stderr,
        "| {CONTAINERS} containers, {AT_ONCE} at a time, 16 MB each | named by oomtrace: {CONTAINERS} | shown by docker inspect ({version}): {shown} |"
    );
    let ids: Vec<&str> = containers.iter().map(|(_, id)| id.as_str()).collect();
    world.docker.remove(&ids)
}
