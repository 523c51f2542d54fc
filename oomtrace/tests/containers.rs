//! From a cgroup to a container's name: a tree of state files for each grammar, as the
//! runtimes write them, and those that somebody wrote to deceive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use oomtrace::decode::{BootTime, CgroupChange, CgroupChangeKind, CgroupId};
use oomtrace::enrich::Root;
use oomtrace::enrich::containers::owner::Identity;
use oomtrace::enrich::containers::{Runtime, Runtimes};
use oomtrace::enrich::tree::{CgroupTree, Seen, TreeLimits};
use proptest::prelude::*;
use serde_json::json;

const A: &str = "aa11bb22cc33dd44ee55ff66778899000123456789abcdef0123456789abcdef";
const B: &str = "bb22cc33dd44ee55ff66778899000123456789abcdef0123456789abcdefaa11";
const C: &str = "cc33dd44ee55ff66778899000123456789abcdef0123456789abcdefaa11bb22";
const UID: &str = "6f1c0a52-3b7e-4c58-9d51-0a1b2c3d4e5f";
const SECOND: u64 = 1_000_000_000;

/// A host whose `/` is a directory of its own.
struct Host {
    dir: tempfile::TempDir,
    tree: CgroupTree,
    now: u64,
    next_id: u64,
}

impl Host {
    fn new() -> Self {
        Self::with(TreeLimits::default(), &[])
    }

