//! A signal that ended processes, and that was not the OOM killer's.

use super::{Header, MemcgLevel, Task};

/// `SIGKILL`.
pub const SIGKILL: u32 = 9;
/// `SIGTERM`.
pub const SIGTERM: u32 = 15;

/// [`SignalKill::how`]: `kill(2)` and what does the same.
pub const HOW_KILL: u32 = 1;
/// [`SignalKill::how`]: `tgkill(2)`, `tkill(2)`: to one thread, and so to its process.
pub const HOW_TGKILL: u32 = 2;
/// [`SignalKill::how`]: somebody wrote to `cgroup.kill`.
pub const HOW_CGROUP_KILL: u32 = 3;
/// [`SignalKill::how`]: the first process of a pid namespace ended, and all others in it with it.
pub const HOW_PID_NAMESPACE_ENDED: u32 = 4;
/// [`SignalKill::how`]: the kernel itself: a limit of processor time, memory that is broken, sysrq.
pub const HOW_KERNEL: u32 = 5;
/// [`SignalKill::how`]: not known. It says that the kernel sent it, and its own target may have said so.
pub const HOW_UNKNOWN: u32 = 6;

/// How many memory cgroups are read, from the target's up.
pub const SIGNAL_LEVELS: usize = 4;
/// Room for the name of an executable's file.
pub const EXECUTABLE_NAME_LEN: usize = 64;

/// A SIGTERM that came before.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Sigterm {
    /// When the process started that got it, `CLOCK_BOOTTIME` ns.
    pub start_ns: u64,
    /// When it was sent, `CLOCK_BOOTTIME` ns; 0 if none is known.
    pub sent_ns: u64,
    /// The sender's process id.
    pub sender_tgid: u32,
    /// The sender's user id, in the initial user namespace.
    pub sender_uid: u32,
    /// The sender's name, NUL-padded; any bytes.
    pub sender_comm: [u8; 16],
}

/// Processes that were sent SIGKILL (or, by a killer that is known to begin with it, SIGTERM): by one process, in one
/// way, in one cgroup, within a second. The first of them is `target`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct SignalKill {
    /// [`super::KIND_SIGNAL_KILL`]; its `seq` is 0, its time names it in the map of groups.
    pub header: Header,
    /// [`SIGKILL`] or [`SIGTERM`].
    pub signal: u32,
    /// One of the `HOW_*` constants.
    pub how: u32,
    /// Who got it.
    pub target: Task,
    /// Who sent it: the task in whose context the kernel did.
    pub sender: Task,
    /// The name of the sender's parent, NUL-padded; all NUL if it could not be read.
    pub parent_comm: [u8; 16],
    /// The name of the file that the sender runs, without its directory, NUL-terminated; empty if it could not be read.
    pub executable_name: [u8; EXECUTABLE_NAME_LEN],
    /// The last SIGTERM to a process with the target's id: the same process only if it started at the same time.
    pub sigterm: Sigterm,
    /// Entries used in `levels`.
    pub level_count: u32,
    /// Always 0.
    pub reserved: u32,
    /// The target's memory cgroup and those above it.
    pub levels: [MemcgLevel; SIGNAL_LEVELS],
}

/// Which signals are one group: the key of the map `SIGNAL_GROUPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct SignalKey {
    /// `kernfs_node.id` of the target's memory cgroup; 0 if it could not be read.
    pub cgroup_id: u64,
    /// The sender's process id.
    pub sender_tgid: u32,
    /// [`SignalKill::signal`].
    pub signal: u32,
    /// [`SignalKill::how`].
    pub how: u32,
    /// 1 where the target is the first process of its pid namespace: it is never hidden behind others.
    pub first_process: u32,
}

/// A group of signals, and the one before it with the same key: it may begin before the other was read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct SignalGroup {
    /// When it began: the time of its record.
    pub began_ns: u64,
    /// Signals so far.
    pub count: u64,
    /// As `began_ns`, of the one before; 0 if there was none.
    pub began_ns_before: u64,
    /// As `count`, of the one before.
    pub count_before: u64,
}

/// For how long signals belong to one group.
pub const SIGNAL_GROUP_NS: u64 = 1_000_000_000;
