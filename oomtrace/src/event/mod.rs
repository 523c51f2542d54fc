//! The events that oomtrace prints, as types: the contract of `docs/EVENTS.md`.
//!
//! No I/O and no policy here. The docs of the fields become the descriptions in the JSON Schema (`oomtrace
//! schema`). A fact that is not known is `None`. The line has no key for it, and `missing` has the reason.

mod container;
mod finding;
mod history;
mod host_memory;
mod incident;
mod memcg_oom;
mod missing;
mod oom;
mod run;
pub mod schema;
mod service;
mod signal_kill;
mod stuck;
mod victim_cgroup;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use container::{
    Container, Image, K8s, K8sContainer, Name, Pod, Qos, RuntimeName, RuntimeSays, Systemd, Verdict,
    name_of_user,
};
pub use finding::{Finding, FindingId, HeapOption, Part};
pub use history::{
    Before, BeforeOf, FloorSlope, LastSample, Lifetimes, LimitFar, LimitNear, NearBecause, Recurrence, Shape,
    ToLimit, UnreclaimableBefore, Usage,
};
pub use host_memory::{
    Charged, ChargedEvidence, HostEvidence, HostMemory, HostTotals, HostVictim, RemovedCgroups, TopUser,
};
pub use incident::{
    CgroupMemory, Incident, IncidentCgroup, IncidentVictim, Lru, MemoryEvidence, ProcessTable, Reaper,
    Released, TableEvidence, TableRow,
};
pub use memcg_oom::{MemcgOom, MemcgOomOutcome};
pub use missing::{Absence, Missing, Reason, Why};
pub use oom::{
    Constraint, Evidence, Kill, MemoryEvents, Oom, OomCgroup, OomKill, Scope, SharedMmKill, SharedMmVictim,
    Trigger, Victim, VictimMemory,
};
pub use run::{CgroupVersion, Gap, GapCgroup, HookStatus, Hooks, HooksState, LossReason, Lost, Start, Stop};
pub use service::service;
pub use signal_kill::{
    HostMemoryThen, How, Killer, SenderContainer, Signal, SignalKill, SignalSender, SignalTarget,
    SigtermSender,
};
pub use stuck::{Stuck, StuckThread};
pub use victim_cgroup::{Tasks, VictimCgroup};

/// Most readers keep numbers as doubles. Above this a double cannot hold every integer.
pub const MAX_NUMBER: u64 = 1 << 53;

/// The value of `schema` in every line.
pub const SCHEMA: u32 = 1;

/// RFC 3339, UTC, with exactly nine fraction digits.
const TIME_PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$";

/// Text of the kernel: any bytes. Invalid UTF-8 becomes U+FFFD.
///
/// Control characters stay: the renderer escapes them.
pub fn text_from_kernel(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// First line of every run.
    Start(Box<Start>),
    /// The kernel's OOM killer chose and killed a process.
    OomKill(Box<OomKill>),
    /// A process died with a victim because it shares its memory.
    SharedMmKill(Box<SharedMmKill>),
    /// A memory cgroup ran out and the killer ended without a victim.
    MemcgOom(Box<MemcgOom>),
    /// Processes were sent a signal that ends them, and not by the OOM killer.
    SignalKill(Box<SignalKill>),
    /// One run of the OOM killer, when its victims are gone.
    Incident(Box<Incident>),
    /// A limit comes near.
    LimitNear(Box<LimitNear>),
    /// A limit that was near is far again.
    LimitFar(Box<LimitFar>),
    /// The limit of a service beside its use.
    Usage(Box<Usage>),
    /// One run of the OOM killer for which no cgroup's limit fired: whose memory it was.
    HostMemory(Box<HostMemory>),
    /// Victims of one run of the OOM killer are still there.
    Stuck(Box<Stuck>),
    /// Events, lines or names were lost.
    Lost(Box<Lost>),
    /// The kernel's own counter grew by more than what was reported.
    Gap(Box<Gap>),
    /// The function hooks do not run, or run again.
    Hooks(Box<Hooks>),
    /// What the container's runtime says afterwards about a kill already reported.
    Verdict(Box<Verdict>),
    /// Last line of a run that ended normally.
    Stop(Box<Stop>),
}

