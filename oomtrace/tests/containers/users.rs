//! What an unprivileged user, or a container with the host's process ids, says about itself, and what
//! oomtrace accepts.

use oomtrace::containers::owner::Identity;
use serde_json::json;

use crate::host::*;

const MANAGER: &str = "/user.slice/user-4242.slice/user@4242.service";

/// A host with a user eve, who has a home.
fn host_of_eve() -> Host {
    let host = Host::new();
    host.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\neve:x:4242:4242::/home/eve:/bin/sh\n");
    host
}

fn runtime_user(identity: &Identity) -> Option<u32> {
    identity.container.as_ref().expect("a container").runtime.user
}

#[test]
fn a_user_makes_no_pod_by_a_name() {
    for (path, nested) in [
        (format!("{MANAGER}/kubepods/pod{UID}/{A}"), ""),
        (format!("{MANAGER}/kubepods/burstable/pod{UID}/{A}"), "/below"),
        (
            format!(
                "{MANAGER}/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{A}.scope",
                UID.replace('-', "_")
            ),
            "",
        ),
        (format!("{MANAGER}/crio-{A}.scope"), "/container"),
        (format!("/user.slice/user-4242.slice/kubepods/pod{UID}/{A}"), ""),
        (format!("/user.slice/user-4242.slice/kubepods/pod{UID}"), ""),
    ] {
        let mut host = host_of_eve();
        // Also if the host's own runtime has such a pod at another place.
        host.pod_member("/run/containerd", &format!("/kubepods/burstable/pod{UID}/{A}"));
        let identity = host.life(&path, nested, &[]);
        assert_eq!((&identity.container, &identity.k8s), (&None, &None), "{path}");
    }
    // The place decides: the pod's own container is still identified.
    let mut host = host_of_eve();
    let path = format!("/kubepods/burstable/pod{UID}/{A}");
    host.pod_member("/run/containerd", &path);
    assert_eq!(pod(&host.life(&path, "", &[])), IN_POD);
}

#[test]
fn a_users_files_make_no_pod() {
    let mut host = host_of_eve();
    let slice = format!("kubepods-pod{}.slice", UID.replace('-', "_"));
    let path = format!("{MANAGER}/kubepods.slice/{slice}/docker-{A}.scope");
    let data = "/home/eve/.local/share/docker/containers";
    let labels = json!({
        "io.kubernetes.pod.name": "etcd-control-plane", "io.kubernetes.pod.namespace": "kube-system",
        "io.kubernetes.pod.uid": UID, "io.kubernetes.container.name": "etcd",
        "com.docker.compose.project": "payments"});
    let config =
        json!({"Name": "/k8s_etcd", "Config": {"Image": "registry.k8s.io/etcd:3.5.9", "Labels": labels}});
    host.write(&format!("{data}/{A}/config.v2.json"), config.to_string());
    host.write(&format!("{data}/{A}/hostconfig.json"), json!({"CgroupParent": slice}).to_string());
    let identity = host.life(&path, "", &[]);
    assert_eq!(name(&identity), Some(("docker", A, Some("k8s_etcd"))));
    assert_eq!((runtime_user(&identity), &identity.k8s), (Some(4242), &None));
}

#[test]
fn a_user_with_the_id_and_the_name_of_a_container_of_the_hosts() {
    let mut host = host_of_eve();
    host.docker(A, "payments-db");
    host.docker_at("/home/eve/.local/share/docker", A, "payments-db");
    let theirs = host.life(&format!("/system.slice/docker-{A}.scope"), "", &[]);
    let hers = host.life(&format!("{MANAGER}/user.slice/docker-{A}.scope"), "", &[]);
    assert_eq!(name(&theirs), name(&hers), "her files say the same");
    assert_eq!((runtime_user(&theirs), runtime_user(&hers)), (None, Some(4242)));
    // The same if no file knows it.
    let identity = host.life(&format!("{MANAGER}/user.slice/libpod-{B}.scope"), "", &[]);
    assert_eq!((name(&identity), runtime_user(&identity)), (Some(("podman", B, None)), Some(4242)));
    let known: Vec<_> = host.tree.containers().map(|known| (known.id.clone(), known.user)).collect();
    assert!(
        known.contains(&(A.to_owned(), None)) && known.contains(&(A.to_owned(), Some(4242))),
        "{known:?}"
    );
}

#[test]
fn a_container_of_the_hosts_in_a_users_slice_is_the_hosts() {
    let mut host = host_of_eve();
    host.docker(A, "eves-desk");
    host.cgroup_parent(A, "user-4242.slice");
    let path = format!("/user.slice/user-4242.slice/docker-{A}.scope");
    let identity = host.life(&path, "", &[]);
    assert_eq!((name(&identity), runtime_user(&identity)), (Some(("docker", A, Some("eves-desk"))), None));
    // Not if its runtime does not say so.
    host.docker(B, "bank");
    let identity = host.life(&format!("/user.slice/user-4242.slice/docker-{B}.scope"), "", &[]);
    assert_eq!(identity.container, None);
}

