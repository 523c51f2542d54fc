//! Docker with the systemd driver on cgroup v2.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::{EAT, expect, gated};
use oomtrace_tests::tracer::{Line, detail};
use serde_json::{Value, json};

use crate::Case;
use crate::world::{LIMIT, LIMIT_BYTES, World, of_docker, run};

pub(crate) const CASES: &[Case] = &[
    ("docker_over_its_limit", over_its_limit),
    ("docker_child_killed_while_pid_1_lives", child),
    ("docker_nested_cgroup", nested_cgroup),
    ("docker_limited_slice", limited_slice),
    ("docker_name_forged_in_a_delegated_cgroup", forged),
    ("listed_before_a_kill", listed),
];

fn by_own_limit(line: &Line, id: &str, name: &str, below: &str) -> Result<()> {
    let path = format!("/system.slice/docker-{id}.scope");
    expect(
        line,
        &[
            ("container", of_docker(id, name)),
            ("oom.scope", json!("memcg")),
            ("oom.cgroup.path", json!(path)),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("victim.comm", json!("dd")),
            ("victim.cgroup.path", json!(format!("{path}{below}"))),
            ("systemd.unit", json!(format!("docker-{id}.scope"))),
            ("missing.container", Value::Null),
        ],
    )
}

fn over_its_limit(world: &mut World) -> Result<()> {
    let id = world.docker("plain", &["-m", LIMIT], &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, "plain", "")?;
    world.verdict_as_docker_says(&line, &id)?;
    run("docker", &["rm", "-f", &id]).map(drop)
}

fn child(world: &mut World) -> Result<()> {
    let id = world.docker("forking", &["-m", LIMIT], &format!("{EAT}; exec sleep 3600"))?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, "forking", "")?;
    let running = run("docker", &["inspect", "-f", "{{.State.Running}}", &id])?;
    ensure!(running == "true", "PID 1 died too");
    world.verdict_as_docker_says(&line, &id)?;
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// A cgroup with the memory controller below the container's own, as in a container with its own systemd.
fn nested_cgroup(world: &mut World) -> Result<()> {
    let id = world.docker("nesting", &["-m", LIMIT], &gated("nesting", &format!("exec {EAT}")))?;
    let scope = format!("/sys/fs/cgroup/system.slice/docker-{id}.scope");
    let pid = run("docker", &["inspect", "-f", "{{.State.Pid}}", &id])?;
    std::fs::create_dir(format!("{scope}/worker"))?;
    // Includes the shell's `sleep`, which may be gone by then: the cgroup must be empty before controllers
    // are enabled.
    for pid in std::fs::read_to_string(format!("{scope}/cgroup.procs"))?.lines().chain([pid.as_str()]) {
        let _ignored = std::fs::write(format!("{scope}/worker/cgroup.procs"), pid);
    }
    oomtrace_tests::patience::until("the nested controller", || {
        // The next check finds a `sleep` that started in between.
        for pid in std::fs::read_to_string(format!("{scope}/cgroup.procs"))?.lines() {
            let _ignored = std::fs::write(format!("{scope}/worker/cgroup.procs"), pid);
        }
        Ok(std::fs::write(format!("{scope}/cgroup.subtree_control"), "+memory").ok())
    })?;
    world.open("nesting")?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, "nesting", "/worker")?;
    world.verdict_as_docker_says(&line, &id)?;
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// The slice's limit fires. The eater must be named, and the bystander must not be reported.
fn limited_slice(world: &mut World) -> Result<()> {
    world.write_unit("limited.slice", "[Slice]\nMemoryMax=32M\n")?;
    let under = ["--cgroup-parent", "limited.slice"];
    let bystander = world.docker("bystander", &under, "exec sleep 3600")?;
    let id = world.docker("eater", &under, &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    expect(
        &line,
        &[
            ("container", of_docker(&id, "eater")),
            ("victim.cgroup.path", json!(format!("/limited.slice/docker-{id}.scope"))),
            ("oom.cgroup.path", json!("/limited.slice")),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
        ],
    )?;
    let verdict = world.verdict_as_docker_says(&line, &id)?;
    let accused = run("docker", &["inspect", "-f", "{{.State.OOMKilled}}", &bystander])? == "true";
    let expected = if accused { json!(["bystander"]) } else { Value::Null };
    expect(&verdict, &[("false_positive", expected)])?;
    ensure!(world.watch.kills_in(&bystander) == 0, "oomtrace reported the bystander");
    run("docker", &["rm", "-f", &id, &bystander]).map(drop)
}

/// A user's service with a delegated cgroup makes a cgroup that is named like another's container.
fn forged(world: &mut World) -> Result<()> {
    let id = world.docker("bank", &[], "exec sleep 3600")?;
    let scope = format!("docker-{id}.scope");
    // In a file, because systemd interprets `$` itself.
    let script = world.script(
        "eve.sh",
        &format!(
            "cd /sys/fs/cgroup/system.slice/eve.service && mkdir main {scope} && echo $$ >main/cgroup.procs && \
             echo +memory >cgroup.subtree_control && echo {LIMIT} >{scope}/memory.max && \
             echo $$ >{scope}/cgroup.procs && exec busybox {EAT}"
        ),
    )?;
    let unit = ["-q", "--unit=eve", "-p", "Delegate=yes", "-p", "User=ann", "/bin/sh"];
    run("systemd-run", &[&unit[..], &[script.as_str()]].concat())?;
    let path = format!("/system.slice/eve.service/docker-{id}.scope");
    let line = world.watch.kill_in(&path)?;
    expect(
        &line,
        &[
            ("container", Value::Null),
            ("systemd.unit", json!("eve.service")),
            ("victim.cgroup.path", json!(path)),
            ("oom.cgroup.path", json!(path)),
        ],
    )?;
    let why = line.get("missing.container").context("missing.container")?;
    let of_it = why == "container_elsewhere" && detail(&line.value, "container") == id;
    ensure!(of_it, "field missing.container: {}", line.text);
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// `oomtrace containers` lists what runs.
fn listed(world: &mut World) -> Result<()> {
    let id = world.docker("listed", &["-m", LIMIT], "exec sleep 3600")?;
    let podman = run(
        "podman",
        &["run", "-d", "--network", "none", "--name", "listed-too", crate::podman::IMAGE, "sleep", "600"],
    )?;
    let listed = run(&world.oomtrace.display().to_string(), &["containers", "-o", "json"])?;
    for (id, name) in [(&id, "listed"), (&podman, "listed-too")] {
        let line = listed.lines().find(|line| line.contains(id.as_str()));
        let line = line.with_context(|| format!("{name} is not listed: {listed}"))?;
        ensure!(line.contains(&format!("\"{name}\"")), "{name} is listed without its name: {line}");
    }
    run("podman", &["rm", "-f", "-t", "0", &podman])?;
    run("docker", &["rm", "-f", &id]).map(drop)
}
