#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::event::{HeapOption, TableRow};

const LIMIT: u64 = 1000;

/// Nothing stands out in it.
fn quiet() -> CgroupMemory {
    CgroupMemory {
        anon_bytes: Some(500),
        file_bytes: Some(300),
        shmem_bytes: Some(100),
        kernel_bytes: Some(100),
        kernel_stack_bytes: Some(10),
        pagetables_bytes: Some(30),
        slab_reclaimable_bytes: Some(20),
        slab_unreclaimable_bytes: Some(20),
        sock_bytes: Some(0),
        percpu_bytes: Some(0),
        file_dirty_bytes: Some(0),
        file_writeback_bytes: Some(0),
        ..CgroupMemory::default()
    }
}

fn ids(facts: &Facts<'_>) -> Vec<FindingId> {
    findings(facts).into_iter().map(|finding| finding.id).collect()
}

fn of(change: impl FnOnce(&mut CgroupMemory)) -> Vec<Finding> {
    let mut memory = quiet();
    change(&mut memory);
    findings(&Facts { limit_bytes: Some(LIMIT), memory: Some(&memory), ..Facts::default() })
}

#[test]
fn nothing_is_found_where_nothing_is_known() {
    assert_eq!(findings(&Facts::default()), []);
    assert_eq!(of(|_| {}), []);
    let memory = CgroupMemory { anon_bytes: Some(1000), ..CgroupMemory::default() };
    assert_eq!(ids(&Facts { memory: Some(&memory), ..Facts::default() }), [], "without a limit");
    assert_eq!(ids(&Facts { memory: Some(&memory), limit_bytes: Some(0), ..Facts::default() }), []);
}

#[test]
fn anon_fills_the_limit_from_90_percent() {
    assert_eq!(
        of(|memory| memory.anon_bytes = Some(900)),
        [Finding::of_bytes(FindingId::AnonFillsLimit, 900)]
    );
    assert_eq!(of(|memory| memory.anon_bytes = Some(899)), []);
    assert_eq!(of(|memory| memory.anon_bytes = None), []);
}

#[test]
fn shmem_is_large_from_25_percent() {
    assert_eq!(of(|memory| memory.shmem_bytes = Some(250)), [Finding::of_bytes(FindingId::ShmemLarge, 250)]);
    assert_eq!(of(|memory| memory.shmem_bytes = Some(249)), []);
}

#[test]
fn the_kernel_is_large_from_25_percent_with_its_largest_part() {
    let large = |sock| {
        of(|memory| {
            memory.kernel_bytes = Some(200);
            memory.sock_bytes = Some(sock);
        })
    };
    let finding = Finding { part: Some(Part::Sock), ..Finding::of_bytes(FindingId::KernelLarge, 250) };
    assert_eq!((large(50), large(49)), (vec![finding], vec![]));
    let unnamed = of(|memory| {
        *memory = CgroupMemory { kernel_bytes: Some(300), ..CgroupMemory::default() };
    });
    assert_eq!(unnamed, [Finding::of_bytes(FindingId::KernelLarge, 300)], "no part is known");
    let dentries = of(|memory| {
        memory.kernel_bytes = Some(400);
        memory.slab_reclaimable_bytes = Some(380);
    });
    assert_eq!(dentries.first().unwrap().part, Some(Part::SlabReclaimable));
}

#[test]
fn cache_is_present_if_it_is_clean() {
    let cache = |dirty: Option<u64>| {
        of(|memory| {
            memory.file_bytes = Some(360);
            memory.file_dirty_bytes = dirty;
        })
    };
    assert_eq!(cache(Some(10)), [Finding::of_bytes(FindingId::CachePresent, 250)]);
    assert_eq!((cache(Some(11)), cache(None)), (vec![], vec![]));
}

#[test]
fn no_swap_on_each_version_and_host() {
    let none = [FindingId::NoSwap];
    assert_eq!(ids(&Facts { swap_limit_bytes: Some(0), ..Facts::default() }), none);
    assert_eq!(ids(&Facts { swap_limit_bytes: Some(1), ..Facts::default() }), []);
    let v1 = |memsw| Facts { limit_bytes: Some(LIMIT), memsw_limit_bytes: memsw, ..Facts::default() };
    assert_eq!(ids(&v1(Some(LIMIT))), none);
    assert_eq!((ids(&v1(Some(LIMIT + 1))), ids(&v1(None))), (vec![], vec![]));
    assert_eq!(ids(&Facts { host_swap_bytes: Some(0), ..Facts::default() }), none);
    assert_eq!(ids(&Facts { host_swap_bytes: Some(4096), ..Facts::default() }), []);
}

