//! What the kernel's OOM killer did: kills, processes that died with a victim, and runs without a victim.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Cgroup, Container, Envelope, K8s, Missing, Systemd, TIME_PATTERN, VictimCgroup, is_empty, word,
};

/// The kernel's OOM killer chose and killed a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OomKill {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The run of the OOM killer.
    pub oom: Oom,
    /// The process that was killed.
    pub victim: Victim,
    /// The task in whose context the killer ran; not the victim's fault, and not always in its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// The victim's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The victim's Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The victim's systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

impl OomKill {
    /// Names the run of the OOM killer within its stream: `oom.id`; of a kill without one, its `seq`.
    pub fn run(&self) -> u64 {
        self.oom.id.or(self.envelope.seq).unwrap_or_default()
    }

    /// Whether it was seen live, and a process was killed. A kill that is only in the log is old, and a victim that was exiting anyway
    /// was not killed.
    pub fn is_live_kill(&self) -> bool {
        self.envelope.seq.is_some() && self.oom.kill != Some(Kill::AlreadyExiting)
    }
}

/// One run of the OOM killer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oom {
    /// One per run of the killer: the `seq` of its first victim. The victims of one group kill share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// What ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The kernel's name for the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Why this process became the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<Kill>,
    /// Allocation order, 2^order pages; -1 for sysrq.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<i32>,
    /// Allocation flags by name, joined with `|`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gfp_mask: Option<String>,
    /// Allocation flags as the number they are in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gfp_mask_raw: Option<u32>,
    /// The size the killer worked against (`oom_control.totalpages`): not the victim's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_bytes: Option<u64>,
    /// Where the facts come from that the tracepoint does not carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Whose limit fired; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<OomCgroup>,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A memory cgroup's limit.
    Memcg,
    /// The machine.
    Host,
    /// The nodes of a cpuset.
    Cpuset,
    /// The nodes of a memory policy.
    Mempolicy,
}

impl Scope {
    /// The word, as in a line.
    pub fn word(self) -> String {
        word(self)
    }
}

/// `enum oom_constraint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Constraint {
    /// The machine.
    #[serde(rename = "CONSTRAINT_NONE")]
    None,
    /// The nodes of a cpuset.
    #[serde(rename = "CONSTRAINT_CPUSET")]
    Cpuset,
    /// The nodes of a memory policy.
    #[serde(rename = "CONSTRAINT_MEMORY_POLICY")]
    MemoryPolicy,
    /// A memory cgroup's limit.
    #[serde(rename = "CONSTRAINT_MEMCG")]
    Memcg,
}

impl Constraint {
    /// What ran out under this constraint.
    pub fn scope(self) -> Scope {
        match self {
            Self::None => Scope::Host,
            Self::Cpuset => Scope::Cpuset,
            Self::MemoryPolicy => Scope::Mempolicy,
            Self::Memcg => Scope::Memcg,
        }
    }
}

/// Why a process became the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kill {
    /// Chosen by its score.
    Selected,
    /// Killed with its group (`memory.oom.group`).
    Group,
    /// The task that was allocating (`vm.oom_kill_allocating_task`).
    AllocatingTask,
    /// Asked for by sysrq f.
    Sysrq,
    /// Already exiting: marked so that it may use the reserves; no kill was made, no kernel counter moved.
    AlreadyExiting,
}

/// Where facts of `oom` come from that the tracepoint does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Read from the killer's own state by a fentry program.
    Fentry,
    /// Read from the killer's own state by a kprobe.
    Kprobe,
    /// The killer's own state, found in the kernel stack of the task that ran it.
    Stack,
    /// The kernel log's `oom-kill:` line for this victim.
    KernelLog,
}

/// The cgroup whose limit fired: it need not be the victim's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OomCgroup {
    /// Which.
    #[serde(flatten)]
    pub cgroup: Cgroup,
    /// `memory.max`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// `memory.current` at the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// `memory.peak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// `memory.swap.max`; cgroup v2 only; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_limit_bytes: Option<u64>,
    /// `memory.swap.current`; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_usage_bytes: Option<u64>,
    /// `memory.memsw.limit_in_bytes`, memory and swap together; cgroup v1 only; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memsw_limit_bytes: Option<u64>,
    /// `memory.memsw.usage_in_bytes`, memory and swap together; cgroup v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memsw_usage_bytes: Option<u64>,
    /// `memory.oom.group`; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_group: Option<bool>,
    /// The cgroup's memory events so far, read in the kernel at the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<MemoryEvents>,
}

/// `memory.events`: counts since the cgroup was made. On cgroup v1 each counts for the cgroup alone, not for what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryEvents {
    /// Reclaimed although under `memory.low`; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<u64>,
    /// Throttled over `memory.high`; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<u64>,
    /// An allocation was about to go over the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// The limit was reached and an allocation was about to fail; may rise without a kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<u64>,
    /// Processes killed by any kind of OOM killer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// Group kills; from kernel 5.17; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_group_kill: Option<u64>,
}

/// The process that was killed, as it was when the kernel marked it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Victim {
    /// Process (thread-group) id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The thread that the kernel names in its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// The process's id in its own pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
    /// Its parent's process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    /// `task->comm`: at most 15 bytes, chosen by the process itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// `/proc/PID/exe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// `/proc/PID/cmdline`, NULs as spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// User id in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// When the process started; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub start_time: Option<String>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Threads of the process (`signal_struct.nr_threads`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// `oom_badness()` at the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_bytes: Option<i64>,
    /// Its memory.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub memory: VictimMemory,
    /// Its cgroup of the memory hierarchy.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: VictimCgroup,
}

/// The victim's memory when it was marked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct VictimMemory {
    /// anon + file + shmem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// `MM_ANONPAGES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_rss_bytes: Option<u64>,
    /// `MM_FILEPAGES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_rss_bytes: Option<u64>,
    /// `MM_SHMEMPAGES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_rss_bytes: Option<u64>,
    /// `MM_SWAPENTS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Page tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgtables_bytes: Option<u64>,
    /// Address space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_vm_bytes: Option<u64>,
}

/// The task in whose context the killer ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trigger {
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `task->comm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Its cgroup of the memory hierarchy.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
}

/// A process died with a victim because it shares its memory. The kernel neither counts nor logs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SharedMmKill {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of the victim, as a list of one.
    pub of: Vec<u64>,
    /// The process that died too.
    pub victim: SharedMmVictim,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Its Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// Its systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

/// A process that shares a victim's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedMmVictim {
    /// Process id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The process's id in its own pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
    /// Its parent's process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    /// `task->comm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// User id in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// When the process started; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub start_time: Option<String>,
    /// Its cgroup of the memory hierarchy.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
}
