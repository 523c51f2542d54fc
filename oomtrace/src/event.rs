//! The events that oomtrace prints, as types: the contract of `docs/EVENTS.md`.
//!
//! No I/O and no policy here. The field docs become the descriptions of the JSON Schema
//! (`oomtrace schema`). A fact that is not known is `None`, leaves no key in the line, and
//! has its reason in `missing`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// The value of `schema` in every line.
pub const SCHEMA: u32 = 1;

/// RFC 3339, UTC, with exactly nine fraction digits.
const TIME_PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$";

/// Why facts are absent: dotted path of the key → reason.
pub type Missing = BTreeMap<String, String>;

/// Text of the kernel's: any bytes in, invalid UTF-8 becomes U+FFFD.
///
/// Control characters stay: to escape them is the renderer's part.
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
    /// Something could not be told.
    Lost(Box<Lost>),
    /// The kernel's own counter moved by more than what was reported.
    Gap(Box<Gap>),
    /// What the container's runtime says afterwards about a kill already reported.
    Verdict(Box<Verdict>),
    /// Last line of a run that ended in an orderly way.
    Stop(Box<Stop>),
}

impl Event {
    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::OomKill(_) => "oom_kill",
            Self::SharedMmKill(_) => "shared_mm_kill",
            Self::MemcgOom(_) => "memcg_oom",
            Self::Lost(_) => "lost",
            Self::Gap(_) => "gap",
            Self::Verdict(_) => "verdict",
            Self::Stop(_) => "stop",
        }
    }

    /// What the line starts with.
    pub fn envelope(&self) -> &Envelope {
        match self {
            Self::Start(event) => &event.envelope,
            Self::OomKill(event) => &event.envelope,
            Self::SharedMmKill(event) => &event.envelope,
            Self::MemcgOom(event) => &event.envelope,
            Self::Lost(event) => &event.envelope,
            Self::Gap(event) => &event.envelope,
            Self::Verdict(event) => &event.envelope,
            Self::Stop(event) => &event.envelope,
        }
    }
}

/// By hand, because the derived one puts `type` before `schema`.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a, T> {
            schema: u32,
            r#type: &'static str,
            #[serde(flatten)]
            event: &'a T,
        }
        fn line<T: Serialize, S: Serializer>(of: &Event, event: &T, to: S) -> Result<S::Ok, S::Error> {
            Line { schema: of.envelope().schema, r#type: of.kind(), event }.serialize(to)
        }
        match self {
            Self::Start(event) => line(self, event, serializer),
            Self::OomKill(event) => line(self, event, serializer),
            Self::SharedMmKill(event) => line(self, event, serializer),
            Self::MemcgOom(event) => line(self, event, serializer),
            Self::Lost(event) => line(self, event, serializer),
            Self::Gap(event) => line(self, event, serializer),
            Self::Verdict(event) => line(self, event, serializer),
            Self::Stop(event) => line(self, event, serializer),
        }
    }
}

/// What every line starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Always 1. Raised when a key is removed or changes its meaning.
    // `Event` writes it, ahead of `type`.
    #[serde(skip_serializing)]
    #[schemars(extend("const" = SCHEMA))]
    pub schema: u32,
    /// RFC 3339, UTC, nine fraction digits: when the kernel acted, not when the line was printed.
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub time: String,
    /// Counts every event since the programs were attached. A hole is a lost event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Where the event comes from.
    pub source: Source,
    /// The host.
    pub host: Host,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// `uname -n`.
    pub name: String,
    /// `/proc/sys/kernel/random/boot_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `uname -r`.
    pub kernel: String,
}

/// A cgroup of the memory hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    /// Path below the root of the memory hierarchy, starting with `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `kernfs_node.id`, the inode of its directory, as a decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,20}$"))]
    pub id: Option<String>,
}

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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: Missing,
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
    /// How the victim came to be one.
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

/// How a victim came to be one.
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
    /// The kernel log's `oom-kill:` line for this victim.
    KernelLog,
    /// The limits of the victim's ancestors: the nearest one that was full.
    MemcgWalk,
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
    /// `oom_badness()` at the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_bytes: Option<i64>,
    /// Its memory.
    pub memory: VictimMemory,
    /// Its cgroup of the memory hierarchy.
    pub cgroup: Cgroup,
}

