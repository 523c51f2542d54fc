#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use oomtrace_common::record::sample::{CSS_DYING, Sample, sample_fact};
use zerocopy::FromZeros;

use super::ranking::{TOP, User};
use super::*;
use crate::{
    cgroups::tree::TreeLimits,
    containers::Runtimes,
    facts::{CgroupChange, CgroupChangeKind, Decoder, Limit},
    sources::sampling::Found,
};

const PAGE: u64 = 4096;

/// A host: its cgroups, and what a walk finds.
struct Host {
    tree: CgroupTree,
    samples: Vec<Sample>,
}

use crate::cgroups::tree::CgroupTree;

impl Host {
    fn new() -> Self {
        let mut host =
            Self { tree: CgroupTree::new(Runtimes::none(), TreeLimits::default()), samples: vec![] };
        host.sample(1, 0, 0);
        host
    }

    fn sample(&mut self, id: u64, parent: u64, pages: u64) -> &mut Sample {
        self.samples.push(Sample {
            cgroup_id: id,
            parent_id: parent,
            usage_pages: pages,
            max_pages: u64::MAX,
            present: sample_fact::USAGE | sample_fact::MAX | sample_fact::FLAGS,
            ..Sample::new_zeroed()
        });
        self.samples.last_mut().unwrap()
    }

    fn with(mut self, id: u64, parent: u64, path: &str, pages: u64) -> Self {
        self.tree.apply(&CgroupChange {
            time: BootTime(1),
            id: CgroupId(id),
            kind: CgroupChangeKind::Made,
            path: path.as_bytes().to_vec(),
        });
        self.sample(id, parent, pages);
        self
    }

    fn walk<T>(&self, take: impl FnOnce(&Walk<'_>) -> T) -> T {
        let found = Found {
            samples: &self.samples,
            evidence: SampleEvidence::Kernel,
            began: BootTime(1),
            ended: BootTime(2),
        };
        take(&Walk::new(&found, Decoder::new(PAGE)))
    }

    fn rank(&self, victim: &[(u64, u64)]) -> Ranking {
        let victim: Vec<_> = victim.iter().map(|(id, pages)| (CgroupId(*id), Some(pages * PAGE))).collect();
        self.walk(|walk| rank(walk, &self.tree, &HashSet::new(), &victim))
    }
}

fn pages(ranking: &Ranking) -> Vec<(u64, u64)> {
    ranking.top.iter().map(|user| (user.id.0, user.usage_bytes / PAGE)).collect()
}

#[test]
fn each_page_counts_once() {
    let mut host = Host::new()
        .with(2, 1, "/system.slice", 1000)
        .with(3, 2, "/system.slice/db.service", 700)
        .with(4, 3, "/system.slice/db.service/worker", 600)
        .with(5, 2, "/system.slice/web.service", 250)
        .with(6, 1, "/own", 500)
        .with(7, 6, "/own/a", 200)
        .with(8, 6, "/own/b", 180);
    host.sample(9, 6, 90).flags = CSS_DYING;
    host.sample(10, 9, 80).flags = CSS_DYING;
    let ranking = host.rank(&[]);
    // Of `/system.slice` and `/own` what is in none of those below.
    assert_eq!(pages(&ranking), [(3, 700), (5, 250), (7, 200), (8, 180), (9, 90), (2, 50), (6, 30)]);
    assert_eq!((ranking.cgroups, ranking.usage_bytes, ranking.victim), (9, Some(1500 * PAGE), None));
    let of = |id: u64| *ranking.top.iter().find(|user| user.id.0 == id).unwrap();
    assert!(of(9).removed && !of(7).removed && of(2).without_below && !of(3).without_below);
    assert_eq!(of(3).max, Some(Limit::Unlimited));
    let sum: u64 = ranking.top.iter().map(|user| user.usage_bytes).sum();
    assert_eq!(Some(sum), ranking.usage_bytes);
}

/// As on cgroup v1 before 5.11, where nobody set `memory.use_hierarchy`.
#[test]
fn a_flat_cgroup_does_not_stand_for_those_below_it() {
    let mount = tempfile::tempdir().unwrap();
    let flag = |path: &str, value: &str| {
        let dir = mount.path().join(path);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("memory.use_hierarchy"), value).unwrap();
    };
    let host = Host::new()
        .with(2, 1, "/docker", 30)
        .with(3, 2, "/docker/one", 700)
        .with(4, 1, "/own", 500)
        .with(5, 4, "/own/a", 200);
    flag("", "0\n");
    flag("docker", "0\n");
    let flat = |host: &Host| host.walk(|walk| Flat::new(Some(mount.path())).of(walk, &host.tree));
    assert!(flat(&host).unwrap_err().contains("/own/memory.use_hierarchy cannot be read"));
    flag("own", "1\n");
    let found = flat(&host).unwrap();
    assert_eq!(found, HashSet::from([CgroupId(2)]));
    let ranking = host.walk(|walk| rank(walk, &host.tree, &found, &[]));
    assert_eq!(pages(&ranking), [(3, 700), (4, 300), (5, 200), (2, 30)]);
    assert_eq!(ranking.usage_bytes, Some(1230 * PAGE), "docker, one and own");
    assert!(!ranking.top.last().unwrap().without_below);
    flag("", "1\n");
    assert_eq!(flat(&host).unwrap(), HashSet::new(), "nothing is flat below a root that is not");
}