#[test]
fn a_limit_above_the_container() {
    let above = |fired, victim, container| {
        let facts = Facts { fired: Some(fired), victim_cgroup: Some(victim), container, ..Facts::default() };
        ids(&facts) == [FindingId::LimitAboveVictim]
    };
    assert!(above("/kubepods/pod1", "/kubepods/pod1/ab12", Some("ab12")));
    assert!(above("/", "/docker/ab12", Some("ab12")));
    assert!(!above("/docker/ab12", "/docker/ab12", Some("ab12")), "its own");
    assert!(
        !above("/docker/ab12", "/docker/ab12/inner", Some("ab12")),
        "its own, and it has cgroups of its own"
    );
    assert!(!above("/docker/ab12/a", "/docker/ab12/a/b", Some("ab12")), "inside");
    assert!(!above("/kubepods/pod", "/kubepods/pod1/ab12", Some("ab12")), "another");
    assert!(!above("/kubepods/pod1", "/kubepods/pod1/ab12", None), "no container");
}

fn table(pid: u32, oom_score_adj: i32) -> ProcessTable {
    let row = TableRow { pid, comm: "db".to_owned(), rss_bytes: 700, oom_score_adj };
    ProcessTable { count: 2, rss_bytes: 900, largest: vec![row], ..ProcessTable::default() }
}

#[test]
fn a_bystander_is_not_the_largest() {
    let found = |victim_pid, victim_rss_bytes, selected| {
        let table = table(7, 0);
        let facts = Facts { table: Some(&table), victim_pid, victim_rss_bytes, selected, ..Facts::default() };
        findings(&facts)
    };
    let bystander = Finding {
        pid: Some(7),
        comm: Some("db".to_owned()),
        oom_score_adj: Some(0),
        ..Finding::of_bytes(FindingId::Bystander, 700)
    };
    assert_eq!(found(Some(8), Some(699), true), [bystander]);
    assert_eq!(found(Some(7), Some(699), true), [], "it is the largest");
    assert_eq!(found(Some(8), Some(700), true), [], "as large");
    assert_eq!(found(Some(8), Some(699), false), [], "it was not chosen by its score");
    assert_eq!((found(None, Some(1), true), found(Some(8), None, true)), (vec![], vec![]));
}

#[test]
fn who_shares_memory_with_the_victim_is_not_larger() {
    let mut table = table(7, 0);
    table.largest.push(TableRow { pid: 8, ..table.largest.first().unwrap().clone() });
    let found = |rss| {
        let mut table = table.clone();
        table.largest.last_mut().unwrap().rss_bytes = rss;
        let facts = Facts {
            table: Some(&table),
            victim_pid: Some(8),
            victim_rss_bytes: Some(1),
            selected: true,
            ..Facts::default()
        };
        ids(&facts)
    };
    assert_eq!((found(700), found(699)), (vec![], vec![FindingId::Bystander]));
}

#[test]
fn the_largest_is_protected_from_minus_900() {
    let found = |adj| ids(&Facts { table: Some(&table(7, adj)), ..Facts::default() });
    assert_eq!((found(-900), found(-899)), (vec![FindingId::ProtectedLargest], vec![]));
}

#[test]
fn a_container_lives_on_if_its_first_process_does() {
    let facts = Facts { lives: Some((7, "sh")), ..Facts::default() };
    let finding = Finding {
        pid: Some(7),
        comm: Some("sh".to_owned()),
        ..Finding::new(FindingId::ChildKilledContainerLives)
    };
    assert_eq!(findings(&facts), [finding]);
}

#[test]
fn a_heap_leaves_little_of_the_limit() {
    let found = |bytes, percent| {
        let heaps = [Heap { option: HeapOption::Xmx, bytes, percent }];
        let facts = Facts { limit_bytes: Some(LIMIT), heaps: &heaps, ..Facts::default() };
        findings(&facts).into_iter().map(|finding| (finding.bytes, finding.percent)).collect::<Vec<_>>()
    };
    assert_eq!((found(Some(900), None), found(Some(899), None)), (vec![(Some(900), None)], vec![]));
    assert_eq!((found(None, Some(80)), found(None, Some(79))), (vec![(None, Some(80))], vec![]));
}

#[test]
fn memory_stays_from_half_of_the_limit() {
    let found = |left, limit| ids(&Facts { left_bytes: left, limit_bytes: limit, ..Facts::default() });
    assert_eq!(found(Some(500), Some(LIMIT)), [FindingId::MemoryStays]);
    assert_eq!((found(Some(499), Some(LIMIT)), found(Some(500), None)), (vec![], vec![]));
}

#[test]
fn a_host_is_not_full_if_more_than_one_page_was_asked_for() {
    let found = |scope, order| ids(&Facts { scope: Some(scope), order: Some(order), ..Facts::default() });
    assert_eq!(found(Scope::Host, 1), [FindingId::HostNotFull]);
    assert_eq!((found(Scope::Host, 0), found(Scope::Host, -1)), (vec![], vec![]));
    assert_eq!(found(Scope::Memcg, 3), []);
}
