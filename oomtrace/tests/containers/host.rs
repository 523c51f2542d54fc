//! A host whose `/` is a directory of the test: state files and the identities that they give.

use std::path::PathBuf;

use oomtrace::cgroups::tree::{CgroupTree, Seen, TreeLimits};
use oomtrace::containers::owner::Identity;
use oomtrace::containers::{Runtime, Runtimes};
use oomtrace::event::Absence;
use oomtrace::facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId};
use oomtrace::host::root::Root;
use serde_json::json;

pub const A: &str = "aa11bb22cc33dd44ee55ff66778899000123456789abcdef0123456789abcdef";
pub const B: &str = "bb22cc33dd44ee55ff66778899000123456789abcdef0123456789abcdefaa11";
pub const C: &str = "cc33dd44ee55ff66778899000123456789abcdef0123456789abcdefaa11bb22";
pub const UID: &str = "6f1c0a52-3b7e-4c58-9d51-0a1b2c3d4e5f";
/// `/proc/PID/status` of a daemon that root started on the host.
pub const ROOT_OF_THE_HOST: &str = "Name:\tdockerd\nPid:\t77\nUid:\t0\t0\t0\t0\nNSpid:\t77\n";
pub const SECOND: u64 = 1_000_000_000;

/// The limits of a run, but with as much time as the machine needs.
pub fn limits() -> TreeLimits {
    TreeLimits { others_time: std::time::Duration::from_secs(3600), ..TreeLimits::default() }
}

/// A host whose `/` is a temporary directory.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub tree: CgroupTree,
    pub now: u64,
    pub next_id: u64,
}

impl Host {
    pub fn new() -> Self {
        Self::with(limits(), &[])
    }