/// Whose process or cgroup an event is about, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner<'a> {
    /// Its container.
    pub container: Option<&'a Container>,
    /// Its pod.
    pub k8s: Option<&'a K8s>,
    /// Its unit.
    pub systemd: Option<&'a Systemd>,
}

impl Event {
    /// Each value of `type`.
    pub const KINDS: [&'static str; 16] = [
        "oom_kill",
        "shared_mm_kill",
        "memcg_oom",
        "signal_kill",
        "incident",
        "limit_near",
        "limit_far",
        "usage",
        "host_memory",
        "stuck",
        "start",
        "lost",
        "gap",
        "hooks",
        "verdict",
        "stop",
    ];

    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::OomKill(_) => "oom_kill",
            Self::SharedMmKill(_) => "shared_mm_kill",
            Self::MemcgOom(_) => "memcg_oom",
            Self::SignalKill(_) => "signal_kill",
            Self::Incident(_) => "incident",
            Self::LimitNear(_) => "limit_near",
            Self::LimitFar(_) => "limit_far",
            Self::Usage(_) => "usage",
            Self::HostMemory(_) => "host_memory",
            Self::Stuck(_) => "stuck",
            Self::Lost(_) => "lost",
            Self::Gap(_) => "gap",
            Self::Hooks(_) => "hooks",
            Self::Verdict(_) => "verdict",
            Self::Stop(_) => "stop",
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::OomKill(_)
            | Self::SharedMmKill(_)
            | Self::MemcgOom(_)
            | Self::Incident(_)
            | Self::HostMemory(_) => Severity::Error,
            Self::SignalKill(event) if event.is_for_memory() => Severity::Error,
            Self::Lost(_) | Self::Gap(_) | Self::LimitNear(_) | Self::Stuck(_) => Severity::Warning,
            Self::Hooks(event) if event.state == HooksState::Silent => Severity::Warning,
            Self::Start(_) | Self::SignalKill(_) | Self::Hooks(_) | Self::Verdict(_) | Self::Stop(_) => {
                Severity::Info
            }
            Self::LimitFar(_) | Self::Usage(_) => Severity::Info,
        }
    }

    /// Whose process or cgroup it is about.
    pub fn owner(&self) -> Owner<'_> {
        let (container, k8s, systemd) = match self {
            Self::OomKill(kill) => (kill.container.as_ref(), kill.k8s.as_ref(), kill.systemd.as_ref()),
            Self::SharedMmKill(kill) => (kill.container.as_ref(), kill.k8s.as_ref(), kill.systemd.as_ref()),
            Self::MemcgOom(oom) => (oom.container.as_ref(), oom.k8s.as_ref(), oom.systemd.as_ref()),
            Self::SignalKill(kill) => (kill.container.as_ref(), kill.k8s.as_ref(), kill.systemd.as_ref()),
            Self::Incident(incident) => {
                (incident.container.as_ref(), incident.k8s.as_ref(), incident.systemd.as_ref())
            }
            Self::LimitNear(near) => (near.container.as_ref(), near.k8s.as_ref(), near.systemd.as_ref()),
            Self::LimitFar(far) => (far.container.as_ref(), far.k8s.as_ref(), far.systemd.as_ref()),
            Self::Usage(usage) => (usage.container.as_ref(), usage.k8s.as_ref(), usage.systemd.as_ref()),
            Self::HostMemory(host) => (host.container.as_ref(), host.k8s.as_ref(), host.systemd.as_ref()),
            Self::Stuck(stuck) => (stuck.container.as_ref(), stuck.k8s.as_ref(), stuck.systemd.as_ref()),
            Self::Verdict(verdict) => (Some(&verdict.container), None, None),
            Self::Start(_) | Self::Lost(_) | Self::Gap(_) | Self::Hooks(_) | Self::Stop(_) => {
                (None, None, None)
            }
        };
        Owner { container, k8s, systemd }
    }

    /// The numbers of the kills that it is about, in its own stream.
    pub fn of(&self) -> &[u64] {
        match self {
            Self::SharedMmKill(event) => &event.of,
            Self::Incident(event) => &event.of,
            Self::HostMemory(event) => &event.of,
            Self::Stuck(event) => &event.of,
            Self::Verdict(event) => &event.of,
            _ => &[],
        }
    }

    /// The part that every line starts with.
    pub fn envelope(&self) -> &Envelope {
        match self {
            Self::Start(event) => &event.envelope,
            Self::OomKill(event) => &event.envelope,
            Self::SharedMmKill(event) => &event.envelope,
            Self::MemcgOom(event) => &event.envelope,
            Self::SignalKill(event) => &event.envelope,
            Self::Incident(event) => &event.envelope,
            Self::LimitNear(event) => &event.envelope,
            Self::LimitFar(event) => &event.envelope,
            Self::Usage(event) => &event.envelope,
            Self::HostMemory(event) => &event.envelope,
            Self::Stuck(event) => &event.envelope,
            Self::Lost(event) => &event.envelope,
            Self::Gap(event) => &event.envelope,
            Self::Hooks(event) => &event.envelope,
            Self::Verdict(event) => &event.envelope,
            Self::Stop(event) => &event.envelope,
        }
    }
}

