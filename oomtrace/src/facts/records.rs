//! The contents of records: sizes in bytes, times in nanoseconds, and `None` for what the kernel side could
//! not read.

use crate::{
    event::{Evidence, MemoryEvents},
    facts::{SignalKillFacts, StackFacts},
};

/// A cgroup's id: `kernfs_node.id`, the inode number of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupId(pub u64);

impl std::fmt::Display for CgroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A time of `CLOCK_BOOTTIME`, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub u64);

/// The content of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The OOM killer marked a victim.
    OomKill(Box<OomKillFacts>),
    /// A process that shares a victim's memory was killed with it.
    SharedMmKill(SharedMmKillFacts),
    /// A memory cgroup ran out without a kill.
    MemcgOom(Box<MemcgOomFacts>),
    /// Processes were sent a signal that ends them.
    SignalKill(Box<SignalKillFacts>),
    /// A memory cgroup was made, removed or renamed.
    Cgroup(CgroupChange),
}

/// A call of `mark_victim`.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKillFacts {
    /// Number of the event since the programs were attached.
    pub seq: u64,
    /// The time.
    pub time: BootTime,
    /// `seq` of the first victim of this run, if a hook shows where runs start.
    pub run: Option<u64>,
    /// The victim.
    pub victim: TaskFacts,
    /// The victim's memory.
    pub memory: MemoryFacts,
    /// The victim's threads, and the tasks of its cgroup.
    pub tasks: TasksFacts,
    /// The LRU lists of its memory cgroup; `None` if not all of them were read.
    pub lru: Option<LruFacts>,
    /// The task that ran the OOM killer.
    pub trigger: TaskFacts,
    /// The OOM killer's own state, if a function hook read it or it was found in `stack`.
    pub oom: Option<OomControlFacts>,
    /// A part of the kernel stack of the task that ran the OOM killer, if no function hook ran.
    pub stack: Option<StackFacts>,
    /// The start of the victim's command line, if the kernel side could read it.
    pub command_line: Option<CommandLine>,
    /// Whether the kernel sent SIGKILL to the victim in this run; `None` if that is not known.
    pub signalled: Option<bool>,
    /// The victim's memory cgroup and those above it.
    pub lineage: Lineage,
}

/// The start of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The arguments, each ended by NUL; any bytes.
    pub arguments: Vec<u8>,
    /// The command line is longer.
    pub cut: bool,
}

/// A process that shares a victim's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedMmKillFacts {
    /// Number of the event.
    pub seq: u64,
    /// The time.
    pub time: BootTime,
    /// The victim's number.
    pub of: u64,
    /// The process.
    pub task: TaskFacts,
}

/// A memory cgroup ran out without a kill.
#[derive(Clone, Debug, PartialEq)]
pub struct MemcgOomFacts {
    /// Number of the event; `None` if it was seen outside the OOM killer's lock, which is needed for a
    /// number.
    pub seq: Option<u64>,
    /// The time.
    pub time: BootTime,
    /// The task that ran the OOM killer.
    pub trigger: TaskFacts,
    /// The arguments of the OOM killer.
    pub oom: Option<OomControlFacts>,
    /// One of `oomtrace_common::record::OUTCOME_*`.
    pub outcome: u32,
    /// The cgroup that ran out and those above it.
    pub lineage: Lineage,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFacts {
    /// Thread id.
    pub tid: Option<u32>,
    /// Process id.
    pub tgid: Option<u32>,
    /// Process id in its own pid namespace.
    pub namespace_tgid: Option<u32>,
    /// Its parent's process id.
    pub parent_tgid: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// When it started.
    pub start: Option<BootTime>,
    /// Its memory cgroup.
    pub memcg: Option<CgroupId>,
    /// Its name: any bytes but NUL.
    pub comm: Option<Vec<u8>>,
}

/// A victim's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFacts {
    /// Address space.
    pub total_vm_bytes: Option<u64>,
    /// `MM_ANONPAGES`.
    pub anon_rss_bytes: Option<u64>,
    /// `MM_FILEPAGES`.
    pub file_rss_bytes: Option<u64>,
    /// `MM_SHMEMPAGES`.
    pub shmem_rss_bytes: Option<u64>,
    /// `MM_SWAPENTS`.
    pub swap_bytes: Option<u64>,
    /// Page tables.
    pub pgtables_bytes: Option<u64>,
}