    pub fn with(limits: TreeLimits, extra: &[(Runtime, PathBuf)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = CgroupTree::new(Runtimes::discover(Root::at(dir.path()), extra), limits);
        Self { dir, tree, now: SECOND, next_id: 1000 }
    }

    /// Reads the configuration of the host again, as a start of the tracer does.
    pub fn restart(&mut self) {
        self.tree = CgroupTree::new(Runtimes::discover(Root::at(self.dir.path()), &[]), limits());
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    /// Makes the process `pid` one outside of containers: in a service, with the host's root directory.
    pub fn is_at_home(&self, pid: u32) {
        self.write(&format!("/proc/{pid}/cgroup"), "0::/system.slice/docker.service\n");
        std::os::unix::fs::symlink(self.dir.path(), self.at(&format!("/proc/{pid}/root"))).unwrap();
    }

    pub fn gone(&self, path: &str) {
        std::fs::remove_dir_all(self.at(path)).unwrap();
    }

    pub fn docker_at(&self, root: &str, id: &str, name: &str) {
        let config = json!({
            "StreamConfig": {}, "State": {"Running": true, "OOMKilled": false}, "ID": id, "Name": format!("/{name}"),
            "Config": {"Hostname": "x", "Image": "api:v2.0", "Labels": {
                "com.docker.compose.project": "shop", "com.docker.compose.service": "api", "secret": "no"}},
            "RestartCount": 3, "Driver": "overlay2"
        });
        self.write(&format!("{root}/containers/{id}/config.v2.json"), config.to_string());
    }

    pub fn docker(&self, id: &str, name: &str) {
        self.docker_at("/var/lib/docker", id, name);
    }

    pub fn cgroup_parent(&self, id: &str, parent: &str) {
        let config = json!({"Memory": 67_108_864, "CgroupParent": parent});
        self.write(&format!("/var/lib/docker/containers/{id}/hostconfig.json"), config.to_string());
    }

    pub fn bundle(
        &self,
        state: &str,
        (namespace, id): (&str, &str),
        cgroups_path: &str,
        annotations: serde_json::Value,
    ) {
        let spec = json!({"ociVersion": "1.1.0", "process": {"args": ["x"]}, "annotations": annotations,
            "linux": {"cgroupsPath": cgroups_path, "namespaces": []}});
        let file = format!("{state}/io.containerd.runtime.v2.task/{namespace}/{id}/config.json");
        self.write(&file, spec.to_string());
    }

    pub fn pod_member(&self, state: &str, cgroups_path: &str) {
        let annotations = json!({
            "io.kubernetes.cri.container-name": "api", "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.image-name": "registry.example/api:v2", "io.kubernetes.cri.sandbox-name": "api-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID});
        self.bundle(state, ("k8s.io", A), cgroups_path, annotations);
    }

    pub fn podman(&self, graph_root: &str, names: &[(&str, &str)]) {
        let list: Vec<_> = names
            .iter()
            .map(|(id, name)| json!({"id": id, "names": [name], "image": "0123", "layer": "x",
                "metadata": json!({"image-name": "localhost/hog:latest", "image-id": "0123", "name": name}).to_string()}))
            .collect();
        self.write(&format!("{graph_root}/overlay-containers/containers.json"), json!(list).to_string());
    }

    pub fn change(&mut self, kind: CgroupChangeKind, id: CgroupId, path: &[u8]) {
        self.now += 1;
        self.tree.apply(&CgroupChange { time: BootTime(self.now), id, kind, path: path.to_vec() });
    }

    pub fn made(&mut self, path: impl AsRef<[u8]>) -> CgroupId {
        self.next_id += 1;
        let id = CgroupId(self.next_id);
        self.change(CgroupChangeKind::Made, id, path.as_ref());
        while self.tree.resolve_next() {}
        id
    }

    pub fn removed(&mut self, id: CgroupId, path: &str) {
        self.change(CgroupChangeKind::Removed, id, path.as_bytes());
    }

    pub fn identify(&mut self, ids: &[CgroupId], path: impl AsRef<[u8]>) -> Identity {
        self.now += 1;
        let seen = Seen { ids, path: path.as_ref(), path_is_whole: true };
        self.tree.identify(seen, BootTime(self.now))
    }

    /// The life of a container: its cgroup is made, the victim is in `below`, and everything is gone before
    /// the kill is identified.
    pub fn life(&mut self, path: &str, below: &str, files: &[&str]) -> Identity {
        let id = self.made(path);
        let victim = format!("{path}{below}");
        let ids: Vec<CgroupId> = if below.is_empty() { vec![id] } else { vec![self.made(&victim), id] };
        self.removed(id, path);
        for file in files {
            self.gone(file);
        }
        let identity = self.identify(&ids, &victim);
        assert_eq!(self.identify(&[], &victim), identity, "by the path alone");
        identity
    }
}

pub fn name(identity: &Identity) -> Option<(&str, &str, Option<&str>)> {
    let container = identity.container.as_ref()?;
    Some((&container.runtime.name, &container.id, container.name.as_deref()))
}

pub fn unit(identity: &Identity) -> Option<&str> {
    identity.systemd.as_ref().map(|systemd| systemd.unit.as_str())
}

pub fn pod(identity: &Identity) -> [Option<&str>; 4] {
    let k8s = identity.k8s.as_ref().expect("a pod");
    [
        k8s.namespace.as_ref().map(|name| name.name.as_str()),
        k8s.pod.name.as_deref(),
        k8s.pod.uid.as_deref(),
        k8s.container.as_ref().map(|container| container.name.as_str()),
    ]
}

pub const IN_POD: [Option<&str>; 4] = [Some("shop"), Some("api-7d9f"), Some(UID), Some("api")];

/// The reason and the detail, separated by a space; empty if the key is not missing.
pub fn why(identity: &Identity, key: &str) -> String {
    let absence = identity.missing.iter().find(|absence| absence.key == key);
    let detail = |absence: &Absence| absence.detail.as_deref().unwrap_or_default().to_owned();
    absence.map(|absence| format!("{} {}", absence.reason.word(), detail(absence))).unwrap_or_default()
}
