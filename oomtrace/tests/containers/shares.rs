//! How much one user, service or container can use up, and what is left for the others.

use std::time::Duration;

use oomtrace::cgroups::tree::TreeLimits;
use oomtrace::containers::{Facts, LeftOut};
use oomtrace::facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId};
use serde_json::json;

use crate::host::*;

const EVE: &str = "/user.slice/user-4242.slice/user@4242.service/user.slice";
const ANN: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice";
const STORE: &str = ".local/share/containers/storage";

fn host_of_eve(limits: TreeLimits) -> Host {
    let host = Host::with(limits, &[]);
    host.write("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\neve:x:4242:4242::/home/eve:/bin/sh\n");
    host
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// A cgroup that was made, but whose files were not read yet.
fn made(host: &mut Host, path: &str) -> CgroupId {
    host.next_id += 1;
    let id = CgroupId(host.next_id);
    host.change(CgroupChangeKind::Made, id, path.as_bytes());
    id
}

/// Reads the files of all cgroups that can be read now. Returns how many.
fn read_all(host: &mut Host) -> usize {
    std::iter::from_fn(|| host.tree.resolve_next().then_some(())).count()
}

#[test]
fn the_hosts_own_are_read_before_those_of_a_user() {
    let mut host = host_of_eve(limits());
    host.docker(A, "payments-db");
    host.podman(&format!("/home/eve/{STORE}"), &[(B, "hers")]);
    for number in 0..500 {
        made(&mut host, &format!("{EVE}/libpod-{}.scope", id(number)));
    }
    let hers = made(&mut host, &format!("{EVE}/libpod-{B}.scope"));
    let path = format!("/system.slice/docker-{A}.scope");
    let theirs = made(&mut host, &path);
    assert!(host.tree.resolve_next());
    host.removed(theirs, &path);
    host.gone("/var/lib/docker");
    assert_eq!(name(&host.identify(&[theirs], &path)), Some(("docker", A, Some("payments-db"))));
    // All of hers come after it.
    assert_eq!(read_all(&mut host), 501);
    host.gone("/home/eve");
    let identity = host.identify(&[hers], format!("{EVE}/libpod-{B}.scope"));
    assert_eq!(name(&identity), Some(("podman", B, Some("hers"))));
}

#[test]
fn cgroups_of_a_user_that_are_gone_cost_no_time() {
    let mut host = host_of_eve(limits());
    for number in 0..10_000 {
        let path = format!("{EVE}/libpod-{}.scope", id(number));
        let id = made(&mut host, &path);
        host.removed(id, &path);
    }
    let stays = format!("{EVE}/libpod-{B}.scope");
    made(&mut host, &stays);
    assert_eq!(read_all(&mut host), 1);
}

#[test]
fn a_user_has_no_more_than_a_share_of_the_time() {
    let mut host = host_of_eve(TreeLimits { others_time: Duration::ZERO, ..limits() });
    host.docker(A, "payments-db");
    host.podman(&format!("/home/eve/{STORE}"), &[(B, "hers")]);
    let path = format!("{EVE}/libpod-{B}.scope");
    let hers = made(&mut host, &path);
    let theirs = made(&mut host, &format!("/docker/{A}"));
    assert_eq!(read_all(&mut host), 1, "the host's own");
    for _ in 0..3 {
        let identity = host.identify(&[hers], &path);
        assert_eq!(name(&identity), Some(("podman", B, None)));
        assert!(why(&identity, "container.name").contains("share_used_up time"), "{identity:?}");
    }
    assert_eq!(host.tree.unread(), 3, "each is counted");
    let identity = host.identify(&[theirs], format!("/docker/{A}"));
    assert_eq!(name(&identity), Some(("docker", A, Some("payments-db"))));
    // Cgroups that a container makes below itself cost the same, and do not count as the host's.
    made(&mut host, &format!("/docker/{A}/docker/{B}"));
    made(&mut host, &format!("/system.slice/eve.service/docker-{B}.scope"));
    assert_eq!(read_all(&mut host), 0);
    let identity = host.identify(&[], format!("/docker/{A}/docker/{B}"));
    assert_eq!(name(&identity), Some(("docker", A, Some("payments-db"))));
}

#[test]
fn many_names_on_one_path_cost_two_looks() {
    let mut host = host_of_eve(TreeLimits { others_time: Duration::ZERO, ..limits() });
    host.docker(A, "payments-db");
    let nested = |above: &str| {
        (1..=6).fold(above.to_owned(), |path, number| format!("{path}/libpod-{}.scope", id(number)))
    };
    // Each skipped lookup is counted.
    for (above, looks) in [(EVE, 2), ("/system.slice/eve.service", 2), (&format!("/docker/{A}"), 2)] {
        let before = host.tree.unread();
        host.identify(&[], nested(above));
        assert_eq!(host.tree.unread() - before, looks, "{above}");
    }
}

#[test]
fn the_innermost_and_the_outermost_of_a_users_containers_are_found() {
    let mut host = host_of_eve(limits());
    let path = format!("{EVE}/libpod-{A}.scope/docker-{C}.scope/libpod-{B}.scope");
    host.podman(&format!("/home/eve/{STORE}"), &[(A, "outer")]);
    let identity = host.identify(&[], &path);
    let container = identity.container.as_ref().unwrap();
    assert_eq!(
        (container.name.as_deref(), container.nested.as_slice()),
        (Some("outer"), &[C.into(), B.into()][..])
    );
    // Her Docker says that its container is exactly there.
    let docker = "/home/eve/.local/share/docker";
    host.docker_at(docker, A, "inner");
    let parent = format!("/user.slice/libpod-{B}.scope/libpod-{C}.scope/docker");
    let config = json!({"CgroupParent": parent}).to_string();
    host.write(&format!("{docker}/containers/{A}/hostconfig.json"), config);
    let identity = host.identify(&[], format!("{EVE}/libpod-{B}.scope/libpod-{C}.scope/docker/{A}"));
    assert_eq!(name(&identity), Some(("docker", A, Some("inner"))));
}

#[test]
fn what_was_not_there_is_not_looked_for_at_each_kill() {
    let mut host = host_of_eve(limits());
    std::fs::create_dir_all(host.at(&format!("/var/lib/docker/containers/{A}"))).unwrap();
    host.restart();
    let path = format!("/docker/{A}");
    let id = host.made(&path);
    assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, None)));
    // A new file does not change the directory that has the containers, so it is not looked for.
    host.docker(A, "late");
    assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, None)));
    // A new directory does.
    std::fs::create_dir(host.at(&format!("/var/lib/docker/containers/{B}"))).unwrap();
    assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, Some("late"))));
}

