//! Processes of a user in cgroups with names like others' containers, pods and units. The lines say that they
//! are the user's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::tracer::at;
use oomtrace_tests::user::User;
use serde_json::{Value, json};

use crate::world::{Dir, World, path, text};

const ID: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
const NAME: &str = "payments-db";
const POD: &str = "pod0b6f3a52-1c1b-4f0e-9d3a-0123456789ab";

/// Writes Docker's files of a container with this id and this name.
fn docker(root: &Path) -> Result<()> {
    let files = root.join("containers").join(ID);
    fs::create_dir_all(&files)?;
    let labels = json!({"io.kubernetes.pod.name": "etcd", "io.kubernetes.pod.namespace": "kube-system",
        "com.docker.compose.project": "payments"});
    let config =
        json!({"Name": format!("/{NAME}"), "Config": {"Image": "registry/payments:1", "Labels": labels}});
    fs::write(files.join("config.v2.json"), config.to_string())?;
    Ok(())
}

/// Checks the line of the host's own container, and the lines of a user's cgroups with the same names and
/// ids. A filter for the host's container must drop the user's.
pub fn a_users_kills_are_reported_as_the_users(world: &World) -> Result<()> {
    let dir = Dir::make()?;
    let user = User::make(&dir.0)?;
    let root = dir.0.join("docker");
    docker(&root)?;
    docker(&user.home().join(".local/share/docker"))?;
    let root = format!("docker={}", path(&root)?);
    let mut all = world.try_run(&["--runtime-root", &root], |command| user.shown_to(command))?;
    let only = ["--runtime-root", &root, "--container", NAME];
    let mut filtered = world.try_run(&only, |command| user.shown_to(command))?;
    ensure!(text(&all.line()?, "type") == "start" && text(&filtered.line()?, "type") == "start", "no start");

    let (mut process, _its_cgroup) = user.process("shell")?;
    let mut victims = Vec::new();
    for names in [
        format!("docker-{ID}.scope"),
        format!("kubepods/{POD}/{ID}"),
        format!("cri-containerd-{ID}.scope"),
        "postgresql.service".to_owned(),
    ] {
        victims.push(process.kill_below(user.service().dir(), &names)?);
    }
    let cgroup = world.scratch.cgroup().child(format!("docker-{ID}.scope").as_bytes())?;
    let last = world.kill_another(&cgroup, |_| Ok(()))?;
    let lines = all.lines_until(&last)?;
    let host = lines.last().context("no line")?;
    ensure!(at(host, "container.name") == Some(&json!(NAME)), "the host's container: {host}");
    ensure!(at(host, "container.runtime.user").is_none(), "the host's container: {host}");

    let of = |victim: &u64| {
        let is_it = |line: &&Value| at(line, "victim.pid") == Some(&json!(victim));
        let line = lines.iter().find(is_it).with_context(|| format!("no line of {victim}"))?;
        ensure!(at(line, "victim.uid") == Some(&json!(user.uid())), "it was not the user's: {line}");
        ensure!(at(line, "k8s").is_none(), "a user's cgroup has a pod: {line}");
        anyhow::Ok(line)
    };
    let [docker, pod, cri, unit] = victims.as_slice() else { anyhow::bail!("victims: {victims:?}") };
    let docker = of(docker)?;
    ensure!(at(docker, "container.id") == Some(&json!(ID)), "the user's container: {docker}");
    ensure!(at(docker, "container.name") == Some(&json!(NAME)), "the user's container: {docker}");
    ensure!(
        at(docker, "container.runtime.user") == Some(&json!(user.uid())),
        "the user of the container: {docker}"
    );
    for line in [of(pod)?, of(cri)?] {
        ensure!(at(line, "container").is_none(), "a user's cgroup has a pod's container: {line}");
    }
    let unit = of(unit)?;
    ensure!(at(unit, "systemd.unit") == Some(&json!("postgresql.service")), "the user's unit: {unit}");
    ensure!(at(unit, "systemd.user") == Some(&json!(user.uid())), "the user of the unit: {unit}");

    let theirs = filtered.lines_until(&last)?;
    let kills: Vec<&Value> = theirs.iter().filter(|line| text(line, "type") == "oom_kill").collect();
    ensure!(kills.len() == 1, "--container passes a user's container: {kills:?}");
    all.stop()?;
    filtered.stop().map(drop)
}
