//! The memory of 10,000 containers. Alone in its file, because it measures the heap of the process.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use oomtrace::cgroups::tree::{CgroupTree, Seen, TreeLimits};
use oomtrace::containers::Runtimes;
use oomtrace::facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId};
use oomtrace::host::root::Root;

fn heap_bytes() -> usize {
    // SAFETY: `mallinfo2` only reads the allocator's own counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

#[test]
fn ten_thousand_docker_containers() {
    // In memory if possible: on a busy disk 10,000 directories take longer than everything else.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let id = |number: u64| format!("{number:064x}");
    for number in 1..=10_000u64 {
        let own = dir.path().join("var/lib/docker/containers").join(id(number));
        std::fs::create_dir_all(&own).unwrap();
        let project = number / 10;
        let config = format!(
            r#"{{"Name":"/shop-{project}-api-{number}","RestartCount":0,"Config":{{"Image":"registry.example/shop/api:v{}",
            "Labels":{{"com.docker.compose.project":"shop-{project}","com.docker.compose.service":"api","com.docker.compose.container-number":"{}"}}}}}}"#,
            project % 50,
            number % 10,
        );
        std::fs::write(own.join("config.v2.json"), config).unwrap();
    }
    let mut tree = CgroupTree::new(Runtimes::discover(Root::at(dir.path()), &[]), TreeLimits::default());
    let before = heap_bytes();
    for number in 1..=10_000u64 {
        let path = format!("/system.slice/docker-{}.scope", id(number)).into_bytes();
        let made =
            CgroupChange { time: BootTime(number), id: CgroupId(number), kind: CgroupChangeKind::Made, path };
        tree.apply(&made);
        while tree.resolve_next() {}
    }
    let live = heap_bytes().saturating_sub(before);
    for number in 1..=10_000u64 {
        let removed = CgroupChange {
            time: BootTime(20_000),
            id: CgroupId(number),
            kind: CgroupChangeKind::Removed,
            path: vec![],
        };
        tree.apply(&removed);
    }
    let dead = heap_bytes().saturating_sub(before);
    std::fs::remove_dir_all(dir.path().join("var")).unwrap();
    let path = format!("/system.slice/docker-{}.scope", id(7));
    let seen = Seen { ids: &[CgroupId(7)], path: path.as_bytes(), path_is_whole: true };
    let named = tree.identify(seen, BootTime(20_001)).container.unwrap();
    println!("10,000 containers: {live} bytes while they live, {dead} once they are gone");
    assert_eq!(named.name.as_deref(), Some("shop-0-api-7"));
    assert_eq!(named.label.len(), 3);
    assert!(live < 5_000_000 && dead < 6_000_000, "{live} {dead}");
}