#[test]
fn what_was_not_there_is_looked_for_again_after_a_while() {
    let mut host = host_of_eve(limits());
    let path = format!("{EVE}/libpod-{A}.scope");
    let id = host.made(&path);
    assert_eq!(name(&host.identify(&[id], &path)), Some(("podman", A, None)));
    // A user's home is not watched.
    host.podman(&format!("/home/eve/{STORE}"), &[(A, "late")]);
    assert_eq!(name(&host.identify(&[id], &path)), Some(("podman", A, None)), "it is remembered");
    host.now += 10 * SECOND;
    assert_eq!(name(&host.identify(&[id], &path)), Some(("podman", A, Some("late"))));
}

#[test]
fn one_owner_takes_a_quarter_of_the_places_and_all_of_them_a_half() {
    let limits = TreeLimits { live: 400, ..limits() };
    for (one, other) in [
        (EVE, ANN),
        ("/system.slice/eve.service", "/system.slice/run-r1.scope"),
        ("/docker/aa11bb22cc33dd44ee55ff66778899000123456789abcdef0123456789abcdef", ANN),
    ] {
        let mut host = host_of_eve(limits);
        for number in 0..1000 {
            made(&mut host, &format!("{one}/{number}"));
        }
        let ignored = host.tree.ignored();
        assert!((895..=905).contains(&ignored), "{one}: {ignored}");
        let ann = made(&mut host, &format!("{other}/x"));
        assert!(host.tree.path_of(ann).is_some());
        for number in 0..1000 {
            made(&mut host, &format!("{other}/{number}"));
            made(&mut host, &format!("/system.slice/third.service/{number}"));
        }
        let own = made(&mut host, "/system.slice/nginx.service");
        assert!(host.tree.path_of(own).is_some() && host.tree.counts().0 < 220, "{:?}", host.tree.counts());
    }
}

#[test]
fn a_place_is_free_again_when_its_cgroup_is_gone() {
    let limits = TreeLimits { live: 40, dead: 8, ..limits() };
    let mut host = host_of_eve(limits);
    for _ in 0..20 {
        let paths: Vec<String> = (0..30).map(|number| format!("{EVE}/{number}/below")).collect();
        let ids: Vec<CgroupId> = paths.iter().map(|path| made(&mut host, path)).collect();
        for (id, path) in ids.into_iter().zip(&paths) {
            host.removed(id, path);
        }
    }
    let last = made(&mut host, &format!("{EVE}/last"));
    assert!(host.tree.path_of(last).is_some());
    assert!(host.tree.counts().1 <= 2, "a quarter of those that are gone: {:?}", host.tree.counts());
}

#[test]
fn a_users_gone_cgroups_push_out_none_of_the_hosts() {
    let mut host = host_of_eve(TreeLimits { dead: 16, ..limits() });
    host.docker(A, "payments-db");
    let path = format!("/docker/{A}");
    let id = host.made(&path);
    host.removed(id, &path);
    host.gone("/var/lib/docker");
    for number in 0..1000 {
        let path = format!("{EVE}/{number}");
        let id = made(&mut host, &path);
        host.removed(id, &path);
    }
    assert_eq!(name(&host.identify(&[id], &path)), Some(("docker", A, Some("payments-db"))));
}

