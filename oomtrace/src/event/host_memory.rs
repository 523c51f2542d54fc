//! A host, or some of its nodes, that ran out of memory: what the memory was, and whose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Container, Envelope, K8s, Lru, Missing, Scope, Systemd, is_empty};

/// One run of the OOM killer for which no cgroup's limit fired: whose memory it was. Written with its `incident`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostMemory {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of its kills, the first 64.
    pub of: Vec<u64>,
    /// How many processes it killed.
    pub killed: u64,
    /// What ran out: never `memcg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The allocation that failed was of 2^order pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
    /// The process that was killed first.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub victim: HostVictim,
    /// What the memory of the whole host was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<HostTotals>,
    /// What is charged to memory cgroups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charged: Option<Charged>,
    /// The largest of those who use it, the largest first. None is part of another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopUser>,
    /// Whether the first victim was of the largest of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killed_largest: Option<bool>,
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
pub struct HostVictim {
    /// Process id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `task->comm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// What its container, unit or cgroup used at the kill, read by the kernel side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
}

/// What the memory of the host was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostTotals {
    /// Where it comes from.
    pub evidence: HostEvidence,
    /// All memory that the kernel manages: `MemTotal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Free pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Pages by the kernel's list of them.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub lru: Lru,
    /// Page cache, with tmpfs, shared memory and swap cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// tmpfs and shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// Slab that can be reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_reclaimable_bytes: Option<u64>,
    /// Other slab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_unreclaimable_bytes: Option<u64>,
    /// Page tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagetables_bytes: Option<u64>,
    /// Kernel stacks of threads: `KernelStack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_stack_bytes: Option<u64>,
    /// Memory that the kernel maps page by page: `VmallocUsed`. Kernel stacks are in it on most kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmalloc_bytes: Option<u64>,
    /// Memory for each processor: `Percpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percpu_bytes: Option<u64>,
    /// Huge pages that are set aside, used or not: `Hugetlb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_bytes: Option<u64>,
    /// Swap in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_total_bytes: Option<u64>,
    /// Swap that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_free_bytes: Option<u64>,
    /// What is in none of these: pages of drivers, a balloon, the ZFS cache, and what processors hold back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unexplained_bytes: Option<u64>,
}

/// Where the memory of the host comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostEvidence {
    /// The kernel's own report of this run, written before the kill.
    #[default]
    KernelLog,
    /// `/proc/meminfo`, read after the kill: the victim may have released memory.
    Meminfo,
}

/// What is charged to memory cgroups, by a walk over all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Charged {
    /// Where it comes from.
    pub evidence: ChargedEvidence,
    /// From the first mark until the walk was done. Meanwhile the victim may have released memory.
    pub after_ns: u64,
    /// How many cgroups there are, without the root and with removed ones.
    pub cgroups: u64,
    /// What is charged to them together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Removed cgroups that still hold memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<RemovedCgroups>,
}

/// Where the usage of cgroups comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChargedEvidence {
    /// The kernel's own counters.
    #[default]
    Kernel,
    /// The cgroups' files.
    Cgroupfs,
}

/// Removed cgroups that still hold memory. No directory shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedCgroups {
    /// How many there are.
    pub count: u64,
    /// What they hold together.
    pub usage_bytes: u64,
}

/// One that uses memory: a container, a unit, a user, a removed cgroup, or another cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopUser {
    /// What is charged to it.
    pub usage_bytes: u64,
    /// Its own `memory.max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Its own `memory.max` is not set. Absent if it is, or is not known.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub unlimited: bool,
    /// The first victim was in it. Its usage is then that at the kill, read by the kernel side.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub killed: bool,
    /// It was removed and still holds memory.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub removed: bool,
    /// The usage is without that of the cgroups below it.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub without_below: bool,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Path of its cgroup, where it has neither a container nor a unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Id of its cgroup, as a decimal string.
    #[schemars(extend("pattern" = "^[0-9]{1,20}$"))]
    pub id: String,
}
