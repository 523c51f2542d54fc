//! Containers that are ended by their runtime, and not for memory: who sent the signal, against what the runtime says.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::cgroup::Scratch;
use oomtrace_tests::containers::{DEAF, expect, expect_end_by_runtime};
use oomtrace_tests::tracer::Line;
use serde_json::{Value, json};

use crate::Case;
use crate::cri::client::{Client, Pod, Wanted};
use crate::docker::LIMIT;
use crate::podman;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    ("signals_docker_kill", docker_kill),
    ("signals_docker_stop", docker_stop),
    ("signals_podman_stop", podman_stop),
    ("signals_cri_stop", cri_stop),
];

const LIMIT_BYTES: u64 = 32 << 20;

/// The grace of one second ran out between SIGTERM and SIGKILL.
fn after_its_grace(line: &Line) -> Result<()> {
    let before =
        line.number("sigterm_before_ns").with_context(|| format!("no SIGTERM before: {}", line.text))?;
    ensure!((900_000_000..60_000_000_000).contains(&before), "field sigterm_before_ns: {}", line.text);
    Ok(())
}

fn state_of_docker(world: &World, id: &str) -> Result<()> {
    let state = world.docker.state(id)?;
    let says = |key: &str| state.get(key).cloned().unwrap_or_default();
    ensure!(says("ExitCode") == json!(137) && says("OOMKilled") == json!(false), "docker inspect: {state}");
    Ok(())
}

fn docker_kill(world: &mut World) -> Result<()> {
    let id = world.docker.run("killed", &["-m", LIMIT], "exec sleep 600")?;
    world.docker.cli(&["kill", &id])?;
    let line = world.watch.signal_in(&id)?;
    expect_end_by_runtime(&line, &id, LIMIT_BYTES)?;
    expect(&line, &[("sigterm_before_ns", Value::Null), ("container.name", json!("killed"))])?;
    state_of_docker(world, &id)?;
    world.docker.remove(&[&id])
}

fn docker_stop(world: &mut World) -> Result<()> {
    let id = world.docker.run("deaf", &["-m", LIMIT], DEAF)?;
    world.docker.cli(&["stop", "-t", "1", &id])?;
    let line = world.watch.signal_in(&id)?;
    expect_end_by_runtime(&line, &id, LIMIT_BYTES)?;
    after_its_grace(&line)?;
    state_of_docker(world, &id)?;
    world.docker.remove(&[&id])
}

fn podman_stop(world: &mut World) -> Result<()> {
    let id = podman::run(world, "deaf", &[], DEAF)?;
    podman::podman(world.dir(), &["stop", "-t", "1", &id])?;
    let line = world.watch.signal_in(&id)?;
    expect_end_by_runtime(&line, &id, LIMIT_BYTES)?;
    after_its_grace(&line)?;
    let format = ["container", "inspect", "--format", "{{json .State}}", &id];
    let state: Value = serde_json::from_str(&podman::podman(world.dir(), &format)?)?;
    ensure!(
        state.get("ExitCode") == Some(&json!(137)) && state.get("OOMKilled") == Some(&json!(false)),
        "podman inspect: {state}"
    );
    podman::podman(world.dir(), &["rm", "-f", &id]).map(drop)
}

fn cri_stop(world: &mut World) -> Result<()> {
    let scratch = Scratch::make(&world.hierarchy)?;
    let client = Client::connect(&world.containerd.socket)?;
    let pod = Pod {
        name: "deaf".into(),
        namespace: "shop".into(),
        uid: "7a3f0c1e-52d4-4b8e-9a61-0c2f5d8e4b18".into(),
        cgroup: String::from_utf8_lossy(&scratch.cgroup().place().path).into_owned(),
        logs: world.dir().join("deaf"),
        restarts: 0,
    };
    let sandbox = client.run_pod(&pod)?;
    let gates = world.gates();
    let wanted = Wanted { name: "api", limit_bytes: LIMIT_BYTES, script: DEAF, gates: &gates };
    let id = client.run(&pod, &sandbox, &wanted)?;
    client.stop(&id, 1)?;
    let line = world.watch.signal_in(&id)?;
    expect_end_by_runtime(&line, &id, LIMIT_BYTES)?;
    after_its_grace(&line)?;
    expect(&line, &[("k8s.pod.name", json!("deaf")), ("k8s.container.name", json!("api"))])?;
    let status = client.status(&id)?;
    ensure!(status.exit_code == 137 && status.reason != "OOMKilled", "the CRI says: {status:?}");
    client.remove(&sandbox)?;
    world.tidy();
    Ok(())
}
