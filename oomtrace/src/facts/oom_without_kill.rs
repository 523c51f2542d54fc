//! A memory cgroup that ran out without a kill, from its files.

use crate::facts::{CgroupId, Limit};

/// A memory cgroup that ran out without a kill, from its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomWithoutKill {
    /// The cgroup.
    pub id: CgroupId,
    /// Its path.
    pub path: Vec<u8>,
    /// Its limit.
    pub limit: Option<Limit>,
    /// v1 `oom_kill_disable`: its tasks hang.
    pub disabled: bool,
    /// `oom` and `oom_kill` of `memory.events.local` and `memory.events`.
    pub events: Option<(u64, u64)>,
}
