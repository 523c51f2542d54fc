//! containerd through its own client. The id is free text and also the name.

use std::process::Command;

use anyhow::Result;
use oomtrace_tests::containers::{EAT, expect, output};
use serde_json::{Value, json};

use crate::Case;
use crate::world::{CRI_IMAGE, World};

pub(crate) const CASES: &[Case] = &[("ctr_over_its_limit", over_its_limit)];

fn over_its_limit(world: &mut World) -> Result<()> {
    // Its namespace is the topmost cgroup.
    let namespace = format!("oomtrace-test-{}", std::process::id());
    let socket = world.containerd.socket.clone();
    let ctr = |arguments: &[&str]| {
        output(Command::new("ctr").arg("-a").arg(&socket).args(["-n", &namespace]).args(arguments))
    };
    ctr(&["images", "import", &world.saved().display().to_string()])?;
    let script = format!("exec {EAT}");
    let label = "com.docker.compose.service=worker";
    ctr(&[
        "run",
        "-d",
        "--memory-limit",
        "33554432",
        "--label",
        label,
        CRI_IMAGE,
        "worker-1",
        "/bin/sh",
        "-c",
        &script,
    ])?;
    let path = format!("/{namespace}/worker-1");
    let line = world.watch.kill_in(&path)?;
    expect(
        &line,
        &[
            (
                "container",
                json!({
                    "id": "worker-1",
                    "name": "worker-1",
                    "runtime": {"name": "containerd"},
                    "label": {"com.docker.compose.service": "worker"},
                }),
            ),
            ("k8s", Value::Null),
            ("oom.cgroup.path", json!(path)),
        ],
    )?;
    ctr(&["tasks", "delete", "-f", "worker-1"])?;
    ctr(&["containers", "delete", "worker-1"])?;
    world.tidy();
    Ok(())
}
