//! A user's own containers, whose files are in the user's home.

use std::process::Command;

use anyhow::{Context, Result};
use oomtrace_tests::containers::{EAT, IMAGE as PLAIN_IMAGE, expect, output};
use oomtrace_tests::patience::until;
use serde_json::{Value, json};

use crate::Case;
use crate::podman::{IMAGE, killed};
use crate::world::{LIMIT, LIMIT_BYTES, World, of_docker, of_user, run};

pub(crate) const CASES: &[Case] =
    &[("rootless_podman_over_its_limit", podman), ("rootless_docker_over_its_limit", docker)];

/// The user of the guest's image.
const USER: u32 = 1000;
const HOME: &str = "/home/ann";

/// Runs a program as that user, as after a login.
pub(crate) fn as_user(program: &str, arguments: &[&str]) -> Result<String> {
    let runtime = format!("/run/user/{USER}");
    output(
        Command::new("setpriv")
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .args(["--init-groups", program])
            .args(arguments)
            .current_dir(HOME)
            .env("HOME", HOME)
            .env("USER", "ann")
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={runtime}/bus"))
            .env("XDG_RUNTIME_DIR", &runtime),
    )
}

/// The same through the user's systemd, so that it runs in a cgroup of the user. Else it could not enter the
/// user's scopes.
fn in_session(program: &str, arguments: &[&str]) -> Result<String> {
    let systemd = ["--user", "-q", "--wait", "--pipe", "--collect", program];
    as_user("systemd-run", &[&systemd[..], arguments].concat())
}

/// The cgroup of the user's containers.
const SLICE: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice";

fn podman(world: &mut World) -> Result<()> {
    in_session("podman", &["import", &world.tar.display().to_string(), IMAGE])?;
    let script = format!("exec {EAT}");
    let id = in_session(
        "podman",
        &[
            "run",
            "-d",
            "--pull=never",
            "--network",
            "none",
            "--name",
            "anns",
            "-m",
            LIMIT,
            IMAGE,
            "/bin/sh",
            "-c",
            &script,
        ],
    )?;
    let id = id.lines().last().context("podman named no container")?;
    let line = world.watch.kill_in(id)?;
    killed(&line, id, "anns", &format!("{SLICE}/libpod-{id}.scope"))?;
    // Its state is in a database that the user can write.
    let verdict = world.watch.verdict_of(&line)?;
    expect(
        &verdict,
        &[("container.name", json!("anns")), ("runtime_says", Value::Null), ("missed", Value::Null)],
    )?;
    verdict.get("missing.runtime_says").context("missing.runtime_says")?;
    in_session("podman", &["rm", "-f", "-t", "0", id]).map(drop)
}

/// A daemon of the user, with its data-root in the user's home.
fn docker(world: &mut World) -> Result<()> {
    let socket = format!("unix:///run/user/{USER}/docker.sock");
    let script = world.script(
        "dockerd.sh",
        &format!(
            "rm -f /run/docker /run/containerd /run/xtables.lock; \
             exec dockerd --rootless --exec-opt native.cgroupdriver=systemd --iptables=false --ip6tables=false \
             --bridge=none --data-root {HOME}/.local/share/docker --exec-root /run/user/{USER}/docker \
             --pidfile /run/user/{USER}/docker.pid -H {socket}"
        ),
    )?;
    let kit = ["--net=host", "--copy-up=/etc", "--copy-up=/run", "--propagation=rslave", "/bin/sh", &script];
    as_user(
        "systemd-run",
        &[&["--user", "-q", "--unit=dockerd", "-p", "Delegate=yes", "rootlesskit"], &kit[..]].concat(),
    )?;
    let docker = |arguments: &[&str]| run("docker", &[&["-H", socket.as_str()], arguments].concat());
    until("the user's dockerd", || Ok(docker(&["version"]).ok()))?;
    docker(&["import", &world.tar.display().to_string(), PLAIN_IMAGE])?;
    let script = format!("exec {EAT}");
    let id = docker(&[
        "run",
        "-d",
        "--pull",
        "never",
        "--network",
        "none",
        "--name",
        "own",
        "-m",
        LIMIT,
        PLAIN_IMAGE,
        "/bin/sh",
        "-c",
        &script,
    ])?;
    let line = world.watch.kill_in(&id)?;
    let container = of_user(of_docker(&id, "own"), USER);
    expect(
        &line,
        &[
            ("container", container),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("victim.cgroup.path", json!(format!("{SLICE}/docker-{id}.scope"))),
            ("systemd.unit", json!(format!("docker-{id}.scope"))),
        ],
    )?;
    let verdict = world.watch.verdict_of(&line)?;
    let state = docker(&["inspect", "-f", "{{json .State}}", &id])?;
    world.told("docker inspect", &serde_json::from_str(&state)?, &verdict)?;
    docker(&["rm", "-f", &id])?;
    as_user("systemctl", &["--user", "stop", "dockerd"]).map(drop)
}
