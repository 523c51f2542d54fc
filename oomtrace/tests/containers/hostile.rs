//! Trees and paths that are made to deceive or to break a tracer.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use oomtrace::cgroups::tree::{Seen, TreeLimits};
use oomtrace::facts::{BootTime, CgroupChangeKind, CgroupId};
use proptest::prelude::*;
use serde_json::json;

use crate::host::*;

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
    // Its own name is gone, but it must not get the other's.
    host.gone("/var/lib/docker/containers");
    host.docker(B, "bank");
    let mut fresh = Host::new();
    std::mem::swap(&mut host.tree, &mut fresh.tree);
    host.restart();
    let identity = host.identify(&[], format!("{mine}/docker/{B}"));
    assert_eq!(name(&identity), Some(("docker", A, None)));
    assert!(identity.container.unwrap().nested.is_empty(), "this host knows it");
    let identity = host.identify(&[], format!("{mine}/docker/{C}/machine.slice/machine-inner.scope/payload"));
    assert_eq!(identity.container.unwrap().nested, [C, "inner"]);
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
    host.bundle("/run/containerd", ("moby", B), &format!("system.slice:docker:{B}"), json!({}));
    let identity = host.life(&format!("/jobs/docker-{B}.scope"), "", &[]);
    assert_eq!(identity.container, None);
    assert!(why(&identity, "container").starts_with("container_elsewhere"), "{identity:?}");
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
    // What eve's files say about root's container counts only for eve.
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
    // The directory itself is the operator's choice, so it may be a link.
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
    // A name of this length is rejected, but the container is still identified.
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
    host.bundle("/run/containerd", ("default", "web"), "/default/web", json!({}));
    host.write("/run/containerd/io.containerd.runtime.v2.task/default/config.json", "{}");
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
        let mut host = Host::with(TreeLimits { live: 12, dead: 3, dead_for: Duration::from_nanos(3), ..limits() }, &[]);
        host.docker(B, "bank");
        for ((path, id), kind) in paths.iter().zip(&ids).zip(&kinds) {
            let kind = [CgroupChangeKind::Made, CgroupChangeKind::Removed, CgroupChangeKind::Renamed][usize::from(*kind)];
            host.change(kind, CgroupId(*id), path);
            host.tree.resolve_next();
        }
        for path in &paths {
            let seen = Seen { ids: &[CgroupId(ids[0]), CgroupId(ids[1])], path, path_is_whole: whole };
            let identity = host.tree.identify(seen, BootTime(host.now));
            if let Some(container) = identity.container {
                let real = ids.iter().take(2).filter_map(|id| host.tree.path_of(CgroupId(*id))).chain([path.clone()]);
                let text: String = real.map(|path| String::from_utf8_lossy(&path).into_owned()).collect();
                prop_assert!(text.contains(&container.id) || text.replace("\\x2d", "-").contains(&container.id), "{} in {text}", container.id);
                // Only one container has a name here, and no other may get it.
                if container.name.as_deref() == Some("bank") {
                    prop_assert_eq!(container.id, B);
                }
            }
        }
    }
}
