//! The most memory that users and containers can take. Alone in its file, because it measures the heap of the
//! process.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use oomtrace::cgroups::tree::{CgroupTree, TreeLimits};
use oomtrace::containers::Runtimes;
use oomtrace::facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId};
use oomtrace::host::root::Root;
use serde_json::{Map, Value, json};

/// All memory of the cgroup tree when everything in it is full: the limit in `docs/CONTAINERS.md`.
const ALL_MAX_BYTES: usize = 56 << 20;
/// The part of it that users, services and containers can fill.
const OTHERS_MAX_BYTES: usize = 24 << 20;

/// The limit in `docs/RELIABILITY.md`: the memory of a whole run with everything full and while the largest
/// files are read. Besides the tree, a run with its rings and its binary needs no more than this test.
const PROCESS_MAX_KIB: usize = 96 << 10;

/// Containers of each user, with the largest files that are read.
const CONTAINERS: u64 = 500;

fn heap_bytes() -> usize {
    // SAFETY: `mallinfo2` only reads the allocator's own counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

struct Host {
    root: tempfile::TempDir,
    tree: CgroupTree,
    made: u64,
}

impl Host {
    fn change(&mut self, kind: CgroupChangeKind, id: u64, path: &str) {
        let (time, id, path) = (BootTime(self.made), CgroupId(id), path.as_bytes().to_vec());
        self.tree.apply(&CgroupChange { time, id, kind, path });
    }

    fn made(&mut self, path: &str) -> u64 {
        self.made += 1;
        self.change(CgroupChangeKind::Made, self.made, path);
        self.made
    }

    /// Cgroups with the longest possible names.
    fn many(&mut self, below: &str, count: u64) -> Vec<u64> {
        (0..count).map(|_| self.made(&format!("{below}/{:0>255}", self.made))).collect()
    }

    /// A Docker container whose files exist only when its cgroup is made.
    fn container(&mut self, data_root: &str, above: &str) -> u64 {
        let id = format!("{:064x}", self.made);
        let dir = self.root.path().join(data_root).join("containers").join(&id);
        write_largest(&dir, &id);
        let made = self.made(&format!("{above}/docker-{id}.scope"));
        while self.tree.resolve_next() {}
        std::fs::remove_dir_all(dir).unwrap();
        made
    }
}

/// All texts differ, and have the largest size.
fn write_largest(dir: &Path, id: &str) {
    let keys = [
        "com.docker.compose.project",
        "com.docker.compose.service",
        "com.docker.compose.container-number",
        "com.docker.stack.namespace",
        "com.docker.swarm.service.name",
        "com.docker.swarm.service.id",
        "com.docker.swarm.task.name",
        "com.docker.swarm.node.id",
    ];
    let text = |what: &str| Value::from(format!("{id}{what:x<960}"));
    let labels: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), text(key))).collect();
    let config = json!({"Name": text("name"), "Config": {"Image": text("image"), "Labels": labels}});
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.v2.json"), config.to_string()).unwrap();
}

/// The largest memory of this process so far.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

impl Host {
    /// A container whose files take the most memory to read: many small labels, and the longest lists.
    fn read_largest(&mut self, home: &str, above: &str) {
        let id = format!("{:064x}", u64::MAX - self.made);
        let dir = self.root.path().join(home).join("docker/containers").join(&id);
        let labels: Map<String, Value> =
            (0..80_000).map(|key: u32| (format!("{key:x}"), "".into())).collect();
        let config = json!({"Name": "/x", "Config": {"Image": "x", "Labels": labels}}).to_string();
        assert!((800_000..1 << 20).contains(&config.len()), "{}", config.len());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.v2.json"), config).unwrap();
        self.made(&format!("{above}/docker-{id}.scope"));
        let bytes = if home.starts_with("var") { 8 << 20 } else { 512 << 10 };
        for store in ["overlay", "vfs", "btrfs", "zfs"] {
            let store = self.root.path().join(home).join(format!("containers/storage/{store}-containers"));
            std::fs::create_dir_all(&store).unwrap();
            for list in ["containers.json", "volatile-containers.json"] {
                let mut file = std::io::BufWriter::new(std::fs::File::create(store.join(list)).unwrap());
                let mut separator = '[';
                for number in 0..bytes / 128 {
                    write!(file, r#"{separator}{{"id":"{number:064x}","names":["{number:x<20}"]}}"#).unwrap();
                    separator = ',';
                }
                file.write_all(b"]").unwrap();
            }
        }
        self.made(&format!("{above}/libpod-{id}.scope"));
        while self.tree.resolve_next() {}
    }
}

#[test]
fn the_tree_stays_within_its_bound_whatever_users_do() {
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let users: Vec<u32> = (1000..1004).collect();
    let passwd = users.iter().map(|uid| format!("u{uid}:x:{uid}:{uid}::/home/u{uid}:/bin/sh\n"));
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), passwd.collect::<String>()).unwrap();
    let limits = TreeLimits { others_time: Duration::from_secs(3600), ..TreeLimits::default() };
    let runtimes = Runtimes::discover(Root::at(root.path()), &[]);
    let before = heap_bytes();
    let mut host = Host { root, tree: CgroupTree::new(runtimes, limits), made: 0 };

    // Each user: containers with the largest files, then many cgroups; all of them are removed and made
    // again.
    let slice = |uid: &u32| format!("/user.slice/user-{uid}.slice/user@{uid}.service");
    // Of each user the containers come first: later there is no place for all of them.
    for round in 0..3 {
        let mut made = Vec::new();
        for uid in &users {
            let data_root = format!("home/u{uid}/.local/share/docker");
            made.extend((0..CONTAINERS).map(|_| host.container(&data_root, &slice(uid))));
        }
        for uid in &users {
            made.extend(host.many(&slice(uid), 20_000));
        }
        for id in made.into_iter().filter(|_| round < 2) {
            host.change(CgroupChangeKind::Removed, id, "");
        }
    }
    let others = heap_bytes().saturating_sub(before);
    let (live, dead) = host.tree.counts();
    println!("users: {live} cgroups, {dead} gone: {others} bytes");
    assert!(live >= limits.live / 2 && dead >= limits.dead / 4, "their share is full: {live} {dead}");
    assert!(others < OTHERS_MAX_BYTES, "{others}");

    // Then the host's own, as many as possible.
    for _ in 0..1500 {
        host.container("var/lib/docker", "/system.slice");
    }
    let gone = host.many("/system.slice", 30_000);
    for id in gone {
        host.change(CgroupChangeKind::Removed, id, "");
    }
    host.many("/system.slice", 60_000);
    let all = heap_bytes().saturating_sub(before);
    let (live, dead) = host.tree.counts();
    println!("all: {live} cgroups, {dead} gone: {all} bytes; {} not kept", host.tree.ignored());
    assert!(live >= limits.live - 10 && dead >= limits.dead - 10, "it is full: {live} {dead}");
    assert!(all < ALL_MAX_BYTES, "{all}");

    for uid in &users {
        host.read_largest(&format!("home/u{uid}/.local/share"), &slice(uid));
    }
    host.read_largest("var/lib", "/system.slice");
    let peak = peak_kib();
    println!("the whole process, at its peak: {peak} KiB");
    assert!(peak < PROCESS_MAX_KIB, "{peak}");
}
