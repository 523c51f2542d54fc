//! What stands out in an incident. Pure: each finding is an exact condition on facts. If one of these is not
//! known, there is no finding.

mod heap;
#[cfg(test)]
mod tests;

pub use heap::{Heap, heaps};

use crate::{
    event::{CgroupMemory, Finding, FindingId, Part, ProcessTable, Scope},
    facts::kernel_log::run_report::Zones,
};

/// The facts of a run.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// What ran out.
    pub scope: Option<Scope>,
    /// The limit that fired.
    pub limit_bytes: Option<u64>,
    /// v2: the limit for swap.
    pub swap_limit_bytes: Option<u64>,
    /// v1: the limit for memory and swap together.
    pub memsw_limit_bytes: Option<u64>,
    /// The swap of the host.
    pub host_swap_bytes: Option<u64>,
    /// What the memory of the cgroup was.
    pub memory: Option<&'a CgroupMemory>,
    /// The processes that the killer could choose from.
    pub table: Option<&'a ProcessTable>,
    /// The path of the cgroup whose limit fired.
    pub fired: Option<&'a str>,
    /// The path of the victim's cgroup.
    pub victim_cgroup: Option<&'a str>,
    /// The id of the victim's container.
    pub container: Option<&'a str>,
    /// The first process of the container, which lives on though all victims are gone.
    pub lives: Option<(u32, &'a str)>,
    /// The victim's process.
    pub victim_pid: Option<u32>,
    /// Its size.
    pub victim_rss_bytes: Option<u64>,
    /// The victim was chosen by its score.
    pub selected: bool,
    /// Options of the victim's command line.
    pub heaps: &'a [Heap],
    /// The usage when the victims were gone.
    pub left_bytes: Option<u64>,
    /// The allocation that failed was of 2^order pages.
    pub order: Option<i32>,
    /// The zones that it could use.
    pub zones: Option<Zones>,
}

/// Percent of the limit.
const FILLS: u64 = 90;
const LARGE: u64 = 25;
const STAYS: u64 = 50;
/// A heap of this share of the limit leaves too little for the rest of a process.
const HEAP: u64 = 90;
const HEAP_PERCENT: u64 = 80;
/// Kubernetes gives -997 to guaranteed pods, and -999 to its own.
const PROTECTED: i32 = -900;
/// Below `min` only the killer's victims and the kernel's urgent work get memory.
const FREE_MINS: u64 = 2;

/// What stands out, in a fixed order.
pub fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(of_memory(facts).into_iter().flatten());
    found.extend(no_swap(facts).then(|| Finding::new(FindingId::NoSwap)));
    found.extend(limit_above_victim(facts).then(|| Finding::new(FindingId::LimitAboveVictim)));
    found.extend(of_table(facts).into_iter().flatten());
    found.extend(container_lives(facts));
    found.extend(facts.heaps.iter().filter_map(|heap| heap_over_limit(heap, facts.limit_bytes?)));
    found.extend(memory_stays(facts));
    found.extend(host_not_full(facts));
    found
}

fn of_memory(facts: &Facts<'_>) -> [Option<Finding>; 4] {
    let (Some(limit), Some(memory)) = (facts.limit_bytes, facts.memory) else { return [const { None }; 4] };
    let at_least = |id, bytes: Option<u64>, percent| {
        bytes.filter(|bytes| is_share(*bytes, percent, limit)).map(|bytes| Finding::of_bytes(id, bytes))
    };
    // On v2 the buffers of sockets are beside the kernel's memory.
    let kernel = memory.kernel_bytes.map(|kernel| kernel.saturating_add(memory.sock_bytes.unwrap_or(0)));
    let kernel = at_least(FindingId::KernelLarge, kernel, LARGE)
        .map(|finding| Finding { part: largest_part(memory), ..finding });
    [
        at_least(FindingId::AnonFillsLimit, memory.anon_bytes, FILLS),
        at_least(FindingId::ShmemLarge, memory.shmem_bytes, LARGE),
        kernel,
        at_least(FindingId::CachePresent, clean_cache(memory), LARGE),
    ]
}

/// Whether `bytes` are at least this share of the limit.
fn is_share(bytes: u64, percent: u64, limit: u64) -> bool {
    limit > 0 && u128::from(bytes) * 100 >= u128::from(limit) * u128::from(percent)
}

/// Page cache that is neither tmpfs, nor dirty, nor being written.
fn clean_cache(memory: &CgroupMemory) -> Option<u64> {
    let others = [memory.shmem_bytes, memory.file_dirty_bytes, memory.file_writeback_bytes];
    others.into_iter().try_fold(memory.file_bytes?, |left, other| Some(left.saturating_sub(other?)))
}