#[test]
fn a_users_unit_is_that_users() {
    for (path, unit_of, user) in [
        (format!("{MANAGER}/postgresql.service"), "postgresql.service", Some(4242)),
        (format!("{MANAGER}/app.slice/postgresql.service/x"), "postgresql.service", Some(4242)),
        (format!("{MANAGER}/system.slice"), "system.slice", Some(4242)),
        (
            format!("{MANAGER}/user.slice/user-7.slice/user@7.service/nginx.service"),
            "user@7.service",
            Some(4242),
        ),
        (MANAGER.to_owned(), "user@4242.service", None),
        (format!("{MANAGER}/kubepods"), "user@4242.service", None),
        (
            "/user.slice/user-4242.slice/session-1.scope/postgresql.service".to_owned(),
            "session-1.scope",
            None,
        ),
        ("/system.slice/postgresql.service".to_owned(), "postgresql.service", None),
    ] {
        let identity = host_of_eve().identify(&[], &path);
        let told = identity.systemd.as_ref().map(|systemd| (systemd.unit.as_str(), systemd.user));
        assert_eq!(told, Some((unit_of, user)), "{path}");
    }
}

/// A process that claims to be the host's dockerd with its own data-root, in which A is `payments`.
fn claims_to_be_dockerd(cgroup: &str, root: &str) -> Host {
    let host = Host::new();
    host.docker_at("/evil", A, "payments");
    host.write("/proc/77/comm", "dockerd\n");
    host.write("/proc/77/cmdline", "dockerd\0--data-root=/evil\0-H\0unix:///evil/docker.sock\0");
    host.write("/proc/77/status", ROOT_OF_THE_HOST);
    host.write("/proc/77/cgroup", cgroup);
    std::fs::create_dir_all(host.at(root)).unwrap();
    std::os::unix::fs::symlink(host.at(root), host.at("/proc/77/root")).unwrap();
    host
}

fn is_believed(host: &mut Host) -> bool {
    host.restart();
    let sockets = host.tree.runtimes().dirs().docker_sockets.len();
    let named =
        host.life(&format!("/docker/{A}"), "", &[]).container.and_then(|container| container.name).is_some();
    assert_eq!(named, sockets > 1, "its socket is its own too");
    named
}

#[test]
fn a_daemon_in_a_container_is_none_of_this_host() {
    let of_host = "12:memory:/system.slice/docker.service\n0::/system.slice/docker.service\n";
    assert!(is_believed(&mut claims_to_be_dockerd(of_host, "/")));
    for path in [
        format!("0::/docker/{B}\n"),
        format!("0::/system.slice/docker-{B}.scope\n"),
        format!("12:memory:/docker/{B}/inner\n0::/\n"),
        format!("0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{B}.scope\n", UID.replace('-', "_")),
        format!("0::/kubepods/pod{UID}/{B}\n"),
        format!("0::/../docker/{B}\n"),
    ] {
        assert!(!is_believed(&mut claims_to_be_dockerd(&path, "/")), "{path}");
    }
    // Its root directory is a container's, or it cannot be read.
    assert!(!is_believed(&mut claims_to_be_dockerd(of_host, "/container")));
    let mut unseen = claims_to_be_dockerd(of_host, "/");
    std::fs::remove_file(unseen.at("/proc/77/root")).unwrap();
    assert!(!is_believed(&mut unseen));
    let mut unseen = claims_to_be_dockerd(of_host, "/");
    std::fs::remove_file(unseen.at("/proc/77/cgroup")).unwrap();
    assert!(!is_believed(&mut unseen));
    // In the same container as this process, as in a node of kind: it counts as this host's.
    let mut node = claims_to_be_dockerd(&format!("0::/docker/{B}/docker.service\n"), "/");
    node.write("/proc/self/cgroup", format!("0::/docker/{B}/oomtrace.service\n"));
    assert!(is_believed(&mut node));
}

#[test]
fn false_daemons_keep_no_true_one_out() {
    let mut host = claims_to_be_dockerd("0::/system.slice/docker.service\n", "/");
    for pid in 100..140 {
        host.write(&format!("/proc/{pid}/comm"), "dockerd\n");
        host.write(&format!("/proc/{pid}/cmdline"), format!("dockerd\0--data-root=/false/{pid}\0"));
        host.write(&format!("/proc/{pid}/status"), ROOT_OF_THE_HOST);
        host.write(&format!("/proc/{pid}/cgroup"), format!("0::/docker/{B}\n"));
        std::os::unix::fs::symlink(host.dir.path(), host.at(&format!("/proc/{pid}/root"))).unwrap();
    }
    assert!(is_believed(&mut host));
    assert_eq!(host.tree.runtimes().dirs().docker.len(), 2);
}
