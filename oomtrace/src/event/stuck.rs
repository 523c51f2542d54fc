//! A victim that does not end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Container, Envelope, IncidentVictim, K8s, Missing, Reaper, Systemd, is_empty};

/// Victims of one run of the OOM killer that are still there: written 5 s and 60 s after its last kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stuck {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of the run's kills, the first 64.
    pub of: Vec<u64>,
    /// From the first mark of those still there until this.
    pub after_ns: u64,
    /// How many processes are still there. Those that share a victim's memory count.
    pub still_there: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub victim: IncidentVictim,
    /// How many threads it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_count: Option<u64>,
    /// Up to eight of its threads, first those in an uninterruptible wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<StuckThread>,
    /// Whether the kernel's reaper freed memory of these processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaper: Option<Reaper>,
    /// The container of the first victim of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The Kubernetes pod of the first victim of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The systemd unit of the first victim of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// A thread of a process that does not end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StuckThread {
    /// Its id.
    pub tid: u32,
    /// The kernel's letter: `D` is an uninterruptible wait, `R` runs, `Z` has ended.
    #[schemars(extend("pattern" = "^[A-Za-z]$"))]
    pub state: String,
    /// The function of the kernel in which it waits. Absent if it does not wait, or the kernel does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wchan: Option<String>,
}
