//! Podman as root, with cgroups made by systemd.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::{EAT, expect};
use oomtrace_tests::tracer::{Line, detail};
use serde_json::{Value, json};

use crate::Case;
use crate::world::{LIMIT, LIMIT_BYTES, World, of_user, run};

pub(crate) const CASES: &[Case] = &[("podman_over_its_limit", over_its_limit), ("podman_pod", pod)];

/// The image's name in Podman.
pub(crate) const IMAGE: &str = "localhost/oomtrace-test:1";

/// Runs a script in a new container in the background. Returns the container's id.
pub(crate) fn start(name: &str, options: &[&str], script: &str) -> Result<String> {
    let mut arguments = vec!["run", "-d", "--pull=never", "--name", name, "-m", LIMIT];
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[IMAGE, "/bin/sh", "-c", script]);
    run("podman", &arguments)
}

/// Checks a kill in a container whose cgroup is `scope`.
pub(crate) fn killed(line: &Line, id: &str, name: &str, scope: &str) -> Result<()> {
    let container = json!({"id": id, "name": name, "runtime": {"name": "podman"}, "image": {"name": IMAGE}});
    let container = match user_of(scope) {
        Some(uid) => of_user(container, uid),
        None => container,
    };
    expect(
        line,
        &[
            ("container", container),
            ("oom.scope", json!("memcg")),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("victim.cgroup.path", json!(format!("{scope}/container"))),
            ("systemd.unit", json!(format!("libpod-{id}.scope"))),
            ("missing.container", Value::Null),
        ],
    )?;
    let fired = line.get("oom.cgroup.path").and_then(Value::as_str).context("oom.cgroup.path")?;
    ensure!(fired.starts_with(scope), "field oom.cgroup.path: {fired} is not in {scope}");
    Ok(())
}

/// The user whose slice contains a path.
fn user_of(path: &str) -> Option<u32> {
    path.strip_prefix("/user.slice/user-")?.split_once('.')?.0.parse().ok()
}

fn over_its_limit(world: &mut World) -> Result<()> {
    let id = start("plain", &["--network", "none"], &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    killed(&line, &id, "plain", &format!("/machine.slice/libpod-{id}.scope"))?;
    let verdict = world.watch.verdict_of(&line)?;
    if verdict.get("missing.runtime_says").is_some() {
        let why = detail(&verdict.value, "runtime_says");
        // An emulated machine may be too slow to answer.
        ensure!(why.contains("did not answer"), "field missing.runtime_says: {why}");
        crate::say(&format!("says {}: {why}", world.case));
        expect(&verdict, &[("runtime_says", Value::Null), ("missed", Value::Null)])?;
        return run("podman", &["rm", "-f", &id]).map(drop);
    }
    let state = run("podman", &["container", "inspect", "--format", "{{json .State}}", &id])?;
    world.told("podman inspect", &serde_json::from_str(&state)?, &verdict)?;
    run("podman", &["rm", "-f", &id]).map(drop)
}

/// A pod with its own cgroup, which its infra container keeps.
fn pod(world: &mut World) -> Result<()> {
    let pod = run(
        "podman",
        &[
            "pod",
            "create",
            "--name",
            "shop",
            "--network",
            "none",
            "--infra-image",
            IMAGE,
            "--infra-command",
            "sleep 86400",
        ],
    )?;
    let id = start("member", &["--pod", "shop"], &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    let slice = format!("/machine.slice/machine-libpod_pod_{pod}.slice");
    killed(&line, &id, "member", &format!("{slice}/libpod-{id}.scope"))?;
    run("podman", &["pod", "rm", "-f", "-t", "0", "shop"]).map(drop)
}
