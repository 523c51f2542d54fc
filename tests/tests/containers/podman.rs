//! Podman: no daemon, and its own storage.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use oomtrace_tests::containers::{EAT, IMAGE, expect, gated, output};
use oomtrace_tests::tracer::Line;
use serde_json::{Value, json};

use crate::Case;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    ("podman_over_its_limit", over_its_limit),
    ("podman_renamed", renamed),
    ("podman_in_a_pod", in_a_pod),
    ("podman_in_a_pod_with_a_cgroup", in_a_pod_with_a_cgroup),
];

const LIMIT_BYTES: u64 = 32 << 20;

/// Runs `podman ARGUMENTS` with the storage of this run. Returns the output.
pub(crate) fn podman(dir: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("podman");
    for (option, name) in [("--root", "podman"), ("--runroot", "podman-run"), ("--tmpdir", "podman-tmp")] {
        command.arg(option).arg(dir.join(name));
    }
    command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"]);
    // Without this Podman asks for higher limits than a container on this host may have.
    command.env("CONTAINERS_CONF", dir.join("containers.conf"));
    // Its monitor leaves a file `oom` in the current directory.
    output(command.args(arguments).current_dir(dir))
}

/// Podman's configuration: limits for all containers, including those that it makes by itself.
pub(crate) const CONFIGURATION: &str =
    "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n";

fn have_image(world: &World) -> Result<()> {
    if podman(world.dir(), &["image", "exists", IMAGE]).is_err() {
        podman(world.dir(), &["import", &world.dir().join("rootfs.tar").display().to_string(), IMAGE])?;
    }
    Ok(())
}

/// Runs a script in a new container in the background. Returns the container's id.
pub(crate) fn run(world: &World, name: &str, options: &[&str], script: &str) -> Result<String> {
    have_image(world)?;
    let gates = format!("{}:/gate:ro", world.gates().display());
    let mut arguments = vec!["run", "-d", "--pull=never", "--network", "none", "--name", name, "-v", &gates];
    arguments.extend_from_slice(&["-m", "32m"]);
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[IMAGE, "/bin/sh", "-c", script]);
    podman(world.dir(), &arguments)
}

fn killed(world: &mut World, id: &str, name: &str, path: &str) -> Result<Line> {
    let line = world.watch.kill_in(id)?;
    let image = format!("localhost/{IMAGE}");
    expect(
        &line,
        &[
            (
                "container",
                json!({"id": id, "name": name, "runtime": {"name": "podman"}, "image": {"name": image}}),
            ),
            ("k8s", Value::Null),
            ("oom.cgroup.path", json!(path)),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("missing.container", Value::Null),
        ],
    )?;
    Ok(line)
}

fn over_its_limit(world: &mut World) -> Result<()> {
    let id = run(world, "plain", &[], &format!("exec {EAT}"))?;
    let line = killed(world, &id, "plain", &format!("/libpod_parent/libpod-{id}"))?;
    let verdict = world.watch.verdict_of(&line)?;
    let state: Value = serde_json::from_str(&podman(
        world.dir(),
        &["container", "inspect", "--format", "{{json .State}}", &id],
    )?)?;
    let field = |key: &str| state.get(key).cloned().unwrap_or_default();
    expect(
        &verdict,
        &[
            ("container.name", json!("plain")),
            ("runtime_says.oom_killed", field("OOMKilled")),
            ("runtime_says.exit_code", field("ExitCode")),
            ("runtime_says.status", field("Status")),
            ("missed", json!(field("OOMKilled") != json!(true))),
        ],
    )?;
    podman(world.dir(), &["rm", "-f", &id]).map(drop)
}

fn renamed(world: &mut World) -> Result<()> {
    let id = run(world, "before", &[], &gated("podman", &format!("exec {EAT}")))?;
    podman(world.dir(), &["rename", "before", "after"])?;
    world.open("podman")?;
    killed(world, &id, "after", &format!("/libpod_parent/libpod-{id}"))?;
    podman(world.dir(), &["rm", "-f", &id]).map(drop)
}

fn in_a_pod(world: &mut World) -> Result<()> {
    // Without an infra container a pod has no cgroup.
    podman(world.dir(), &["pod", "create", "--infra=false", "--share", "", "--name", "shop"])?;
    let id = run(world, "member", &["--pod", "shop"], &format!("exec {EAT}"))?;
    killed(world, &id, "member", &format!("/libpod_parent/libpod-{id}"))?;
    podman(world.dir(), &["pod", "rm", "-f", "shop"]).map(drop)
}

fn in_a_pod_with_a_cgroup(world: &mut World) -> Result<()> {
    have_image(world)?;
    let infra = ["--infra-image", IMAGE, "--infra-command", "sleep 86400", "--share", "ipc"];
    let pod = podman(world.dir(), &[&["pod", "create", "--name", "market"], &infra[..]].concat())?;
    let id = run(world, "seller", &["--pod", "market"], &format!("exec {EAT}"))?;
    killed(world, &id, "seller", &format!("/libpod_parent/{pod}/libpod-{id}"))?;
    podman(world.dir(), &["pod", "rm", "-f", "-t", "0", "market"]).map(drop)
}
