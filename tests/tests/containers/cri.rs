//! Pods, requested from containerd as a kubelet does.

pub(crate) mod client;

use std::cell::Cell;

use anyhow::{Context, Result, bail, ensure};
use oomtrace_tests::cgroup::{Cgroup, Scratch};
use oomtrace_tests::containers::{EAT, expect, gated};
use oomtrace_tests::session::start_hog;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{CRI_IMAGE, World};
use client::{Client, EXITED, Pod, Wanted};

pub(crate) const CASES: &[Case] = &[
    ("cri_container_over_its_limit", container),
    ("cri_limit_of_the_pod", limit_of_the_pod),
    ("cri_sandbox", sandbox),
];

const LIMIT_BYTES: u64 = 32 << 20;
const RESTARTS: u32 = 3;
const UID: &str = "7a3f0c1e-52d4-4b8e-9a61-0c2f5d8e4b17";

/// The cgroup of a pod. A kubelet makes it before it requests the pod.
struct PodCgroup {
    cgroup: Cgroup,
    _levels: [Cgroup; 2],
    _scratch: Scratch,
    path: String,
}

impl PodCgroup {
    fn make(world: &World) -> Result<Self> {
        let scratch = Scratch::make(&world.hierarchy)?;
        let top = scratch.cgroup().child(b"kubepods")?;
        top.allow_children()?;
        let quality = top.child(b"burstable")?;
        quality.allow_children()?;
        let cgroup = quality.child(format!("pod{UID}").as_bytes())?;
        cgroup.allow_children()?;
        let path = String::from_utf8_lossy(&cgroup.place().path).into_owned();
        Ok(Self { cgroup, _levels: [quality, top], _scratch: scratch, path })
    }

    fn pod(&self, world: &World, name: &str) -> Pod {
        Pod {
            name: name.into(),
            namespace: "shop".into(),
            uid: UID.into(),
            cgroup: self.path.clone(),
            logs: world.dir().join(name),
            restarts: RESTARTS,
        }
    }
}

/// The `k8s` that oomtrace must report.
fn k8s(pod: &str, container: Option<&str>) -> Value {
    let pod = json!({"name": pod, "uid": UID});
    let mut k8s = json!({"namespace": {"name": "shop"}, "pod": pod, "qos": "burstable"});
    if let (Some(name), Some(k8s)) = (container, k8s.as_object_mut()) {
        k8s.insert("container".into(), json!({"name": name, "restart_count": RESTARTS}));
    }
    k8s
}

fn told(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "runtime": {"name": "containerd"}, "image": {"name": CRI_IMAGE}})
}

fn container(world: &mut World) -> Result<()> {
    let cgroup = PodCgroup::make(world)?;
    let client = Client::connect(&world.containerd.socket)?;
    let pod = cgroup.pod(world, "api-7d9f");
    let sandbox = client.run_pod(&pod)?;
    let id = client.run(
        &pod,
        &sandbox,
        &Wanted {
            name: "api",
            limit_bytes: LIMIT_BYTES,
            script: &format!("exec {EAT}"),
            gates: &world.gates(),
        },
    )?;
    let line = world.watch.kill_in(&id)?;
    expect(
        &line,
        &[
            ("container", told(&id, "api")),
            ("k8s", k8s("api-7d9f", Some("api"))),
            ("oom.cgroup.path", json!(format!("{}/{id}", cgroup.path))),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("missing.container", Value::Null),
        ],
    )?;
    let verdict = world.watch.verdict_of(&line)?;
    let status = client.status(&id)?;
    expect(
        &verdict,
        &[
            ("container.id", json!(id)),
            ("runtime_says.oom_killed", json!(status.reason == "OOMKilled")),
            ("runtime_says.exit_code", json!(status.exit_code)),
            ("runtime_says.status", json!("CONTAINER_EXITED")),
            ("missed", json!(status.reason != "OOMKilled")),
        ],
    )?;
    client.remove(&sandbox)?;
    world.tidy();
    Ok(())
}

fn limit_of_the_pod(world: &mut World) -> Result<()> {
    // The verdict may come before the bystander has ended. Then it proves nothing.
    for _ in 0..3 {
        if limit_of_the_pod_once(world)? {
            return Ok(());
        }
    }
    bail!("three times the runtime had not settled the bystander's end when the verdict came")
}

/// Returns whether the bystander had ended in time.
fn limit_of_the_pod_once(world: &mut World) -> Result<bool> {
    let cgroup = PodCgroup::make(world)?;
    cgroup.cgroup.limit(LIMIT_BYTES)?;
    let client = Client::connect(&world.containerd.socket)?;
    let pod = cgroup.pod(world, "both");
    let sandbox = client.run_pod(&pod)?;
    let bystander = client.run(
        &pod,
        &sandbox,
        &Wanted {
            name: "bystander",
            limit_bytes: 0,
            script: &gated("cri-bystander", "exit 0"),
            gates: &world.gates(),
        },
    )?;
    let id = client.run(
        &pod,
        &sandbox,
        &Wanted { name: "eater", limit_bytes: 0, script: &format!("exec {EAT}"), gates: &world.gates() },
    )?;
    let line = world.watch.kill_in(&id)?;
    expect(
        &line,
        &[
            ("container", told(&id, "eater")),
            ("k8s", k8s("both", Some("eater"))),
            ("oom.cgroup.path", json!(cgroup.path)),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
        ],
    )?;
    let accused = || anyhow::Ok(client.status(&bystander)?.reason == "OOMKilled");
    let accused_before = Cell::new(false);
    let too_early = world.end_before_the_verdict(&line, "cri-bystander", || {
        accused_before.set(accused()?);
        Ok(client.status(&bystander)?.state == EXITED)
    })?;
    let verdict = world.watch.verdict_of(&line)?;
    // containerd may note it only after the end, perhaps while the verdict is read. Then it proves nothing.
    let in_time = !too_early && accused()? == accused_before.get();
    let named = verdict.get("false_positive").and_then(Value::as_array).cloned().unwrap_or_default();
    ensure!(
        !in_time || named.contains(&json!("bystander")) == accused_before.get(),
        "field false_positive: the runtime reports the bystander: {}: {}",
        accused_before.get(),
        verdict.text
    );
    ensure!(world.watch.kills_in(&bystander) == 0, "oomtrace reported the bystander");
    client.remove(&sandbox)?;
    world.tidy();
    Ok(in_time)
}

fn sandbox(world: &mut World) -> Result<()> {
    let cgroup = PodCgroup::make(world)?;
    let client = Client::connect(&world.containerd.socket)?;
    let sandbox = client.run_pod(&cgroup.pod(world, "empty"))?;
    let dir = cgroup.cgroup.file(&sandbox);
    let limit = if dir.join("memory.max").exists() { "memory.max" } else { "memory.limit_in_bytes" };
    std::fs::write(dir.join(limit), LIMIT_BYTES.to_string()).context("limit the sandbox")?;
    // A sandbox contains only the pause process, so a process of the test enters it and is killed.
    let mut hog = start_hog(false, b"sandboxed")?;
    hog.join(&dir.join("cgroup.procs"))?;
    hog.grow("anon")?;
    hog.killed()?;
    let line = world.watch.kill_in(&sandbox)?;
    expect(
        &line,
        &[("container.id", json!(sandbox)), ("container.name", Value::Null), ("k8s", k8s("empty", None))],
    )?;
    client.remove(&sandbox)?;
    world.tidy();
    Ok(())
}