    fn with(limits: TreeLimits, extra: &[(Runtime, PathBuf)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = CgroupTree::new(Runtimes::discover(Root::at(dir.path()), extra), limits);
        Self { dir, tree, now: SECOND, next_id: 1000 }
    }

    /// Reads the configuration of the host again, as a start of the tracer does.
    fn restart(&mut self) {
        self.tree =
            CgroupTree::new(Runtimes::discover(Root::at(self.dir.path()), &[]), TreeLimits::default());
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    fn gone(&self, path: &str) {
        std::fs::remove_dir_all(self.at(path)).unwrap();
    }

    fn docker_at(&self, root: &str, id: &str, name: &str) {
        let config = json!({
            "StreamConfig": {}, "State": {"Running": true, "OOMKilled": false}, "ID": id, "Name": format!("/{name}"),
            "Config": {"Hostname": "x", "Image": "api:v2.0", "Labels": {
                "com.docker.compose.project": "shop", "com.docker.compose.service": "api", "secret": "no"}},
            "RestartCount": 3, "Driver": "overlay2"
        });
        self.write(&format!("{root}/containers/{id}/config.v2.json"), config.to_string());
    }

    fn docker(&self, id: &str, name: &str) {
        self.docker_at("/var/lib/docker", id, name);
    }

    fn cgroup_parent(&self, id: &str, parent: &str) {
        let config = json!({"Memory": 67_108_864, "CgroupParent": parent});
        self.write(&format!("/var/lib/docker/containers/{id}/hostconfig.json"), config.to_string());
    }

    fn bundle(
        &self,
        state: &str,
        namespace: &str,
        id: &str,
        cgroups_path: &str,
        annotations: serde_json::Value,
    ) {
        let spec = json!({"ociVersion": "1.1.0", "process": {"args": ["x"]}, "annotations": annotations,
            "linux": {"cgroupsPath": cgroups_path, "namespaces": []}});
        let file = format!("{state}/io.containerd.runtime.v2.task/{namespace}/{id}/config.json");
        self.write(&file, spec.to_string());
    }

    fn pod_member(&self, state: &str, cgroups_path: &str) {
        let annotations = json!({
            "io.kubernetes.cri.container-name": "api", "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.image-name": "registry.example/api:v2", "io.kubernetes.cri.sandbox-name": "api-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID});
        self.bundle(state, "k8s.io", A, cgroups_path, annotations);
    }

    fn podman(&self, graph_root: &str, names: &[(&str, &str)]) {
        let list: Vec<_> = names
            .iter()
            .map(|(id, name)| json!({"id": id, "names": [name], "image": "0123", "layer": "x",
                "metadata": json!({"image-name": "localhost/hog:latest", "image-id": "0123", "name": name}).to_string()}))
            .collect();
        self.write(&format!("{graph_root}/overlay-containers/containers.json"), json!(list).to_string());
    }

    fn change(&mut self, kind: CgroupChangeKind, id: CgroupId, path: &[u8]) {
        self.now += 1;
        self.tree.apply(&CgroupChange { time: BootTime(self.now), id, kind, path: path.to_vec() });
    }

    fn made(&mut self, path: impl AsRef<[u8]>) -> CgroupId {
        self.next_id += 1;
        let id = CgroupId(self.next_id);
        self.change(CgroupChangeKind::Made, id, path.as_ref());
        while self.tree.resolve_next(BootTime(self.now)) {}
        id
    }

    fn removed(&mut self, id: CgroupId, path: &str) {
        self.change(CgroupChangeKind::Removed, id, path.as_bytes());
    }

    fn identify(&mut self, ids: &[CgroupId], path: impl AsRef<[u8]>) -> Identity {
        self.now += 1;
        let seen = Seen { ids, path: path.as_ref(), path_is_whole: true };
        self.tree.identify(seen, BootTime(self.now))
    }

    /// A container's life: its cgroup is made, the victim is in `below`, and everything is
    /// gone when the kill is told. The answer must be the one that was right while it lived.
    fn life(&mut self, path: &str, below: &str, files: &[&str]) -> Identity {
        let id = self.made(path);
        let victim = format!("{path}{below}");
        let ids: Vec<CgroupId> = if below.is_empty() { vec![id] } else { vec![self.made(&victim), id] };
        let alive = self.identify(&ids, &victim);
        self.removed(id, path);
        for file in files {
            self.gone(file);
        }
        assert_eq!(self.identify(&ids, &victim), alive, "after its removal");
        assert_eq!(self.identify(&[], &victim), alive, "by the path alone");
        alive
    }
}

fn name(identity: &Identity) -> Option<(&str, &str, Option<&str>)> {
    let container = identity.container.as_ref()?;
    Some((&container.runtime.name, &container.id, container.name.as_deref()))
}

fn unit(identity: &Identity) -> Option<&str> {
    identity.systemd.as_ref().map(|systemd| systemd.unit.as_str())
}

fn pod(identity: &Identity) -> [Option<&str>; 4] {
    let k8s = identity.k8s.as_ref().expect("a pod");
    [
        k8s.namespace.as_ref().map(|name| name.name.as_str()),
        k8s.pod.name.as_deref(),
        k8s.pod.uid.as_deref(),
        k8s.container.as_ref().map(|container| container.name.as_str()),
    ]
}

const IN_POD: [Option<&str>; 4] = [Some("shop"), Some("api-7d9f"), Some(UID), Some("api")];

fn why<'a>(identity: &'a Identity, key: &str) -> &'a str {
    identity.missing.iter().find(|(at, _)| *at == key).map_or("", |(_, why)| why)
}

mod grammars {
    use super::*;

    #[test]
    fn docker_by_cgroupfs() {
        let mut host = Host::new();
        host.docker(A, "api-service");
        let identity = host.life(&format!("/docker/{A}"), "/worker", &["/var/lib/docker"]);
        assert_eq!(name(&identity), Some(("docker", A, Some("api-service"))));
        let container = identity.container.unwrap();
        assert_eq!(container.image.unwrap().name, "api:v2.0");
        assert_eq!(container.restart_count, Some(3));
        let labels: Vec<_> = container.labels.into_iter().collect();
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let kept = [label("com.docker.compose.project", "shop"), label("com.docker.compose.service", "api")];
        assert_eq!(labels, kept);
        assert_eq!((identity.systemd, identity.k8s, identity.missing), (None, None, vec![]));
    }

    #[test]
    fn docker_by_systemd() {
        let mut host = Host::new();
        host.docker(A, "api-service");
        let path = format!("/system.slice/docker-{A}.scope");
        let identity = host.life(&path, "", &["/var/lib/docker"]);
        assert_eq!(name(&identity), Some(("docker", A, Some("api-service"))));
        assert_eq!(unit(&identity), Some(format!("docker-{A}.scope").as_str()));
        let inside = host.identify(&[], format!("{path}/system.slice/nginx.service"));
        assert_eq!(
            unit(&inside),
            Some(format!("docker-{A}.scope").as_str()),
            "its own systemd's units are not ours"
        );
    }

    #[test]
    fn docker_below_a_parent_of_the_operators_choice() {
        for (parent, path) in [
            ("/batch/night", format!("/batch/night/{A}")),
            ("", format!("/anything/{A}")),
            ("batch-night.slice", format!("/batch.slice/batch-night.slice/docker-{A}.scope")),
            (&*format!("/docker/{B}"), format!("/docker/{B}/{A}")),
            ("/system.slice/jobs.service", format!("/system.slice/jobs.service/{A}")),
        ] {
            let mut host = Host::new();
            host.docker(A, "job");
            host.docker(B, "other");
            host.cgroup_parent(A, parent);
            let identity = host.life(&path, "", &["/var/lib/docker"]);
            assert_eq!(name(&identity), Some(("docker", A, Some("job"))), "{path}");
        }
    }

    #[test]
    fn docker_elsewhere_on_the_disk() {
        let path = format!("/docker/{A}");
        let mut host = Host::new();
        host.docker_at("/data/docker", A, "by-daemon-json");
        host.write("/etc/docker/daemon.json", r#"{"data-root": "/data/docker"}"#);
        host.restart();
        assert_eq!(name(&host.life(&path, "", &[])), Some(("docker", A, Some("by-daemon-json"))));

        // By the pid file, and where there is none by a search of /proc.
        for pid_file in [true, false] {
            for line in
                ["dockerd\0--data-root\0/big/docker\0", "dockerd\0-H\0fd://\0--data-root=/big/docker\0"]
            {
                let mut host = Host::new();
                host.docker_at("/big/docker", A, "by-command-line");
                host.write("/proc/77/comm", "dockerd\n");
                host.write("/proc/77/cmdline", line);
                if pid_file {
                    host.write("/run/docker.pid", "77");
                    host.restart();
                    assert_eq!(
                        host.tree.runtimes().found(),
                        [format!("docker={}", host.at("/big/docker").display())]
                    );
                }
                assert_eq!(name(&host.life(&path, "", &[])), Some(("docker", A, Some("by-command-line"))));
            }
        }

        let elsewhere = tempfile::tempdir().unwrap();
        let root = elsewhere.path().join("docker");
        let mut host = Host::with(TreeLimits::default(), &[(Runtime::Docker, root.clone())]);
        host.docker_at("/x", A, "by-option");
        std::fs::rename(host.at("/x"), &root).unwrap();
        assert_eq!(name(&host.life(&path, "", &[])), Some(("docker", A, Some("by-option"))));
    }

    #[test]
    fn docker_with_remapped_users() {
        let mut host = Host::new();
        host.docker_at("/var/lib/docker/231072.231072", A, "mapped");
        host.restart();
        assert_eq!(name(&host.life(&format!("/docker/{A}"), "", &[])), Some(("docker", A, Some("mapped"))));
    }

    #[test]
    fn docker_in_docker() {
        let mut host = Host::new();
        host.docker(A, "ci-runner");
        let identity = host.life(&format!("/docker/{A}"), &format!("/docker/{B}"), &["/var/lib/docker"]);
        assert_eq!(name(&identity), Some(("docker", A, Some("ci-runner"))));
        assert_eq!(identity.container.unwrap().nested, [B]);
        let deeper = host.identify(&[], format!("/docker/{A}/docker/{B}/docker/{C}"));
        assert_eq!(deeper.container.unwrap().nested, [B, C]);
        // The scope of the outer one, the kubelet's tree in it: kind.
        let node = format!("/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice");
        let inner = host.identify(
            &[],
            format!("{node}/kubelet-kubepods-pod{}.slice/cri-containerd-{B}.scope", UID.replace('-', "_")),
        );
        assert_eq!(inner.container.unwrap().nested, [B]);
    }

    #[test]
    fn containerd_by_ctr() {
        let mut host = Host::new();
        host.bundle("/run/containerd", "default", "web-1", "/default/web-1", json!({}));
        let identity = host.life("/default/web-1", "/sub", &["/run/containerd"]);
        assert_eq!(name(&identity), Some(("containerd", "web-1", Some("web-1"))));
    }

    #[test]
    fn containerd_with_a_state_directory_of_its_own() {
        let mut host = Host::new();
        host.write(
            "/etc/containerd/config.toml",
            "version = 2\nroot = \"/r\"\nstate = \"/srv/state\"\n[grpc]\nstate = \"/x\"\n",
        );
        host.bundle("/srv/state", "default", "web", "/default/web", json!({}));
        host.restart();
        assert_eq!(host.tree.runtimes().found(), [format!("containerd={}", host.at("/srv/state").display())]);
        assert_eq!(name(&host.life("/default/web", "", &[])), Some(("containerd", "web", Some("web"))));
    }

    #[test]
    fn nerdctl() {
        for (said, path) in [
            (format!("/default/{A}"), format!("/default/{A}")),
            (format!("system.slice:nerdctl:{A}"), format!("/system.slice/nerdctl-{A}.scope")),
        ] {
            let mut host = Host::new();
            host.bundle(
                "/run/containerd",
                "default",
                A,
                &said,
                json!({"nerdctl/name": "shop-db", "nerdctl/namespace": "default"}),
            );
            let identity = host.life(&path, "", &["/run/containerd"]);
            assert_eq!(name(&identity), Some(("containerd", A, Some("shop-db"))));
        }
    }

    #[test]
    fn kubernetes_by_containerd() {
        let slice = UID.replace('-', "_");
        let fs = |prefix: &str, quality: &str| format!("{prefix}/kubepods{quality}/pod{UID}/{A}");
        let mut cases = vec![
            (fs("", "/burstable"), fs("", "/burstable"), None),
            (fs("", "/besteffort"), fs("", "/besteffort"), None),
            (fs("", ""), fs("", ""), None),
            (fs("/kubelet", "/burstable"), fs("/kubelet", "/burstable"), None),
        ];
        for (parents, leaf) in [
            ("/kubepods.slice/kubepods-burstable.slice", "kubepods-burstable"),
            ("/kubepods.slice/kubepods-besteffort.slice", "kubepods-besteffort"),
            ("/kubepods.slice", "kubepods"),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice",
                "kubelet-kubepods-burstable",
            ),
        ] {
            let scope = format!("cri-containerd-{A}.scope");
            cases.push((
                format!("{leaf}-pod{slice}.slice:cri-containerd:{A}"),
                format!("{parents}/{leaf}-pod{slice}.slice/{scope}"),
                Some(scope),
            ));
        }
        for state in ["/run/containerd", "/run/k3s/containerd"] {
            for (said, path, scope) in &cases {
                let mut host = Host::new();
                host.pod_member(state, said);
                let identity = host.life(path, "", &[state]);
                assert_eq!(name(&identity), Some(("containerd", A, Some("api"))), "{path}");
                assert_eq!(pod(&identity), IN_POD, "{path}");
                assert_eq!(unit(&identity), scope.as_deref());
                assert_eq!(identity.container.unwrap().image.unwrap().name, "registry.example/api:v2");
            }
        }
        // Nothing is left but the path.
        for (_, path, _) in &cases {
            let identity = Host::new().identify(&[], path);
            assert_eq!(name(&identity), Some(("containerd", A, None)), "{path}");
            assert_eq!(pod(&identity), [None, None, Some(UID), None], "{path}");
            assert!(why(&identity, "container.name").contains("no state found"), "{identity:?}");
            assert!(why(&identity, "k8s.pod.name").contains("no state found"), "{identity:?}");
        }
    }

    #[test]
    fn a_sandbox_is_no_container_of_its_pod() {
        let mut host = Host::new();
        let path = format!("/kubepods/pod{UID}/{A}");
        let annotations = json!({"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "api-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID});
        host.bundle("/run/containerd", "k8s.io", A, &path, annotations);
        let identity = host.life(&path, "", &[]);
        assert_eq!(name(&identity), Some(("containerd", A, None)));
        assert_eq!(pod(&identity), [Some("shop"), Some("api-7d9f"), Some(UID), None]);
        assert!(why(&identity, "container.name").contains("sandbox"));
    }

    #[test]
    fn a_pods_own_cgroup() {
        let identity = Host::new().identify(&[], format!("/kubepods/burstable/pod{UID}"));
        assert_eq!(pod(&identity), [None, None, Some(UID), None]);
        assert!(why(&identity, "container").contains("pod"));
    }

    #[test]
    fn kubernetes_by_docker() {
        let mut host = Host::new();
        let path = format!("/kubepods/burstable/pod{UID}/{A}");
        let labels = json!({"io.kubernetes.pod.name": "api-7d9f", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
            "io.kubernetes.container.name": "api", "io.kubernetes.docker.type": "container",
            "annotation.io.kubernetes.container.restartCount": "2"});
        let config =
            json!({"Name": "/k8s_api_api-7d9f_shop_0", "Config": {"Image": "api", "Labels": labels}});
        host.write(&format!("/var/lib/docker/containers/{A}/config.v2.json"), config.to_string());
        host.cgroup_parent(A, &format!("/kubepods/burstable/pod{UID}"));
        let identity = host.life(&path, "", &[]);
        assert_eq!(name(&identity), Some(("docker", A, Some("k8s_api_api-7d9f_shop_0"))));
        assert_eq!(pod(&identity), IN_POD);
        assert_eq!(identity.k8s.unwrap().container.unwrap().restart_count, Some(2));
    }

    #[test]
    fn cri_o() {
        let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let parents = "/kubepods.slice/kubepods-burstable.slice";
        for (said, path, below) in [
            (format!("{slice}:crio:{A}"), format!("{parents}/{slice}/crio-{A}.scope"), ""),
            (format!("{slice}:crio:{A}"), format!("{parents}/{slice}/crio-{A}.scope"), "/container"),
            (format!("/kubepods/pod{UID}/crio-{A}"), format!("/kubepods/pod{UID}/crio-{A}"), ""),
        ] {
            for store in ["/run/containers/storage", "/var/lib/containers/storage"] {
                let mut host = Host::new();
                let spec = json!({"linux": {"cgroupsPath": said}, "annotations": {
                    "io.kubernetes.container.name": "api", "io.kubernetes.pod.name": "api-7d9f",
                    "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
                    "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.ImageName": "quay.example/api:v2",
                    "io.kubernetes.cri-o.Metadata": "{\"name\":\"api\",\"attempt\":4}"}});
                host.write(&format!("{store}/overlay-containers/{A}/userdata/config.json"), spec.to_string());
                let identity = host.life(&path, below, &[store]);
                assert_eq!(name(&identity), Some(("cri-o", A, Some("api"))));
                assert_eq!(pod(&identity), IN_POD);
                assert_eq!(identity.k8s.unwrap().container.unwrap().restart_count, Some(4));
            }
        }
        let monitor = Host::new().identify(&[], format!("{parents}/{slice}/crio-conmon-{A}.scope"));
        assert_eq!(monitor.container, None, "the monitor is not the container");
    }

    #[test]
    fn podman() {
        for path in [
            format!("/libpod_parent/libpod-{A}"),
            format!("/libpod_parent/{C}/libpod-{A}"),
            format!("/machine.slice/libpod-{A}.scope"),
            format!("/machine.slice/machine-libpod_pod_{C}.slice/libpod-{A}.scope"),
        ] {
            for below in ["", "/container"] {
                let mut host = Host::new();
                host.podman("/var/lib/containers/storage", &[(B, "other"), (A, "hog")]);
                let identity = host.life(&path, below, &["/var/lib/containers"]);
                assert_eq!(name(&identity), Some(("podman", A, Some("hog"))), "{path}");
                assert_eq!(identity.container.unwrap().image.unwrap().name, "localhost/hog:latest");
            }
        }
    }

    #[test]
    fn podman_in_a_unit_and_with_a_store_of_its_own() {
        let mut host = Host::new();
        host.write(
            "/etc/containers/storage.conf",
            "[storage]\n  driver = \"overlay\"\n  graphroot = \"/srv/pods\"\n",
        );
        host.restart();
        host.podman("/srv/pods", &[(A, "quadlet")]);
        let path = format!("/system.slice/web.service/libpod-payload-{A}");
        let spec = json!({"linux": {"cgroupsPath": path}});
        host.write(&format!("/srv/pods/overlay-containers/{A}/userdata/config.json"), spec.to_string());
        let identity = host.life(&path, "", &["/srv/pods"]);
        assert_eq!(name(&identity), Some(("podman", A, Some("quadlet"))));
        assert_eq!(unit(&identity), Some("web.service"));
    }

    #[test]
    fn podman_of_a_user() {
        let mut host = Host::new();
        host.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n");
        host.podman("/home/ann/.local/share/containers/storage", &[(A, "anns")]);
        let path = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope");
        let identity = host.life(&path, "/container", &["/home/ann"]);
        assert_eq!(name(&identity), Some(("podman", A, Some("anns"))));
    }

    #[test]
    fn lxc_and_incus() {
        for (path, id) in [
            ("/lxc.payload.web", "web"),
            ("/lxc.payload.shop_web", "shop_web"),
            ("/lxc/web", "web"),
            ("/lxc.payload/web", "web"),
        ] {
            let identity = Host::new().life(path, "/init.scope", &[]);
            assert_eq!(name(&identity), Some(("lxc", id, Some(id))), "{path}");
            assert_eq!(unit(&identity), None);
        }
        assert_eq!(Host::new().identify(&[], "/lxc.monitor.web").container, None);
    }

    #[test]
    fn nspawn() {
        for (path, id) in [
            ("/machine.slice/machine-web.scope/payload", "web"),
            ("/machine.slice/machine-my\\x2dbox.scope/payload/init.scope", "my-box"),
            ("/machine.slice/systemd-nspawn@my-box.service/payload", "my-box"),
        ] {
            let identity = Host::new().identify(&[], path);
            assert_eq!(name(&identity), Some(("systemd-nspawn", id, Some(id))), "{path}");
            assert_eq!(unit(&identity), path.split('/').nth(2));
        }
        let machine =
            Host::new().identify(&[], "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator");
        assert_eq!(machine.container, None, "libvirt's machines are no containers");
    }

    #[test]
    fn systemd_units() {
        for (path, expected) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/nginx.service/worker", "nginx.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            ("/system.slice/dev-disk-by\\x2duuid-1.swap", "dev-disk-by\\x2duuid-1.swap"),
            ("/system.slice/_memory.service", "memory.service"),
            ("/init.scope", "init.scope"),
            ("/system.slice", "system.slice"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service/y", "app-x.service"),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
            ("/system.slice/run-r1.scope/evil.service", "run-r1.scope"),
            ("/system.slice/user@1000.service/app.slice/x.service", "user@1000.service"),
        ] {
            let identity = Host::new().identify(&[], path);
            assert_eq!((identity.container.as_ref(), unit(&identity)), (None, Some(expected)), "{path}");
            assert_eq!(identity.missing, vec![], "{path}");
        }
    }

    #[test]
    fn a_cgroup_made_by_hand() {
        for path in ["/", "/hog", "/a/b", "/a/b.service", "/stray/x.slice"] {
            let identity = Host::new().identify(&[], path);
            assert_eq!((identity.container.as_ref(), unit(&identity)), (None, None), "{path}");
            assert!(!why(&identity, "container").is_empty(), "{path}");
        }
    }
}

mod times {
    use super::*;

    #[test]
    fn a_rename_by_docker_shows_at_once() {
        let mut host = Host::new();
        host.docker(A, "before");
        let path = format!("/docker/{A}");
        let id = host.made(&path);
        host.docker(A, "after");
        assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, Some("after"))));
        host.write(&format!("/var/lib/docker/containers/{A}/config.v2.json"), "{\"Name\": \"/hal");
        assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, Some("before"))), "half-written");
    }

    #[test]
    fn still_queued_at_the_kill() {
        let mut host = Host::new();
        host.docker(A, "fresh");
        let path = format!("/docker/{A}");
        host.change(CgroupChangeKind::Made, CgroupId(5), path.as_bytes());
        assert_eq!(name(&host.identify(&[CgroupId(5)], &path)), Some(("docker", A, Some("fresh"))));
    }

    #[test]
    fn kept_for_ten_minutes_and_then_not() {
        let mut host = Host::new();
        host.docker(A, "short");
        let path = format!("/docker/{A}");
        let id = host.made(&path);
        host.removed(id, &path);
        host.gone("/var/lib/docker");
        host.now += 600 * SECOND - 10;
        host.made("/tick");
        assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, Some("short"))));
        assert_eq!(host.tree.path_of(id).unwrap(), path.as_bytes());
        host.now += 20;
        host.made("/tock");
        assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, None)));
        assert_eq!(host.tree.path_of(id), None);
        assert_eq!(host.tree.counts().1, 0);
    }

    #[test]
    fn bounded() {
        let limits = TreeLimits { live: 20, dead: 5, dead_for: Duration::from_secs(600) };
        let mut host = Host::with(limits, &[]);
        for number in 0..100 {
            let path = format!("/short/{number}");
            let id = host.made(&path);
            host.removed(id, &path);
        }
        assert_eq!(host.tree.counts().1, 5);
        // A container's own cgroups do not keep others out.
        host.docker(A, "greedy");
        host.docker(B, "modest");
        host.made(format!("/docker/{A}"));
        for number in 0..100 {
            host.made(format!("/docker/{A}/{number}"));
        }
        let path = format!("/docker/{B}");
        let id = host.made(&path);
        host.gone("/var/lib/docker");
        assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", B, Some("modest"))));
        assert!(host.tree.counts().0 <= 21 && host.tree.ignored() > 80, "{:?}", host.tree.counts());
    }

    #[test]
    fn a_reused_id_is_another_cgroup() {
        let mut host = Host::new();
        host.docker(A, "old");
        host.docker(B, "new");
        let id = host.made(format!("/docker/{A}"));
        let path = format!("/docker/{B}");
        // The removal was lost.
        host.change(CgroupChangeKind::Made, id, path.as_bytes());
        assert_eq!(name(&host.identify(&[id], b"")), Some(("docker", B, Some("new"))));
        assert_eq!(host.tree.path_of(id).unwrap(), path.as_bytes());
        // All of it was lost: the kernel's path is believed.
        assert_eq!(name(&host.identify(&[id], format!("/docker/{A}"))), Some(("docker", A, Some("old"))));
        assert_eq!(host.identify(&[id], "/hog").container, None);
    }

    #[test]
    fn a_reused_name_is_another_container() {
        let mut host = Host::new();
        let labels = |name: &str| json!({"nerdctl/name": name});
        host.bundle("/run/containerd", "default", "job", "/default/job", labels("first"));
        let first = host.made("/default/job");
        host.removed(first, "/default/job");
        host.bundle("/run/containerd", "default", "job", "/default/job", labels("second"));
        let second = host.made("/default/job");
        host.gone("/run/containerd");
        assert_eq!(
            name(&host.identify(&[second], "/default/job")),
            Some(("containerd", "job", Some("second")))
        );
        assert_eq!(
            name(&host.identify(&[first], "/default/job")),
            Some(("containerd", "job", Some("first")))
        );
        // One that was never read must not get the name of its successor.
        host.bundle("/run/containerd", "default", "job", "/default/job", labels("third"));
        assert_eq!(host.identify(&[CgroupId(77)], "/default/job").container, None);
    }

    #[test]
    fn a_rename_of_a_cgroup_moves_what_is_below() {
        let mut host = Host::new();
        host.docker(A, "moved");
        host.made("/before");
        let child = host.made(format!("/before/{A}"));
        let top = host.made("/top");
        host.change(CgroupChangeKind::Renamed, CgroupId(1001), b"/after");
        assert_eq!(host.tree.path_of(child).unwrap(), format!("/after/{A}").as_bytes());
        assert_eq!(host.tree.path_of(top).unwrap(), b"/top");
        assert_eq!(name(&host.identify(&[child], b"")), Some(("docker", A, Some("moved"))));
    }

    #[test]
    fn a_path_without_its_head() {
        let mut host = Host::new();
        host.docker(A, "deep");
        let top = host.made(format!("/docker/{A}"));
        let seen = Seen { ids: &[CgroupId(9), CgroupId(8), top], path: b"/x/y", path_is_whole: false };
        assert_eq!(name(&host.tree.identify(seen, BootTime(host.now))), Some(("docker", A, Some("deep"))));
        let other = Seen { ids: &[CgroupId(9), CgroupId(8)], path: b"/x/y", path_is_whole: false };
        let identity = host.tree.identify(other, BootTime(host.now));
        assert!(identity.container.is_none() && why(&identity, "container").contains("root"));
    }

    #[test]
    fn the_walk_finds_what_is_there() {
        let mut host = Host::new();
        host.docker(A, "older-than-the-tracer");
        let mount = host.at("/sys/fs/cgroup");
        let dir = mount.join(format!("docker/{A}/sub"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(mount.join("system.slice/x.service")).unwrap();
        std::fs::write(mount.join("memory.max"), "max").unwrap();
        symlink("/", mount.join("loop")).unwrap();
        let id = CgroupId(std::fs::metadata(&dir).unwrap().ino());
        let summary = host.tree.walk(&mount, BootTime(1)).unwrap();
        assert_eq!((summary.cgroups, summary.skipped, summary.part), (5, 0, false));
        while host.tree.resolve_next(BootTime(2)) {}
        host.gone("/var/lib/docker");
        assert_eq!(host.tree.path_of(id).unwrap(), format!("/docker/{A}/sub").as_bytes());
        assert_eq!(name(&host.identify(&[id], b"")), Some(("docker", A, Some("older-than-the-tracer"))));
        // What the kernel told meanwhile is not a second cgroup.
        let before = host.tree.counts();
        host.change(CgroupChangeKind::Made, id, format!("/docker/{A}/sub").as_bytes());
        assert_eq!(host.tree.counts(), before);
        assert!(host.tree.walk(&host.dir.path().join("none"), BootTime(3)).is_err());
    }
}

mod hostile {
    use super::*;

    #[test]
    fn a_container_does_not_get_anothers_name() {
        let mut host = Host::new();
        for (id, name) in [(A, "evil"), (B, "bank")] {
            host.docker(id, name);
        }
        host.pod_member("/run/containerd", "/elsewhere");
        host.podman("/var/lib/containers/storage", &[(B, "bank")]);
        let mine = format!("/docker/{A}");
        for below in [
            format!("/docker/{B}"),
            format!("/{B}"),
            format!("/system.slice/docker-{B}.scope"),
            format!("/docker-{B}.scope"),
            format!("/libpod-{B}.scope"),
            format!("/kubepods/pod{UID}/{B}"),
            "/lxc/bank".to_owned(),
            "/lxc.payload.bank".to_owned(),
            "/machine.slice/machine-bank.scope/payload".to_owned(),
            "/x\n{\"container\":\"bank\"},task_memcg=/evil".to_owned(),
        ] {
            let identity = host.life(&mine, &below, &[]);
            assert_eq!(name(&identity), Some(("docker", A, Some("evil"))), "{below}");
            assert_eq!((identity.k8s, identity.systemd), (None, None), "{below}");
        }
        // Its own name is gone: the other's is still not its.
        host.gone("/var/lib/docker/containers");
        host.docker(B, "bank");
        let mut fresh = Host::new();
        std::mem::swap(&mut host.tree, &mut fresh.tree);
        host.restart();
        let identity = host.identify(&[], format!("{mine}/docker/{B}"));
        assert_eq!(name(&identity), Some(("docker", A, None)));
        assert_eq!(identity.container.unwrap().nested, [B]);
    }

    #[test]
    fn a_service_does_not_get_a_containers_name() {
        let mut host = Host::new();
        host.docker(B, "bank");
        host.podman("/var/lib/containers/storage", &[(B, "bank")]);
        host.write("/etc/passwd", "eve:x:1000:1000::/home/eve:/bin/sh\n");
        for path in [
            format!("/system.slice/eve.service/docker-{B}.scope"),
            format!("/system.slice/eve.service/docker/{B}"),
            format!("/system.slice/eve.service/{B}"),
            format!("/system.slice/eve.service/libpod-payload-{B}"),
            "/system.slice/eve.service/lxc.payload.bank".to_owned(),
            "/system.slice/eve.service/machine-bank.scope/payload".to_owned(),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{B}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{B}.scope"),
            format!("/user.slice/user-1000.slice/session-1.scope/{B}"),
        ] {
            let identity = host.life(&path, "", &[]);
            assert_eq!(identity.container, None, "{path}");
            assert!(unit(&identity).is_some(), "{path}");
        }
    }

    #[test]
    fn the_runtime_says_where_its_container_is() {
        let mut host = Host::new();
        host.docker(B, "bank");
        host.bundle("/run/containerd", "moby", B, &format!("system.slice:docker:{B}"), json!({}));
        let identity = host.life(&format!("/jobs/docker-{B}.scope"), "", &[]);
        assert_eq!(identity.container, None);
        assert!(why(&identity, "container").contains("elsewhere"), "{identity:?}");
        let identity = host.life(&format!("/system.slice/docker-{B}.scope"), "", &[]);
        assert_eq!(name(&identity), Some(("docker", B, Some("bank"))));
    }

    #[test]
    fn a_container_of_a_user_is_not_that_of_another() {
        let mut host = Host::new();
        host.write("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\neve:x:1001:1001::/home/eve:/bin/sh\n");
        host.podman("/home/ann/.local/share/containers/storage", &[(A, "anns")]);
        host.podman("/home/eve/.local/share/containers/storage", &[(B, "bank")]);
        let eves = "/user.slice/user-1001.slice/user@1001.service/user.slice";
        let identity = host.identify(&[], format!("{eves}/libpod-{A}.scope"));
        assert_eq!(name(&identity), Some(("podman", A, None)));
        // What eve's files say of root's container counts for nobody but eve.
        let identity = host.identify(&[], format!("/machine.slice/libpod-{B}.scope"));
        assert_eq!(name(&identity), Some(("podman", B, None)));
    }

    #[test]
    fn links_are_not_followed() {
        let mut host = Host::new();
        host.write("/etc/passwd", "eve:x:1001:1001::/home/eve:/bin/sh\n");
        host.podman("/secret", &[(A, "roots")]);
        let path = format!("/user.slice/user-1001.slice/user@1001.service/user.slice/libpod-{A}.scope");
        let storage = host.at("/home/eve/.local/share/containers");
        for (link, target) in [
            (storage.join("storage"), host.at("/secret")),
            (storage.join("storage/overlay-containers"), host.at("/secret/overlay-containers")),
            (
                storage.join("storage/overlay-containers/containers.json"),
                host.at("/secret/overlay-containers/containers.json"),
            ),
            (host.at("/home/eve/.local"), PathBuf::from("/../../secret")),
        ] {
            let _ = std::fs::remove_dir_all(host.at("/home/eve"));
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&target, &link).unwrap();
            let identity = host.identify(&[], &path);
            assert_eq!(name(&identity), Some(("podman", A, None)), "{link:?}");
        }
        host.docker(B, "bank");
        std::fs::create_dir_all(host.at("/var/lib/docker/containers")).unwrap();
        symlink(
            host.at(&format!("/var/lib/docker/containers/{B}")),
            host.at(&format!("/var/lib/docker/containers/{A}")),
        )
        .unwrap();
        let identity = host.identify(&[], format!("/docker/{A}"));
        assert_eq!(name(&identity), Some(("docker", A, None)));
        assert!(why(&identity, "container.name").contains("link"), "{identity:?}");
        // The directory itself is the operator's: it may be a link.
        std::fs::rename(host.at("/var/lib/docker"), host.at("/moved")).unwrap();
        symlink(host.at("/moved"), host.at("/var/lib/docker")).unwrap();
        assert_eq!(name(&host.identify(&[], format!("/docker/{B}"))), Some(("docker", B, Some("bank"))));
    }

    #[test]
    fn files_that_are_not_what_they_should_be() {
        let file = format!("/var/lib/docker/containers/{A}/config.v2.json");
        let path = format!("/docker/{A}");
        let mut huge = vec![b' '; 1 << 20];
        huge.extend(br#"{"Name":"/big"}"#);
        for (bytes, reason) in [
            (&b""[..], "not what the runtime writes"),
            (b"{\"Name\": \"/ap", "not what the runtime writes"),
            (b"\x00\xff\xfe", "not what the runtime writes"),
            (b"[1]", "not what the runtime writes"),
            (b"{\"Name\": 5}", "not what the runtime writes"),
            (&huge, "larger than 1048576 bytes"),
        ] {
            let mut host = Host::new();
            host.write(&file, bytes);
            let identity = host.life(&path, "", &[]);
            assert_eq!(name(&identity), Some(("docker", A, None)));
            assert!(why(&identity, "container.name").contains(reason), "{identity:?}");
        }
        let mut host = Host::new();
        std::fs::create_dir_all(host.at(&file)).unwrap();
        assert!(why(&host.identify(&[], &path), "container.name").contains("not a regular file"));
        std::fs::remove_dir(host.at(&file)).unwrap();
        let fifo = std::ffi::CString::new(host.at(&file).into_os_string().into_encoded_bytes()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        assert!(why(&host.identify(&[], &path), "container.name").contains("not a regular file"));
        // A name of that length is nobody's, but the container is still itself.
        let mut host = Host::new();
        host.docker(A, &"n".repeat(5000));
        assert_eq!(name(&host.identify(&[], &path)), Some(("docker", A, None)));
        assert!(!why(&host.identify(&[], &path), "container.name").is_empty());
    }

    #[test]
    fn ids_that_would_be_paths() {
        let mut host = Host::new();
        host.write("/run/containerd/io.containerd.runtime.v2.task/config.json", "{}");
        host.write("/run/containerd/config.json", "{}");
        for path in
            ["/default/..", "/../default", "/default/.", "/default/...", "/-/x", "/a b/c", "/default/a..b"]
        {
            assert_eq!(host.life(path, "", &[]).container, None, "{path}");
        }
        let upper = A.to_uppercase();
        for path in [format!("/docker/{upper}"), format!("/docker/{}", &A[1..]), format!("/docker/{A}0")] {
            assert_eq!(host.life(&path, "", &[]).container, None, "{path}");
        }
    }

    #[test]
    fn names_of_any_bytes() {
        let mut host = Host::new();
        host.docker(A, "quote\"newline\n\u{1b}[31m");
        let mut path = format!("/docker/{A}").into_bytes();
        let top = host.made(&path);
        for _ in 0..42 {
            path.extend(b"/\xff\xfe,task_memcg=\n\x1b[2J");
        }
        let id = host.made(&path);
        for ids in [&[][..], &[id], &[id, top]] {
            let identity = host.identify(ids, &path);
            assert_eq!(name(&identity), Some(("docker", A, Some("quote\"newline\n\u{1b}[31m"))));
        }
        assert_eq!(host.tree.path_of(id).unwrap(), path);
        // A path that the kernel has cut names nothing.
        let long = vec![b'x'; 1023];
        host.change(CgroupChangeKind::Made, CgroupId(3), &long);
        assert_eq!((host.tree.path_of(CgroupId(3)), host.tree.ignored()), (None, 1));
    }
}

fn path_parts() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<Vec<u8>> = [
        "docker",
        "lxc",
        "lxc.payload.a",
        "kubepods",
        "burstable",
        "user.slice",
        "user-1000.slice",
        "user@1000.service",
        "machine.slice",
        "machine-a.scope",
        "payload",
        "default",
        "web",
        "..",
        ".",
        "",
        "\\x2d.slice",
        "-.slice",
        "pod",
    ]
    .iter()
    .map(|word| word.as_bytes().to_vec())
    .chain([A, B].iter().flat_map(|id| {
        ["", "docker-", "crio-", "libpod-", "cri-containerd-", "libpod-payload-"].iter().flat_map(
            move |prefix| {
                ["", ".scope"].iter().map(move |suffix| format!("{prefix}{id}{suffix}").into_bytes())
            },
        )
    }))
    .chain([format!("pod{UID}").into_bytes(), format!("kubepods-pod{UID}.slice").into_bytes()])
    .collect();
    let part = prop_oneof![3 => prop::sample::select(words), 1 => prop::collection::vec(any::<u8>(), 0..80)];
    prop::collection::vec(part, 0..12)
        .prop_map(|parts| parts.iter().flat_map(|part| [b"/".as_slice(), part].concat()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_path(paths in prop::collection::vec(path_parts(), 1..6), ids in prop::collection::vec(0u64..8, 6),
                kinds in prop::collection::vec(0u8..3, 6), whole in any::<bool>()) {
        let mut host = Host::with(TreeLimits { live: 12, dead: 3, dead_for: Duration::from_nanos(3) }, &[]);
        host.docker(B, "bank");
        for ((path, id), kind) in paths.iter().zip(&ids).zip(&kinds) {
            let kind = [CgroupChangeKind::Made, CgroupChangeKind::Removed, CgroupChangeKind::Renamed][usize::from(*kind)];
            host.change(kind, CgroupId(*id), path);
            host.tree.resolve_next(BootTime(host.now));
        }
        for path in &paths {
            let seen = Seen { ids: &[CgroupId(ids[0]), CgroupId(ids[1])], path, path_is_whole: whole };
            let identity = host.tree.identify(seen, BootTime(host.now));
            if let Some(container) = identity.container {
                let real = ids.iter().take(2).filter_map(|id| host.tree.path_of(CgroupId(*id))).chain([path.clone()]);
                let text: String = real.map(|path| String::from_utf8_lossy(&path).into_owned()).collect();
                prop_assert!(container.id == "-" || text.replace("\\x2d", "-").contains(&container.id), "{} in {text}", container.id);
                // Only one container has a name here, and nobody else may have it.
                if container.name.as_deref() == Some("bank") {
                    prop_assert_eq!(container.id, B);
                }
            }
        }
    }
}