/// The victim's memory when it was marked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    pub cgroup: Cgroup,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// The runtime's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The runtime.
    pub runtime: RuntimeName,
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// How often the runtime has restarted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u64>,
    /// Labels that say which service it belongs to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ids of further containers nested in this one, outermost first, which this host's runtimes do not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<String>,
}

/// The container's runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeName {
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `systemd-nspawn`.
    pub name: String,
}

/// The container's image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// As the container was asked for.
    pub name: String,
}

/// A Kubernetes container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8s {
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The pod.
    pub pod: Pod,
    /// The container, by its name in the pod's spec; absent for the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<K8sContainer>,
}

/// Something with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Name {
    /// The name.
    pub name: String,
}

/// A Kubernetes container, by its pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8sContainer {
    /// The name.
    pub name: String,
    /// How often it has been restarted in its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u64>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A systemd unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Systemd {
    /// The innermost unit that holds the victim.
    pub unit: String,
}

/// A process died with a victim because it shares its memory. The kernel neither counts nor logs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SharedMmKill {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of the victim.
    pub of: u64,
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
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
    pub cgroup: Cgroup,
}

/// A memory cgroup ran out and the killer ended without a victim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemcgOom {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Whose limit fired.
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: Missing,
}

/// Why a run of the killer ended without a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemcgOomOutcome {
    /// Nothing in the cgroup may be killed.
    NoKillableProcess,
    /// Somebody's exit freed enough.
    Relieved,
    /// cgroup v1 `oom_kill_disable`: the tasks now hang.
    KillDisabled,
}

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
    pub cgroup: CgroupVersion,
    /// Container runtimes found on the host.
    pub runtimes: Vec<String>,
    /// True when programs were taken over that an earlier run had left attached.
    pub resumed: bool,
    /// What this host keeps oomtrace from knowing, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// A kernel hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookStatus {
    /// The tracepoint or the function.
    pub name: String,
    /// `raw_tracepoint`, `fentry`, `fexit`, `kprobe`, `kretprobe` or `none`.
    pub attached: String,
    /// Why not, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
}

/// Something could not be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// How many since the last line with this reason.
    pub count: u64,
    /// Why.
    pub reason: LossReason,
    /// How many with this reason since the programs were attached. A line that comes twice has the same.
    pub total: u64,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// Why something could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// Kill events: the kill ring was full.
    RingFull,
    /// Cgroup changes: the cgroup ring was full, so names may be unknown.
    CgroupRingFull,
    /// Kill events: the kernel side had no buffer to build them in.
    NoScratch,
    /// Kill events: a record could not be read.
    UnreadableRecord,
    /// Lines: the output refused them.
    Sink,
    /// Verdicts: too many kills waited for theirs.
    VerdictQueueFull,
    /// Kill events: `seq` jumped and no counter says why.
    Unexplained,
}

/// The kernel's own counter moved by more than what was reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Growth of `oom_kill` in `/proc/vmstat`.
    pub kernel_kills: u64,
    /// Kills reported, passes of group kills included.
    pub reported: u64,
    /// Since when; RFC 3339.
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub since: String,
    /// Cgroups whose own counters say that kills in them were not reported, those with most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<GapCgroup>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// A cgroup whose counter moved by more than what was reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GapCgroup {
    /// Its path.
    pub path: String,
    /// Growth of its `oom_kill`: on v2 in it and below it, on v1 in it alone.
    pub kernel_kills: u64,
    /// Kills there that were reported.
    pub reported: u64,
}

/// What the container's runtime says afterwards about a kill already reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The `seq` of the kill.
    pub of: u64,
    /// The container.
    pub container: Container,
    /// What the runtime says; absent where it no longer knows the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_says: Option<RuntimeSays>,
    /// True when the runtime does not show an OOM kill.
    pub missed: bool,
    /// Containers that the runtime flags as OOM-killed without a kill of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub false_positive: Vec<String>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: Missing,
}

/// A runtime's view of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeSays {
    /// The runtime's OOM flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// The exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The runtime's word for the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
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
    /// Events that could not be told in this run.
    pub lost: u64,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}
