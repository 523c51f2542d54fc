//! One run of the OOM killer, told once its victims are gone: what the memory was, and when it was free.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Before, Cgroup, Container, Envelope, Finding, K8s, Missing, Recurrence, Scope, Systemd, is_empty,
};

/// One run of the OOM killer: written when its victims are gone, or 5 s after the kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of its kills, the first 64.
    pub of: Vec<u64>,
    /// How many processes it killed.
    pub killed: u64,
    /// What ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The process that was killed first.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub victim: IncidentVictim,
    /// The cgroup whose limit fired; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<IncidentCgroup>,
    /// The processes that the killer could choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_table: Option<ProcessTable>,
    /// When the memory of its victims was free.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub released: Released,
    /// How the usage went before the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// How often it happened to this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurrence: Option<Recurrence>,
    /// What stands out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The container of the first victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The Kubernetes pod of the first victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The systemd unit of the first victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// The process that was killed first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct IncidentVictim {
    /// Process id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `task->comm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// The cgroup whose limit fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentCgroup {
    /// Which.
    #[serde(flatten)]
    pub cgroup: Cgroup,
    /// `memory.max`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// `memory.current` at the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// What the memory was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<CgroupMemory>,
}

/// What the memory of a cgroup and of those below it was, as in `memory.stat`. The parts do not add up to the usage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupMemory {
    /// Where it comes from.
    pub evidence: MemoryEvidence,
    /// Memory of processes that no file backs: `anon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// Page cache, with tmpfs and shared memory: `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// The part of `file_bytes` that is tmpfs or shared memory: `shmem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// All of the kernel's own memory: `kernel`; on cgroup v1 `kmem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_bytes: Option<u64>,
    /// Kernel stacks of threads: `kernel_stack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_stack_bytes: Option<u64>,
    /// Page tables: `pagetables`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagetables_bytes: Option<u64>,
    /// Slab that can be reclaimed, as dentries and inodes: `slab_reclaimable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_reclaimable_bytes: Option<u64>,
    /// Other slab: `slab_unreclaimable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_unreclaimable_bytes: Option<u64>,
    /// Buffers of sockets: `sock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock_bytes: Option<u64>,
    /// Memory for each processor: `percpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percpu_bytes: Option<u64>,
    /// The part of `file_bytes` that must be written before it can be dropped: `file_dirty`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_dirty_bytes: Option<u64>,
    /// The part of `file_bytes` that is being written: `file_writeback`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_writeback_bytes: Option<u64>,
    /// Pages by the kernel's list of them.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub lru: Lru,
}

/// Pages by the kernel's list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct Lru {
    /// `inactive_anon` and `active_anon`: with tmpfs and shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// `inactive_file` and `active_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// `unevictable`: locked, or on ramfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unevictable_bytes: Option<u64>,
}

/// Where the memory of a cgroup comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryEvidence {
    /// The kernel's own report of this run, written before the kill.
    #[default]
    KernelLog,
    /// The cgroup's file. Its usage before and after was still what the kernel side saw at the kill.
    Cgroupfs,
}

/// The kernel's table of the processes that the killer could choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessTable {
    /// Where it comes from.
    pub evidence: TableEvidence,
    /// How many there were.
    pub count: u64,
    /// The sum of their sizes. A page that two of them share counts twice.
    pub rss_bytes: u64,
    /// The five largest, the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<TableRow>,
}

/// Where a table of processes comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableEvidence {
    /// The kernel's own report of this run, written before the kill.
    #[default]
    KernelLog,
}

/// A process of the kernel's table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableRow {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// `task->comm`.
    pub comm: String,
    /// anon + file + shmem.
    pub rss_bytes: u64,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
}

/// When the memory of the victims was free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct Released {
    /// From the first mark until all victims were gone, and their memory with them. Not more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ns: Option<u64>,
    /// Whether the kernel's reaper had to free memory of a victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaper: Option<Reaper>,
    /// `memory.current` of the cgroup whose limit fired, after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
}

/// What the kernel's reaper did. It frees a victim's memory if the victim does not end within 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reaper {
    /// It reported nothing about any victim.
    NotNeeded,
    /// It freed the memory of a victim.
    Reaped,
    /// It could not free the memory of a victim.
    Failed,
}
