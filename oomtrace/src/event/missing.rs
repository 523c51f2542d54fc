//! Why facts are absent: the list `missing` of a line.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::word;

/// The facts of a line that are not known, sorted by key.
pub type Missing = Vec<Absence>;

/// A fact that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Absence {
    /// The dotted path of the key that is absent, or that stands for all below it.
    pub key: Cow<'static, str>,
    /// Why, as one of the fixed words.
    pub reason: Reason,
    /// What differs from case to case: an error, an id, a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'static, str>>,
}

impl Absence {
    /// `key` is absent because of `why`.
    pub fn new(key: &'static str, why: impl Into<Why>) -> Self {
        let Why { reason, detail } = why.into();
        Self { key: Cow::Borrowed(key), reason, detail }
    }
}

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// One of the fixed words.
    pub reason: Reason,
    /// What differs from case to case.
    pub detail: Option<Cow<'static, str>>,
}

impl Why {
    /// The fixed word, and what differs from case to case.
    pub fn with(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

/// Why a fact is absent. `docs/EVENTS.md` has the words and their meaning as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The eBPF programs did not read it: this kernel does not have it, or the read failed.
    NotReadInKernel,
    /// The eBPF programs read a limited number of ancestors, and this one is above them.
    TooDeep,
    /// The OOM killer had not computed it yet when the function hook read it.
    NotYetComputed,
    /// Only the killer's own state has it: no function hook read that, and it was not found in the kernel stack.
    NoFunctionHook,
    /// As `no_function_hook`, and the kernel log has no `oom-kill:` line of this kill.
    NoHookAndNoLogLine,
    /// The cgroup is not among the victim's ancestors that were read.
    NotAnAncestor,
    /// No cgroup's limit fired.
    NoLimitFired,
    /// The cgroup has no such limit (`max`).
    NoLimit,
    /// This kernel publishes no names of its allocation flags.
    NoFlagNames,
    /// The allocating task is killed whatever its score is.
    AllocatingTask,
    /// The victim was exiting already: no score was computed.
    AlreadyExiting,
    /// The victim was killed with its group. This fact is known only of the process that was chosen.
    NotTheChosen,
    /// `memory.oom.group` is set above the victim's cgroup. It is not known if that is at or below the cgroup
    /// whose limit fired.
    GroupOrSelected,
    /// It is not known whether the kernel sent a SIGKILL.
    SignalUnknown,
    /// `vm.oom_kill_allocating_task` cannot be read.
    SysctlUnreadable,
    /// This version does not know the kernel's value.
    UnknownValue,
    /// The number is above 2^53 or below -2^53: `detail` has it.
    NumberTooLarge,
    /// The kernel log does not have it.
    NotInKernelLog,
    /// The kernel left out its report of this kill: it writes at most ten in five seconds.
    LogRateLimited,
    /// The kernel log could not be read.
    KernelLogUnreadable,
    /// A name in the kernel log's line contains a comma, so its parts cannot be separated.
    AmbiguousLogLine,
    /// The kill happened before the programs were attached.
    BeforeStart,
    /// The time is by the kernel log's own clock, which drifts and stops in suspend.
    LogClock,
    /// The time is when a log daemon read the kernel's line.
    LogDaemonClock,
    /// The time is the local time of the log's host as if it were UTC: a saved log does not name its time zone. If it does not name
    /// the year either, this is the latest year in which the time is not in the future.
    LogLocalTime,
    /// The time counts from the host's boot as if that had been at 1970-01-01T00:00:00Z: a saved log does not say when the host
    /// booted.
    LogSinceBoot,
    /// The clock was set at about that time, or between two runs, so the time may be of either clock.
    ClockSet,
    /// The cgroup's files do not have it.
    NotInCgroupFiles,
    /// The cgroup's file could not be read.
    CgroupFileUnreadable,
    /// The memory was already being released, or had changed, when the cgroup's file was read.
    MemoryChanged,
    /// Together the parts are less than three quarters of the usage: the kernel's counters were behind, or there is memory in none of
    /// them.
    CountersBehind,
    /// The usage before the kill was recorded for too short a time.
    RecordedTooShort,
    /// No sample of the cgroup was taken.
    NotSampled,
    /// The limit was changed after the last sample.
    LimitChanged,
    /// This kernel has no memory cgroups, or they are off.
    NoMemoryCgroups,
    /// The walk over all memory cgroups did not get to its end: `detail` says why.
    CgroupsNotRead,
    /// The path of the cgroup is not known: it was made before oomtrace could see it, or it is too deep.
    CgroupPathUnknown,
    /// The kernel counts no tasks in the root cgroup.
    RootCgroup,
    /// The cgroup is in another hierarchy than memory. oomtrace follows only that one.
    OtherHierarchy,
    /// The process was gone.
    ProcessGone,
    /// A victim was still there 5 s after the kill.
    StillThere,
    /// Too many victims were watched already.
    TooManyVictims,
    /// The process had already released its memory.
    MemoryReleased,
    /// Another process has the pid now.
    PidReused,
    /// The process has no command line: it was overwritten, or released with the memory.
    Empty,
    /// `/proc` did not answer in time.
    ProcTooSlow,
    /// A read of an earlier victim's `/proc` files is still pending.
    ProcBusy,
    /// `/proc` returned an error, or something that cannot be parsed.
    ProcUnreadable,
    /// The victim's start time is not known, so a later process with the same pid would look the same.
    StartTimeUnknown,
    /// The victim started in the same 10 ms in which it was killed, so a later process with the same pid
    /// would look the same.
    StartedJustBefore,
    /// `/proc` belongs to another pid namespace than the kernel's first, so its pids are not the kernel's.
    OtherPidNamespace,
    /// An option says to leave it out.
    LeftOut,
    /// It was not read.
    NotRead,
    /// The cgroup is not named like a container's.
    NotAContainer,
    /// The cgroup is a pod's, not one container's.
    PodCgroup,
    /// The container is a pod's sandbox, which has no name.
    Sandbox,
    /// No runtime of this host knows the container.
    ContainerUnknown,
    /// The runtime says that the container of this name has its cgroup elsewhere.
    ContainerElsewhere,
    /// The cgroup is below a service or scope, where any process may have made and named it.
    CgroupDelegated,
    /// The cgroup is below a user's slice, where no kubelet runs.
    CgroupOfUser,
    /// More cgroups on the path are named like containers than oomtrace looks up.
    TooManyContainers,
    /// The share of one user, service or container was used up: of time or of memory (`detail`).
    ShareUsedUp,
    /// A file or directory of the runtime could not be read.
    RuntimeFileUnreadable,
    /// The runtime's files do not have it, or only a text of over 1024 bytes.
    NotInRuntimeFiles,
    /// The runtime does not know the container any more.
    ContainerGone,
    /// The runtime's state could not be read.
    RuntimeUnreadable,
}

impl Reason {
    /// The word, as in a line.
    pub fn word(self) -> String {
        word(self)
    }
}