#[test]
fn a_renamed_owner_is_counted_at_its_new_place() {
    let mut host = host_of_eve(TreeLimits { live: 40, ..limits() });
    let service = made(&mut host, "/system.slice/eve.service");
    for number in 0..9 {
        made(&mut host, &format!("/system.slice/eve.service/{number}"));
    }
    host.change(CgroupChangeKind::Renamed, service, b"/system.slice/moved");
    // They are the host's now, so a service has its whole share.
    for number in 0..10 {
        let id = made(&mut host, &format!("/system.slice/other.service/{number}"));
        assert!(host.tree.path_of(id).is_some(), "{number}");
    }
    for number in 0..5 {
        made(&mut host, &format!("/system.slice/third.service/{number}"));
    }
    assert_eq!(host.tree.ignored(), 0);
}

/// Docker's container `id` of eve, with facts as large as possible.
fn largest(host: &Host, root: &str, id: &str) {
    let long = |text: &str| format!("{text}{}", "x".repeat(1000));
    let labels: serde_json::Map<_, _> = [
        "com.docker.compose.project",
        "com.docker.compose.service",
        "com.docker.compose.container-number",
        "com.docker.stack.namespace",
        "com.docker.swarm.service.name",
        "com.docker.swarm.service.id",
        "com.docker.swarm.task.name",
        "com.docker.swarm.node.id",
    ]
    .iter()
    .map(|key| ((*key).to_owned(), json!(long(&format!("{id}{key}"))[..1020])))
    .collect();
    let config = json!({"Name": long(id)[..1020], "Config": {"Image": long(id)[..1020], "Labels": labels}});
    host.write(&format!("{root}/containers/{id}/config.v2.json"), config.to_string());
}

#[test]
fn a_users_labels_go_first_then_the_images_then_all() {
    let mut host = host_of_eve(TreeLimits { facts_bytes: 1600 << 10, ..limits() });
    // 6 kB each. 100 kB of them are kept for one user.
    let root = "/home/eve/.local/share/docker";
    let path = |number: usize| format!("{EVE}/docker-{}.scope", id(number));
    let ids: Vec<CgroupId> = (0..200)
        .map(|number| {
            largest(&host, root, &id(number));
            host.made(path(number))
        })
        .collect();
    let kept: Vec<LeftOut> = host.tree.containers().map(|known| known.facts.left_out).collect();
    let count = |of: LeftOut| kept.iter().filter(|left_out| **left_out == of).count();
    let (all, no_labels, name) =
        (count(LeftOut::Nothing), count(LeftOut::Labels), count(LeftOut::LabelsAndImage));
    assert!(all >= 3 && no_labels >= 5 && name >= 10 && kept.len() < 100, "{all} {no_labels} {name}");
    let bytes: usize = host.tree.containers().map(|known| Facts::bytes(known.facts)).sum();
    assert!(bytes <= 100 << 10, "{bytes}");
    // While the files exist, they are read at the kill.
    let told = host.identify(&[ids[199]], path(199)).container.unwrap();
    assert!(told.name.is_some() && told.label.len() == 3);
    host.gone("/home/eve");
    let identity = host.identify(&[ids[199]], path(199));
    assert!(why(&identity, "container.name").contains("share_used_up memory"), "{identity:?}");
    assert_eq!(host.tree.unread(), 1);
    let cut =
        ids[..40].iter().zip(0..).map(|(id, number)| host.identify(&[*id], path(number))).find(|identity| {
            identity.container.as_ref().unwrap().name.is_some()
                && !why(identity, "container.label").is_empty()
        });
    assert!(why(&cut.unwrap(), "container.label").contains("share_used_up memory"));
}

#[test]
fn a_users_facts_leave_room_for_others() {
    let mut host = host_of_eve(TreeLimits { facts_bytes: 1600 << 10, ..limits() });
    for number in 0..100 {
        largest(&host, "/home/eve/.local/share/docker", &id(number));
        host.made(format!("{EVE}/docker-{}.scope", id(number)));
    }
    largest(&host, "/home/ann/.local/share/docker", A);
    largest(&host, "/var/lib/docker", B);
    let (anns, theirs) = (format!("{ANN}/docker-{A}.scope"), format!("/system.slice/docker-{B}.scope"));
    for path in [&anns, &theirs] {
        let id = host.made(path);
        let of_path = host.tree.containers().find(|known| known.cgroup == id).unwrap();
        assert_eq!(of_path.facts.left_out, LeftOut::Nothing, "{path}");
    }
}

#[test]
fn a_cgroup_that_is_not_kept_is_counted() {
    let mut host = host_of_eve(TreeLimits { live: 40, ..limits() });
    let change = |host: &mut Host, id, path: &str| {
        host.tree.apply(&CgroupChange {
            time: BootTime(host.now),
            id: CgroupId(id),
            kind: CgroupChangeKind::Made,
            path: path.into(),
        });
    };
    for number in 0..20 {
        change(&mut host, 5000 + number, &format!("{EVE}/{number}"));
    }
    assert!(host.tree.ignored() >= 10);
}
