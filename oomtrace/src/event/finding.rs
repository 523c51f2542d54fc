//! What stands out in an incident: a fixed word and its numbers, no prose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that stands out. Each is an exact condition on facts of this run; if one of them is not known, it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Which.
    pub id: FindingId,
    /// The size that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The largest part of these bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The process that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `task->comm` of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Of that process: -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The option of the victim's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option: Option<HeapOption>,
    /// What the option says, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
    /// The allocation that failed was of 2^order pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
}

impl Finding {
    /// One without numbers.
    pub fn new(id: FindingId) -> Self {
        Self {
            id,
            bytes: None,
            part: None,
            pid: None,
            comm: None,
            oom_score_adj: None,
            option: None,
            percent: None,
            order: None,
        }
    }

    /// One with a size.
    pub fn of_bytes(id: FindingId, bytes: u64) -> Self {
        Self { bytes: Some(bytes), ..Self::new(id) }
    }
}

/// Which finding. `docs/EVENTS.md` has the conditions as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingId {
    /// `anon_bytes` is at least 90 % of the limit.
    AnonFillsLimit,
    /// `shmem_bytes` is at least 25 % of the limit.
    ShmemLarge,
    /// The kernel's own memory and the buffers of sockets are at least 25 % of the limit.
    KernelLarge,
    /// Page cache that could have been dropped is at least 25 % of the limit.
    CachePresent,
    /// Nothing could be swapped out.
    NoSwap,
    /// The limit is that of a cgroup above the victim's container.
    LimitAboveVictim,
    /// A larger process was there and was not chosen.
    Bystander,
    /// The largest process has an `oom_score_adj` of -900 or less.
    ProtectedLargest,
    /// All victims are gone, and the first process of the container is still there.
    ChildKilledContainerLives,
    /// An option of the victim's command line allows a heap that leaves little of the limit.
    HeapFlagOverLimit,
    /// After the victims had gone, at least half of the limit was still used.
    MemoryStays,
    /// The host ran out of memory for an allocation of more than one page, or with at least twice `min` free.
    HostNotFull,
}

/// A part of the kernel's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Kernel stacks of threads.
    KernelStack,
    /// Page tables.
    Pagetables,
    /// Slab that can be reclaimed.
    SlabReclaimable,
    /// Other slab.
    SlabUnreclaimable,
    /// Buffers of sockets.
    Sock,
    /// Memory for each processor.
    Percpu,
}

/// An option that sets the size of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HeapOption {
    /// Java: the heap's size.
    #[serde(rename = "-Xmx")]
    Xmx,
    /// Java: the heap's size as a share of the limit.
    #[serde(rename = "-XX:MaxRAMPercentage")]
    MaxRamPercentage,
    /// Node.js: the size of the old generation.
    #[serde(rename = "--max-old-space-size")]
    MaxOldSpaceSize,
}
