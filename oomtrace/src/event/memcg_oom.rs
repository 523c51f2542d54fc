//! A memory cgroup that ran out of memory without a victim.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Container, Envelope, K8s, Missing, OomCgroup, Systemd, Trigger, is_empty};

/// A memory cgroup ran out of memory and the OOM killer ended without a victim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemcgOom {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Whose limit fired.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: OomCgroup,
    /// Allocation order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
    /// Allocation flags by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gfp_mask: Option<String>,
    /// Allocation flags as a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gfp_mask_raw: Option<u32>,
    /// The task in whose context the killer ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Why nobody was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<MemcgOomOutcome>,
    /// The cgroup's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The cgroup's Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The cgroup's systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// Why a run of the killer ended without a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemcgOomOutcome {
    /// Nothing in the cgroup may be killed.
    NoKillableProcess,
    /// Enough memory was released before the OOM killer ran.
    Relieved,
    /// cgroup v1 `oom_kill_disable`: the tasks now hang.
    KillDisabled,
}