/// A victim's threads, and the tasks of its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TasksFacts {
    /// Threads of the victim's process.
    pub threads: Option<u32>,
    /// Its cgroup of the pids hierarchy.
    pub cgroup: Option<CgroupId>,
    /// That is a cgroup of the memory hierarchy. In another one a cgroup can have the same id.
    pub in_memory_hierarchy: bool,
    /// That is the root, in which the kernel counts no tasks.
    pub in_root: bool,
    /// `pids.current`.
    pub count: Option<u64>,
    /// `pids.max`; `Some(None)` if there is none.
    pub limit: Option<Option<u64>>,
    /// `pids.peak`.
    pub peak: Option<u64>,
}

/// The LRU lists of a memory cgroup, without the cgroups below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LruFacts {
    /// Anon, with tmpfs.
    pub anon_bytes: u64,
    /// File.
    pub file_bytes: u64,
    /// Unevictable.
    pub unevictable_bytes: u64,
}

/// The OOM killer's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomControlFacts {
    /// How it was read.
    pub evidence: Evidence,
    /// The cgroup whose limit fired; `Some(None)` if no cgroup's did; `None` if it could not be read.
    pub memcg: Option<Option<CgroupId>>,
    /// `totalpages`.
    pub domain_bytes: Option<u64>,
    /// `chosen_points`.
    pub oom_score_bytes: Option<i64>,
    /// Allocation flags.
    pub gfp_mask: Option<u32>,
    /// Allocation order; -1 for sysrq.
    pub order: Option<i32>,
    /// `enum oom_constraint`.
    pub constraint: Option<u32>,
    /// The reason that the OOM killer prints in the log.
    pub message: Option<Vec<u8>>,
}

/// A memory cgroup and its ancestors, leaf first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The cgroups, including the root (last) unless `levels_cut`.
    pub levels: Vec<MemcgFacts>,
    /// The path below the root, starting with `/`: any bytes but NUL. Its beginning is missing if `path_cut`.
    pub path: Vec<u8>,
    /// Names of ancestors near the root are missing in `path`.
    pub path_cut: bool,
    /// Ancestors near the root are missing in `levels`.
    pub levels_cut: bool,
}

/// One memory cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemcgFacts {
    /// Its id.
    pub id: CgroupId,
    /// `memory.current`.
    pub usage_bytes: Option<u64>,
    /// `memory.max`.
    pub max: Option<Limit>,
    /// `memory.peak`.
    pub watermark_bytes: Option<u64>,
    /// `memory.swap.current` on v2, `memory.memsw.usage_in_bytes` on v1.
    pub swap_usage_bytes: Option<u64>,
    /// `memory.swap.max` on v2, `memory.memsw.limit_in_bytes` on v1.
    pub swap_max: Option<Limit>,
    /// `memory.oom.group`.
    pub oom_group: Option<bool>,
    /// Memory events.
    pub events: MemoryEvents,
}

/// A cgroup's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This many bytes.
    Bytes(u64),
    /// No limit is set.
    Unlimited,
}

/// The smallest value that means no limit in files: `LONG_MAX` in whole pages, which have at most 64 KiB.
const NO_LIMIT_BYTES: u64 = i64::MAX.unsigned_abs() - (64 << 10);

impl Limit {
    /// From a counter of the kernel in pages. No limit is `PAGE_COUNTER_MAX`, `LONG_MAX / PAGE_SIZE`.
    pub fn of_pages(pages: u64, page_bytes: u64) -> Self {
        let none = i64::MAX.unsigned_abs() / page_bytes.max(1);
        if pages >= none { Self::Unlimited } else { Self::Bytes(pages.saturating_mul(page_bytes)) }
    }

    /// From a file of the kernel, or its log.
    pub fn of_bytes(bytes: u64) -> Self {
        if bytes >= NO_LIMIT_BYTES { Self::Unlimited } else { Self::Bytes(bytes) }
    }
}

/// A memory cgroup was made, removed or renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupChange {
    /// The time.
    pub time: BootTime,
    /// The cgroup.
    pub id: CgroupId,
    /// What happened.
    pub kind: CgroupChangeKind,
    /// Its path: any bytes but NUL. May be cut by the kernel at 1023 bytes.
    pub path: Vec<u8>,
}

/// What happened to a memory cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupChangeKind {
    /// It was made.
    Made,
    /// It was removed.
    Removed,
    /// It was renamed.
    Renamed,
}
