//! A signal that ended processes, and who sent it: the end that is not the OOM killer's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Cgroup, Container, Envelope, K8s, Missing, OomCgroup, RuntimeName, Systemd, TIME_PATTERN, is_empty,
};

/// Processes of one cgroup were sent SIGKILL by one process, in one way, within a second. It was not the OOM killer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignalKill {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The signal.
    pub signal: Signal,
    /// How it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// How many signals: one for each process, unless a process got several before it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// The first process that got it.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub target: SignalTarget,
    /// Who sent it: the last hop, not who asked for it. Absent where the kernel sent it by itself.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub sender: SignalSender,
    /// What kind of program the sender is, by its unit and its executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killer: Option<Killer>,
    /// True where the killer's own count of kills on the cgroup grew (`user.oomd_kill`, `user.oomd_ooms`): of `systemd-oomd` and
    /// `oomd` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killer_confirmed: Option<bool>,
    /// How long before it the same process got SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigterm_before_ns: Option<u64>,
    /// Who sent that SIGTERM.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub sigterm_sender: SigtermSender,
    /// The target's memory cgroup, or the nearest above it that has a limit.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: OomCgroup,
    /// How full the host was: only of a killer that acts because memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_memory: Option<HostMemoryThen>,
    /// The target's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The target's Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s>,
    /// The target's systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Keys whose text was cut so that the line stays under 4096 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// Why facts are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Missing,
}

impl SignalKill {
    /// Whether a killer sent it that acts because memory is short.
    pub fn is_for_memory(&self) -> bool {
        self.killer.is_some_and(Killer::is_for_memory)
    }
}

/// A signal that ends processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// SIGKILL.
    #[serde(rename = "SIGKILL")]
    Kill,
    /// SIGTERM: only of a killer that begins with it because memory is short.
    #[serde(rename = "SIGTERM")]
    Term,
}

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Term => "SIGTERM",
        }
    }
}

/// How a signal was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// `kill(2)`, or what does the same.
    Kill,
    /// `tgkill(2)` or `tkill(2)`: to one thread.
    Tgkill,
    /// A write to `cgroup.kill`.
    #[serde(rename = "cgroup.kill")]
    CgroupKill,
    /// The first process of a pid namespace ended, and all others in it with it.
    PidNamespaceEnded,
    /// The kernel itself, for another reason than memory that ran out: a limit of processor time, broken memory, sysrq.
    Kernel,
}

/// What kind of program sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Killer {
    /// systemd-oomd.
    SystemdOomd,
    /// oomd.
    Oomd,
    /// earlyoom.
    Earlyoom,
    /// nohang.
    Nohang,
    /// A container runtime: runc, crun, a shim, a monitor, a daemon.
    Runtime,
    /// The kubelet.
    Kubelet,
    /// systemd: the host's, or a user's.
    Systemd,
    /// Somebody in the same container or unit.
    Inside,
    /// Another one.
    Other,
}

impl Killer {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SystemdOomd,
        Self::Oomd,
        Self::Earlyoom,
        Self::Nohang,
        Self::Runtime,
        Self::Kubelet,
        Self::Systemd,
        Self::Inside,
        Self::Other,
    ];

    /// Whether it acts because memory is short.
    pub fn is_for_memory(self) -> bool {
        matches!(self, Self::SystemdOomd | Self::Oomd | Self::Earlyoom | Self::Nohang)
    }
}

/// How full the host was shortly after a signal (`/proc/meminfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostMemoryThen {
    /// How long after the signal it was read: what was given back by then is available already.
    pub after_ns: u64,
    /// `MemTotal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// `MemAvailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// `SwapTotal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_total_bytes: Option<u64>,
    /// `SwapFree`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_free_bytes: Option<u64>,
}

/// Who got a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct SignalTarget {
    /// Process id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The process's id in its own pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
    /// `task->comm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// User id in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// When the process started; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time", "pattern" = TIME_PATTERN))]
    pub start_time: Option<String>,
    /// Its cgroup of the memory hierarchy.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
}

/// Who sent a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct SignalSender {
    /// Process id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `task->comm`: chosen by the process itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// `/proc/PID/exe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// User id in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name of its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_comm: Option<String>,
    /// Its cgroup of the memory hierarchy.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cgroup: Cgroup,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<SenderContainer>,
    /// Its systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
}

/// The container of who sent a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SenderContainer {
    /// The runtime's id.
    pub id: String,
    /// The runtime's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The runtime.
    pub runtime: RuntimeName,
}

impl From<Container> for SenderContainer {
    fn from(container: Container) -> Self {
        Self { id: container.id, name: container.name, runtime: container.runtime }
    }
}

/// Who sent the SIGTERM before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct SigtermSender {
    /// Process id in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `task->comm`: chosen by the process itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// User id in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}