/// The largest of the parts that are known; `None` if none is.
fn largest_part(memory: &CgroupMemory) -> Option<Part> {
    let parts = [
        (Part::KernelStack, memory.kernel_stack_bytes),
        (Part::Pagetables, memory.pagetables_bytes),
        (Part::SlabReclaimable, memory.slab_reclaimable_bytes),
        (Part::SlabUnreclaimable, memory.slab_unreclaimable_bytes),
        (Part::Sock, memory.sock_bytes),
        (Part::Percpu, memory.percpu_bytes),
    ];
    let known = parts.into_iter().filter_map(|(part, bytes)| Some((part, bytes?)));
    known.max_by_key(|(_, bytes)| *bytes).filter(|(_, bytes)| *bytes > 0).map(|(part, _)| part)
}

fn no_swap(facts: &Facts<'_>) -> bool {
    let of_v1 = facts.memsw_limit_bytes.is_some() && facts.memsw_limit_bytes == facts.limit_bytes;
    facts.host_swap_bytes == Some(0) || facts.swap_limit_bytes == Some(0) || of_v1
}

/// Whether the cgroup whose limit fired is above the victim's, and is not in the container.
fn limit_above_victim(facts: &Facts<'_>) -> bool {
    let (Some(fired), Some(victim), Some(container)) = (facts.fired, facts.victim_cgroup, facts.container)
    else {
        return false;
    };
    let below = victim.strip_prefix(fired.trim_end_matches('/'));
    below.is_some_and(|below| below.starts_with('/') && below.contains(container))
        && !fired.contains(container)
}

fn of_table(facts: &Facts<'_>) -> [Option<Finding>; 2] {
    let Some(largest) = facts.table.and_then(|table| table.largest.first()) else { return [None, None] };
    let finding = |id| Finding {
        pid: Some(largest.pid),
        comm: Some(largest.comm.clone()),
        oom_score_adj: Some(largest.oom_score_adj),
        ..Finding::of_bytes(id, largest.rss_bytes)
    };
    let is_other = facts.victim_pid.is_some_and(|victim| victim != largest.pid);
    // Of the table too, if it has the victim: processes that share memory have the same size there.
    let in_table =
        facts.table.and_then(|table| table.largest.iter().find(|row| Some(row.pid) == facts.victim_pid));
    let is_larger = facts.victim_rss_bytes.is_some_and(|victim| victim < largest.rss_bytes)
        && in_table.is_none_or(|victim| victim.rss_bytes < largest.rss_bytes);
    let bystander = facts.selected && is_other && is_larger;
    [
        bystander.then(|| finding(FindingId::Bystander)),
        (largest.oom_score_adj <= PROTECTED).then(|| finding(FindingId::ProtectedLargest)),
    ]
}

fn container_lives(facts: &Facts<'_>) -> Option<Finding> {
    facts.lives.map(|(pid, comm)| Finding {
        pid: Some(pid),
        comm: Some(comm.to_owned()),
        ..Finding::new(FindingId::ChildKilledContainerLives)
    })
}

fn heap_over_limit(heap: &Heap, limit: u64) -> Option<Finding> {
    let finding = Finding { option: Some(heap.option), ..Finding::new(FindingId::HeapFlagOverLimit) };
    match *heap {
        Heap { bytes: Some(bytes), .. } if is_share(bytes, HEAP, limit) => {
            Some(Finding { bytes: Some(bytes), ..finding })
        }
        Heap { percent: Some(percent), .. } if percent >= HEAP_PERCENT => {
            Some(Finding { percent: Some(percent), ..finding })
        }
        _ => None,
    }
}

fn memory_stays(facts: &Facts<'_>) -> Option<Finding> {
    let left = facts
        .left_bytes
        .filter(|left| facts.limit_bytes.is_some_and(|limit| is_share(*left, STAYS, limit)))?;
    Some(Finding::of_bytes(FindingId::MemoryStays, left))
}

/// Whether the host ran out for a block of pages, or with so much free that this is no lack of memory.
fn host_not_full(facts: &Facts<'_>) -> Option<Finding> {
    let of_host = matches!(facts.scope, Some(Scope::Host | Scope::Cpuset | Scope::Mempolicy));
    let order = facts.order.filter(|order| *order >= 1);
    let zones = facts.zones.filter(|zones| zones.free_bytes / FREE_MINS >= zones.min_bytes.max(1));
    let free = zones.map(|zones| zones.free_bytes);
    (of_host && (order.is_some() || free.is_some())).then(|| Finding {
        order,
        bytes: free,
        ..Finding::new(FindingId::HostNotFull)
    })
}
