//! Containers at the place where a kubelet with the systemd driver puts them. containerd's own client starts
//! them, with the annotations of its CRI plugin. (Real pods, through the CRI, are tested on the host.)

use anyhow::Result;
use oomtrace_tests::containers::{EAT, IMAGE, expect};
use serde_json::json;

use crate::Case;
use crate::world::{LIMIT_BYTES, World, run};

pub(crate) const CASES: &[Case] = &[("kubernetes_paths_of_the_systemd_driver", systemd_driver)];

const UID: &str = "7a3f0c1e-52d4-4b8e-9a61-0c2f5d8e4b17";

fn systemd_driver(world: &mut World) -> Result<()> {
    let (id, image) = ("c".repeat(64), format!("docker.io/library/{IMAGE}"));
    let saved = "/var/lib/oomtrace-test/image.tar";
    run("docker", &["save", "-o", saved, IMAGE])?;
    run("ctr", &["-n", "k8s.io", "images", "import", saved])?;
    let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    let cgroup = format!("{slice}:cri-containerd:{id}");
    let mut arguments: Vec<String> =
        ["-n", "k8s.io", "run", "-d", "--runc-systemd-cgroup", "--cgroup", &cgroup].map(str::to_owned).into();
    arguments.push(format!("--memory-limit={LIMIT_BYTES}"));
    for (key, value) in [
        ("container-type", "container"),
        ("container-name", "api"),
        ("sandbox-name", "api-7d9f"),
        ("sandbox-namespace", "shop"),
        ("sandbox-uid", UID),
        ("image-name", &image),
    ] {
        arguments.extend(["--annotation".to_owned(), format!("io.kubernetes.cri.{key}={value}")]);
    }
    arguments.extend([image.as_str(), &id, "/bin/sh", "-c", &format!("exec {EAT}")].map(str::to_owned));
    run("ctr", &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let line = world.watch.kill_in(&id)?;
    let path = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{id}.scope");
    expect(
        &line,
        &[
            ("container.id", json!(id)),
            ("container.name", json!("api")),
            ("container.runtime.name", json!("containerd")),
            ("container.image.name", json!(image)),
            ("k8s.namespace.name", json!("shop")),
            ("k8s.pod.name", json!("api-7d9f")),
            ("k8s.pod.uid", json!(UID)),
            ("k8s.container.name", json!("api")),
            ("victim.cgroup.path", json!(path)),
            ("oom.cgroup.path", json!(path)),
        ],
    )?;
    run("ctr", &["-n", "k8s.io", "tasks", "delete", "-f", &id])?;
    run("ctr", &["-n", "k8s.io", "containers", "delete", &id]).map(drop)
}