#[test]
fn the_victim_has_what_it_had_at_the_kill() {
    let host = Host::new()
        .with(2, 1, "/system.slice", 1000)
        .with(3, 2, "/system.slice/db.service", 10)
        .with(4, 3, "/system.slice/db.service/worker", 5)
        .with(5, 2, "/system.slice/web.service", 990);
    let ranking = host.rank(&[(4, 1400), (3, 1500), (2, 2600), (1, 2600)]);
    assert_eq!(pages(&ranking), [(3, 1500), (5, 990)], "nothing of the victim is in what is above it");
    assert!(ranking.top.first().unwrap().killed);
    assert_eq!(ranking.victim.map(|user| user.id.0), Some(3));
    // Of a plain cgroup with others below it, its own part.
    let host = Host::new().with(2, 1, "/own", 10).with(3, 2, "/own/a", 400);
    let ranking = host.rank(&[(2, 900), (1, 900)]);
    assert_eq!(pages(&ranking), [(2, 500), (3, 400)]);
    assert!(ranking.victim.unwrap().without_below);
}

#[test]
fn the_largest_of_many_in_any_order_and_none_without_memory() {
    let mut host = Host::new();
    for id in 2..302 {
        host = host.with(id, 1, &format!("/c{id}"), id * 7 % 300);
    }
    host.samples.reverse();
    let ranking = host.rank(&[(299, 5), (1, 9)]);
    let mut all: Vec<u64> = (2..302).map(|id| if id == 299 { 5 } else { id * 7 % 300 }).collect();
    all.sort_unstable_by(|one, other| other.cmp(one));
    all.truncate(TOP);
    assert_eq!(pages(&ranking).iter().map(|(_, pages)| *pages).collect::<Vec<_>>(), all);
    assert_eq!(ranking.victim.map(|user| user.usage_bytes), Some(5 * PAGE));
    let empty = Host::new().with(2, 1, "/a", 0);
    assert!(empty.rank(&[]).top.is_empty());
    let mut unknown = Host::new().with(2, 1, "/a", 3);
    unknown.sample(3, 1, 9).present = 0;
    let ranking = unknown.rank(&[]);
    assert_eq!((pages(&ranking), ranking.usage_bytes), (vec![(2, 3)], None));
}

/// A tree that the kernel would not make must not hang the walk.
#[test]
fn a_cgroup_above_itself_is_none_of_the_hosts() {
    let mut host = Host::new();
    host.sample(2, 3, 1);
    host.sample(3, 2, 1);
    let _any: Vec<User> = host.rank(&[]).top;
}

/// Writes rows for the table of `cargo xtask bench --programs`, which runs it.
#[test]
#[ignore = "measures, on request"]
fn what_a_ranking_costs() {
    use std::io::Write as _;
    const TIMES: usize = 1001;
    for cgroups in [300, 10_000] {
        let mut host = Host::new().with(2, 1, "/system.slice", 1 << 30);
        for id in 3..=cgroups {
            host = host.with(id, 2, &format!("/system.slice/docker-{id:064}.scope"), id * 7 % 300);
        }
        let mut took: Vec<_> = (0..TIMES)
            .map(|_| {
                let began = std::time::Instant::now();
                std::hint::black_box(host.rank(&[(cgroups, 5)]));
                began.elapsed().as_micros()
            })
            .collect();
        took.sort_unstable();
        let middle = took.get(TIMES / 2).unwrap();
        writeln!(std::io::stderr(), "| to rank {cgroups} cgroups for `host_memory`, µs | {middle} | |")
            .unwrap();
    }
}