/// The part that every line starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Always 1. Raised when a key is removed or changes its meaning.
    // This and the next three are written by `outputs::encode::json`, in the order of a line.
    #[serde(skip_serializing)]
    #[schemars(extend("const" = SCHEMA))]
    pub schema: u32,
    /// RFC 3339, UTC, nine fraction digits: when the kernel acted, not when the line was printed.
    #[serde(skip_serializing)]
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub time: String,
    /// The event in words, for a person: at most 200 bytes.
    // Set only in a line that was read back. A new line gets it from the rest of the event.
    #[serde(skip_serializing)]
    pub message: String,
    /// How bad it is.
    // As `message`.
    #[serde(skip_serializing)]
    pub severity: Severity,
    /// Counts the kernel's events since the programs were attached. A missing number is a lost event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Names the set of attached programs that counts `seq` and `of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Names a line without `seq`. Two lines with the same `id` are one line that was written twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where the event comes from.
    pub origin: Origin,
    /// The host. Absent only in a kill from a saved kernel log that says nothing about it.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub host: Host,
    /// The operator's constants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A kill, or a cgroup that ran out of memory.
    Error,
    /// Something may have happened that no line reports, a limit comes near, or a victim does not end.
    Warning,
    /// Everything else.
    #[default]
    Info,
}

impl Severity {
    /// Syslog's number.
    pub fn syslog(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
        }
    }
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Seen live by oomtrace's eBPF programs.
    Ebpf,
    /// Found afterwards in the kernel's log.
    Kmsg,
    /// oomtrace itself: start, stop, losses.
    Oomtrace,
    /// A container runtime's own state.
    Runtime,
    /// Found afterwards in a cgroup's own files.
    Cgroupfs,
}

/// The host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct Host {
    /// `uname -n`. Absent only in a kill from a saved kernel log that does not name the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `uname -r`. Absent only in a kill from a saved kernel log that does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// A cgroup of the memory hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct Cgroup {
    /// Path below the root of the memory hierarchy, starting with `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `kernfs_node.id`, the inode of its directory, as a decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,20}$"))]
    pub id: Option<String>,
}

impl Cgroup {
    /// Whether both are the same cgroup.
    pub fn is_same(&self, other: &Self) -> bool {
        is_same_cgroup(self.names(), other.names())
    }

    /// Its id and its path.
    fn names(&self) -> (Option<&str>, Option<&str>) {
        (self.id.as_deref(), self.path.as_deref())
    }
}

/// Whether these ids and paths are of the same cgroup. Paths are compared if an id is not known: the kernel's log has none.
pub fn is_same_cgroup(
    (id, path): (Option<&str>, Option<&str>),
    (other_id, other_path): (Option<&str>, Option<&str>),
) -> bool {
    match (id, other_id) {
        (Some(id), Some(other)) => id == other,
        _ => path.is_some() && path == other_path,
    }
}

/// The name of a variant without fields, as in a line.
fn word(variant: impl Serialize) -> String {
    serde_json::to_value(variant).ok().as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Whether nothing in a map is known; then it is absent.
pub(crate) fn is_empty<T: Default + PartialEq>(map: &T) -> bool {
    *map == T::default()
}
