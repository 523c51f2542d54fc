//! When facts are read, and how long they are kept.

use oomtrace::cgroups::tree::{CgroupTree, Seen, TreeLimits};
use oomtrace::containers::Runtimes;
use oomtrace::facts::{BootTime, CgroupChangeKind, CgroupId};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::host::*;

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
    let limits = TreeLimits { live: 20, dead: 8, ..limits() };
    let mut host = Host::with(limits, &[]);
    for number in 0..100 {
        let path = format!("/short/{number}");
        let id = host.made(&path);
        host.removed(id, &path);
    }
    assert_eq!(host.tree.counts().1, 6);
    // A container's own cgroups do not take the places of others.
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
    // The report of the removal was lost.
    host.change(CgroupChangeKind::Made, id, path.as_bytes());
    assert_eq!(name(&host.identify(&[id], b"")), Some(("docker", B, Some("new"))));
    assert_eq!(host.tree.path_of(id).unwrap(), path.as_bytes());
    // All reports were lost, so the kernel's path is used.
    assert_eq!(name(&host.identify(&[id], format!("/docker/{A}"))), Some(("docker", A, Some("old"))));
    assert_eq!(host.identify(&[id], "/hog").container, None);
}

#[test]
fn a_reused_name_is_another_container() {
    let mut host = Host::new();
    let labels = |name: &str| json!({"nerdctl/name": name});
    host.bundle("/run/containerd", ("default", "job"), "/default/job", labels("first"));
    let first = host.made("/default/job");
    host.removed(first, "/default/job");
    host.bundle("/run/containerd", ("default", "job"), "/default/job", labels("second"));
    let second = host.made("/default/job");
    host.gone("/run/containerd");
    assert_eq!(name(&host.identify(&[second], "/default/job")), Some(("containerd", "job", Some("second"))));
    assert_eq!(name(&host.identify(&[first], "/default/job")), Some(("containerd", "job", Some("first"))));
    // A cgroup that was never read must not get the name of its successor.
    host.bundle("/run/containerd", ("default", "job"), "/default/job", labels("third"));
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
    // Unknown ancestors, and an ancestor whose kept path contradicts the kernel's.
    for ids in [[CgroupId(9), CgroupId(8)], [top, CgroupId(8)]] {
        let other = Seen { ids: &ids, path: b"/x/y", path_is_whole: false };
        let identity = host.tree.identify(other, BootTime(host.now));
        assert!(
            identity.container.is_none() && why(&identity, "container").starts_with("cgroup_path_unknown")
        );
    }
}

/// A container can make cgroups with longer paths than the kernel captures, but cannot hide in them.
#[test]
fn a_path_that_nobody_can_tell() {
    let mut host = Host::new();
    host.docker(A, "hides");
    host.docker(B, "other");
    let top = host.made(format!("/docker/{A}"));
    let plain = host.made("/plain");
    let other = host.made(format!("/docker/{B}"));
    let mut identify = |ids: &[CgroupId], path: &[u8]| {
        let seen = Seen { ids, path, path_is_whole: false };
        host.tree.identify(seen, BootTime(host.now))
    };
    let unknown = |id| CgroupId(id);
    let hidden = identify(&[unknown(7), unknown(8), unknown(9), top, plain], b"/x/y");
    assert_eq!(name(&hidden), Some(("docker", A, Some("hides"))));
    assert!(why(&hidden, "container.nested").starts_with("cgroup_path_unknown"));
    // No container, and an ancestor that has another name in the tree than in the kernel: the ancestors above
    // are not used to guess.
    for ids in [[unknown(7), unknown(8), unknown(9), plain], [unknown(7), other, unknown(8), top]] {
        let identity = identify(&ids, b"/x/y");
        assert!(
            identity.container.is_none() && why(&identity, "container").starts_with("cgroup_path_unknown"),
            "{ids:?}"
        );
    }
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
    while host.tree.resolve_next() {}
    let again = host.tree.walk(&mount, BootTime(2)).unwrap();
    assert_eq!((again.cgroups, again.gone), (5, 0));
    host.gone("/var/lib/docker");
    assert_eq!(host.tree.path_of(id).unwrap(), format!("/docker/{A}/sub").as_bytes());
    assert_eq!(name(&host.identify(&[id], b"")), Some(("docker", A, Some("older-than-the-tracer"))));
    // What the kernel reported meanwhile is not a second cgroup.
    let before = host.tree.counts();
    host.change(CgroupChangeKind::Made, id, format!("/docker/{A}/sub").as_bytes());
    assert_eq!(host.tree.counts(), before);
    // A walk finds what the kernel could not report.
    std::fs::remove_dir_all(mount.join("docker")).unwrap();
    assert_eq!(host.tree.walk(&mount, BootTime(3)).unwrap().gone, 3);
    assert_eq!(name(&host.identify(&[id], b"")), Some(("docker", A, Some("older-than-the-tracer"))));
    assert!(host.tree.walk(&host.dir.path().join("none"), BootTime(3)).is_err());
}

/// A walk pauses, and the place of a cgroup in the tree may be another one's by the time it goes on.
#[test]
fn a_walk_that_pauses_puts_nothing_below_another_cgroup() {
    let mut host = Host::with(TreeLimits { dead: 0, ..limits() }, &[]);
    let mount = host.at("/sys/fs/cgroup");
    std::fs::create_dir_all(mount.join("a/x")).unwrap();
    let id = |path: &str| CgroupId(std::fs::metadata(mount.join(path)).unwrap().ino());
    let (a, x) = (id("a"), id("a/x"));
    let mut walk = host.tree.begin_walk(&mount, BootTime(1)).unwrap();
    while host.tree.path_of(a).is_none() {
        assert!(!host.tree.walk_on(&mut walk));
    }
    host.change(CgroupChangeKind::Removed, a, b"");
    let other = CgroupId(u64::MAX);
    host.change(CgroupChangeKind::Made, other, b"/other");
    while !host.tree.walk_on(&mut walk) {}
    assert_eq!(host.tree.path_of(other).unwrap(), b"/other");
    assert_eq!(host.tree.path_of(x), None);
}

#[test]
fn a_replay_knows_names_by_paths_alone() {
    let mut tree = CgroupTree::new(Runtimes::none(), limits());
    assert!(tree.runtimes().root().is_none() && tree.runtimes().dirs().with_containers().is_empty());
    assert_eq!(tree.runtimes().found(), Vec::<String>::new());
    let mut told = |path: &str| {
        tree.identify(Seen { ids: &[], path: path.as_bytes(), path_is_whole: true }, BootTime(1))
    };
    assert_eq!(name(&told(&format!("/docker/{A}"))), Some(("docker", A, None)));
    assert_eq!(name(&told("/lxc/web")), Some(("lxc", "web", Some("web"))));
    let users = told(&format!("/user.slice/user-0.slice/user@0.service/libpod-{B}.scope"));
    assert_eq!(name(&users), Some(("podman", B, None)));
}
