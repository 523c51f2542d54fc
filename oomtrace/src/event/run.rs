//! Lines about oomtrace itself: how a run begins and ends, and what was lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Envelope, TIME_PATTERN, word};

/// First line of every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// oomtrace's version.
    pub version: String,
    /// Unique to this run.
    pub instance: String,
    /// The kernel hooks and how each is attached.
    pub hooks: Vec<HookStatus>,
    /// Where memory cgroups are.
    pub cgroup_version: CgroupVersion,
    /// Container runtimes found on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<String>,
    /// True when programs were taken over that an earlier run had left attached.
    pub resumed: bool,
    /// What oomtrace cannot know on this host, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// A kernel hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookStatus {
    /// The tracepoint, the function, or `sample_cgroups`: the program that reads all memory cgroups.
    pub name: String,
    /// `raw_tracepoint`, `fentry`, `fexit`, `kprobe`, `kretprobe`, `test_run` (oomtrace runs it) or `none`.
    pub attached: String,
    /// Why it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl HookStatus {
    /// An attached hook that does not run, for this reason. It is reported as not attached.
    pub fn silent(self, why: &str) -> Self {
        let attached = self.attached;
        Self { attached: "none".into(), reason: Some(format!("attached as {attached}, and {why}")), ..self }
    }

    /// Whether it is a hook on a function, and attached.
    pub fn is_on_function(&self) -> bool {
        matches!(self.attached.as_str(), "fentry" | "fexit" | "kprobe" | "kretprobe")
    }
}

/// Where memory cgroups are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CgroupVersion {
    /// Memory is a v1 hierarchy and nothing is on v2.
    V1,
    /// Memory is on the unified hierarchy.
    V2,
    /// Memory is a v1 hierarchy beside a v2 one.
    Hybrid,
    /// This kernel has no memory cgroups, or they are off.
    None,
}

/// Events, lines or names were lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// How many since the last line with this reason.
    pub count: u64,
    /// Why.
    pub reason: LossReason,
    /// How many with this reason since the programs were attached. A line that is written twice has the same
    /// number.
    pub total: u64,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// Why something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// Kill events: the kill ring was full.
    RingFull,
    /// Events without a `seq` (`memcg_oom`): the kill ring was full.
    UnnumberedRingFull,
    /// `signal_kill` events: their ring was full.
    SignalRingFull,
    /// Cgroup changes: the cgroup ring was full, so names may be unknown.
    CgroupRingFull,
    /// Kill events: the kernel side had no buffer to build them in.
    NoScratch,
    /// Kill events: a record could not be read.
    UnreadableRecord,
    /// Lines: the output refused them.
    Sink,
    /// Cgroups: there was no room to keep them, or the kernel cut their path, so names may be unknown.
    CgroupNotKept,
    /// Names of containers in kills: the share of one user, service or container was used up.
    NameNotRead,
    /// Verdicts: too many kills waited for their verdict.
    VerdictQueueFull,
    /// Incidents, or kills in them: too many victims were waited for.
    IncidentQueueFull,
    /// Kill events: `seq` jumped and no counter says why.
    Unexplained,
    /// Entries of `--journal`: journald was not there, or took none for so long that no more could be kept. The other output has
    /// these lines.
    Journal,
}

impl LossReason {
    /// All of them, in the order of `docs/EVENTS.md`.
    pub const ALL: [Self; 13] = [
        Self::RingFull,
        Self::NoScratch,
        Self::UnreadableRecord,
        Self::Unexplained,
        Self::UnnumberedRingFull,
        Self::SignalRingFull,
        Self::CgroupRingFull,
        Self::CgroupNotKept,
        Self::NameNotRead,
        Self::Sink,
        Self::VerdictQueueFull,
        Self::IncidentQueueFull,
        Self::Journal,
    ];

    /// Whether a run goes on with the total of the run whose programs it took over.
    pub fn goes_on(self) -> bool {
        !matches!(self, Self::CgroupNotKept | Self::NameNotRead | Self::IncidentQueueFull | Self::Journal)
    }

    /// The word, as a line has it.
    pub fn word(self) -> String {
        word(self)
    }
}

/// The function hooks turned out not to run, or to run again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hooks {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Whether the attached function hooks run.
    pub state: HooksState,
    /// What oomtrace cannot know from here on, as in the `limits` of `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// Whether the attached function hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HooksState {
    /// They do not run: a kill happened that they did not see.
    Silent,
    /// They run again.
    Running,
}

/// The kernel's own counter grew by more than what was reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Growth of `oom_kill` in `/proc/vmstat`.
    pub kernel_kills: u64,
    /// Kills reported, passes of group kills included.
    pub reported: u64,
    /// Start of the time that the counts cover; RFC 3339.
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub since: String,
    /// Cgroups whose own counters show unreported kills, the largest difference first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<GapCgroup>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// A cgroup whose counter grew by more than what was reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GapCgroup {
    /// Its path.
    pub path: String,
    /// Growth of its `oom_kill`: on v2 including the cgroups below it, on v1 of the cgroup alone.
    pub kernel_kills: u64,
    /// Reported kills in it.
    pub reported: u64,
}

/// Last line of a run that ended in an orderly way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stop {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// What ended the run: `SIGINT`, `SIGTERM`, `count`, `timeout`.
    pub reason: String,
    /// Events printed in this run.
    pub events: u64,
    /// Events that this run lost.
    pub lost: u64,
    /// Signals in this run that ended processes and have no line: consequences, and what `--signals` leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals_left_out: Option<u64>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}
