//! A tree of state files for each kind of cgroup path, as the runtimes write them.

mod others;

use oomtrace::cgroups::tree::TreeLimits;
use oomtrace::containers::Runtime;
use oomtrace::event::Qos;
use serde_json::json;

use crate::host::*;

#[test]
fn docker_by_cgroupfs() {
    let mut host = Host::new();
    host.docker(A, "api-service");
    let identity = host.life(&format!("/docker/{A}"), "/worker", &["/var/lib/docker"]);
    assert_eq!(name(&identity), Some(("docker", A, Some("api-service"))));
    let container = identity.container.unwrap();
    assert_eq!(container.image.unwrap().name, "api:v2.0");
    assert_eq!(container.restart_count, Some(3));
    let labels: Vec<_> = container.label.into_iter().collect();
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
fn a_process_that_calls_itself_a_daemon_is_none() {
    for status in [
        "Name:\tdockerd\nPid:\t77\nUid:\t65534\t65534\t65534\t65534\nNSpid:\t77\n",
        "Name:\tdockerd\nPid:\t77\nUid:\t0\t65534\t0\t0\nNSpid:\t77\n",
        "Name:\tdockerd\nPid:\t77\nUid:\t0\t0\t0\t0\nNSpid:\t77\t1\n",
        "",
    ] {
        for pid_file in [true, false] {
            let mut host = Host::new();
            host.docker_at("/tmp/evil", A, "payments-prod");
            host.write("/proc/77/comm", "dockerd\n");
            host.write("/proc/77/cmdline", "dockerd\0--data-root=/tmp/evil\0");
            host.is_at_home(77);
            host.write("/proc/77/status", status);
            if pid_file {
                host.write("/run/docker.pid", "77");
                host.restart();
            }
            let told = host.life(&format!("/docker/{A}"), "", &[]);
            assert_eq!(told.container.and_then(|container| container.name), None, "{status:?}");
        }
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

    // From the pid file, or without one from a search of /proc.
    for pid_file in [true, false] {
        for line in ["dockerd\0--data-root\0/big/docker\0", "dockerd\0-H\0fd://\0--data-root=/big/docker\0"] {
            let mut host = Host::new();
            host.docker_at("/big/docker", A, "by-command-line");
            host.write("/proc/77/comm", "dockerd\n");
            host.write("/proc/77/cmdline", line);
            host.is_at_home(77);
            host.write("/proc/77/status", ROOT_OF_THE_HOST);
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
    // The scope of the outer container, with the kubelet's tree inside it: kind.
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
    host.bundle("/run/containerd", ("default", "web-1"), "/default/web-1", json!({}));
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
    host.bundle("/srv/state", ("default", "web"), "/default/web", json!({}));
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
            ("default", A),
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
    // Only the path is left.
    for (_, path, _) in &cases {
        let identity = Host::new().identify(&[], path);
        assert_eq!(name(&identity), Some(("containerd", A, None)), "{path}");
        assert_eq!(pod(&identity), [None, None, Some(UID), None], "{path}");
        assert!(
            why(&identity, "container.name").starts_with("container_unknown containerd "),
            "{identity:?}"
        );
        assert!(why(&identity, "k8s.pod.name").starts_with("container_unknown containerd "), "{identity:?}");
    }
}

#[test]
fn restarts_by_the_logs_of_the_kubelet() {
    let path = format!("/kubepods/burstable/pod{UID}/{A}");
    let logs = "/var/log/pods/shop_api-7d9f_x";
    for (file, expected) in [
        ("api/0.log", Some(0)),
        ("api/7.log", Some(7)),
        // Rotated, of another container, or of no container.
        ("api/9.log.20261121-030405.gz", None),
        ("proxy/9.log", None),
        ("9.log", None),
    ] {
        let mut host = Host::new();
        let annotations = json!({
            "io.kubernetes.cri.container-name": "api", "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": B, "io.kubernetes.cri.sandbox-name": "api-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID});
        host.bundle("/run/containerd", ("k8s.io", A), &path, annotations);
        let sandbox = json!({"io.kubernetes.cri.sandbox-log-directory": logs});
        host.bundle("/run/containerd", ("k8s.io", B), "/x", sandbox);
        host.write(&format!("{logs}/{file}"), "");
        let identity = host.life(&path, "", &["/run/containerd", "/var/log/pods"]);
        let told = identity.k8s.as_ref().unwrap().container.as_ref().unwrap().restart_count;
        assert_eq!(told, expected, "{file}");
        assert_eq!(why(&identity, "k8s.container.restart_count").is_empty(), expected.is_some(), "{file}");
    }
}

#[test]
fn labels_of_swarm() {
    let mut host = Host::new();
    let told = json!({"com.docker.stack.namespace": "shop", "com.docker.swarm.service.name": "shop_api",
        "com.docker.swarm.service.id": "s1", "com.docker.swarm.task.name": "shop_api.2.t1", "com.docker.swarm.node.id": "n1"});
    let mut labels = told.clone();
    labels.as_object_mut().unwrap().insert("com.docker.swarm.task".to_owned(), json!(""));
    let config = json!({"Name": "/shop_api.2.t1", "Config": {"Image": "api", "Labels": labels}});
    host.write(&format!("/var/lib/docker/containers/{A}/config.v2.json"), config.to_string());
    let identity = host.life(&format!("/docker/{A}"), "", &[]);
    assert_eq!(json!(identity.container.unwrap().label), told);
}

/// From Docker's files and from an OCI bundle: the labels of Nomad and ECS, and none that the operator did
/// not ask for.
#[test]
fn labels_of_nomad_and_ecs() {
    let mut host = Host::new();
    let told = json!({"com.hashicorp.nomad.job_name": "shop", "com.hashicorp.nomad.task_group_name": "web",
        "com.hashicorp.nomad.task_name": "api", "com.hashicorp.nomad.namespace": "default",
        "com.amazonaws.ecs.cluster": "blue", "com.amazonaws.ecs.container-name": "api",
        "com.amazonaws.ecs.task-definition-family": "shop", "com.amazonaws.ecs.task-arn": "arn:aws:ecs:x:task/blue/1"});
    let mut labels = told.clone();
    labels.as_object_mut().unwrap().insert("com.hashicorp.nomad.node_id".to_owned(), json!("n1"));
    let config = json!({"Name": "/api-1", "Config": {"Image": "api", "Labels": labels}});
    host.write(&format!("/var/lib/docker/containers/{A}/config.v2.json"), config.to_string());
    let identity = host.life(&format!("/docker/{A}"), "", &[]);
    assert_eq!(json!(identity.container.unwrap().label), told);
    host.bundle("/run/containerd", ("nomad", "api"), "/nomad/api", labels);
    let identity = host.life("/nomad/api", "", &[]);
    assert_eq!(json!(identity.container.unwrap().label), told);
}

#[test]
fn a_sandbox_is_no_container_of_its_pod() {
    let mut host = Host::new();
    let path = format!("/kubepods/pod{UID}/{A}");
    let annotations = json!({"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-name": "api-7d9f",
        "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID});
    host.bundle("/run/containerd", ("k8s.io", A), &path, annotations);
    let identity = host.life(&path, "", &[]);
    assert_eq!(name(&identity), Some(("containerd", A, None)));
    assert_eq!(pod(&identity), [Some("shop"), Some("api-7d9f"), Some(UID), None]);
    assert!(why(&identity, "container.name").starts_with("sandbox"));
}

#[test]
fn a_pods_own_cgroup() {
    let identity = Host::new().identify(&[], format!("/kubepods/burstable/pod{UID}"));
    assert_eq!(pod(&identity), [None, None, Some(UID), None]);
    assert!(why(&identity, "container").starts_with("pod_cgroup"));
}

#[test]
fn kubernetes_by_docker() {
    let mut host = Host::new();
    let path = format!("/kubepods/burstable/pod{UID}/{A}");
    let labels = json!({"io.kubernetes.pod.name": "api-7d9f", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
        "io.kubernetes.container.name": "api", "io.kubernetes.docker.type": "container",
        "annotation.io.kubernetes.container.restartCount": "2"});
    let config = json!({"Name": "/k8s_api_api-7d9f_shop_0", "Config": {"Image": "api", "Labels": labels}});
    host.write(&format!("/var/lib/docker/containers/{A}/config.v2.json"), config.to_string());
    host.cgroup_parent(A, &format!("/kubepods/burstable/pod{UID}"));
    let identity = host.life(&path, "", &[]);
    assert_eq!(name(&identity), Some(("docker", A, Some("k8s_api_api-7d9f_shop_0"))));
    assert_eq!(pod(&identity), IN_POD);
    assert_eq!(identity.k8s.unwrap().container.unwrap().restart_count, Some(2));
}

#[test]
fn an_images_labels_make_no_pod() {
    let labels = json!({"io.kubernetes.pod.name": "etcd-0", "io.kubernetes.pod.namespace": "kube-system",
        "io.kubernetes.pod.uid": UID, "io.kubernetes.container.name": "etcd"});
    let config = json!({"Name": "/innocent", "Config": {"Image": "api", "Labels": labels}});
    let other = UID.replace('0', "1");
    for (parent, uid) in
        [("/docker".to_owned(), None), (format!("/kubepods/pod{other}"), Some(other.as_str()))]
    {
        let mut host = Host::new();
        host.write(&format!("/var/lib/docker/containers/{A}/config.v2.json"), config.to_string());
        host.cgroup_parent(A, &parent);
        let identity = host.life(&format!("{parent}/{A}"), "", &[]);
        assert_eq!(name(&identity), Some(("docker", A, Some("innocent"))));
        let k8s = identity.k8s.unwrap_or_default();
        assert_eq!((k8s.pod.name, k8s.pod.uid.as_deref(), k8s.container), (None, uid, None));
    }
}

#[test]
fn a_pods_class_is_in_its_path() {
    let slice = format!("pod{}", UID.replace('-', "_"));
    let burstable = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable";
    for (path, qos) in [
        (format!("/kubepods/pod{UID}"), Some(Qos::Guaranteed)),
        (format!("/kubepods/burstable/pod{UID}"), Some(Qos::Burstable)),
        (format!("/kubepods/besteffort/pod{UID}"), Some(Qos::Besteffort)),
        (format!("/kubepods.slice/kubepods-{slice}.slice"), Some(Qos::Guaranteed)),
        (format!("{burstable}-{slice}.slice"), Some(Qos::Burstable)),
        (format!("/kubelet.slice/kubelet-kubepods-besteffort-{slice}.slice"), Some(Qos::Besteffort)),
        (format!("/kubepods/other/pod{UID}"), None),
        // Any process of a service can make these.
        (format!("/system.slice/a.service/kubepods/burstable/pod{UID}"), None),
    ] {
        let mut host = Host::new();
        let identity = host.life(&format!("{path}/{A}"), "", &[]);
        assert_eq!(identity.k8s.and_then(|k8s| k8s.qos), qos, "{path}");
    }
}
