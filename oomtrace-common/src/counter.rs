//! The counters of the eBPF side: indices into its per-CPU array `COUNTERS`.
//!
//! Every place where an event or a fact can vanish has one, and user space reads them
//! all: events that vanished become `lost` lines, facts that vanished are named in the
//! event's `missing`.

/// Records committed to the kill ring.
pub const EMITTED: u32 = 0;
/// Numbered records dropped because the kill ring was full. Each leaves a hole in `seq`.
pub const RING_FULL: u32 = 1;
/// Cgroup records committed to the cgroup ring.
pub const CGROUP_EMITTED: u32 = 2;
/// Cgroup records dropped because the cgroup ring was full: names may be unknown later.
pub const CGROUP_RING_FULL: u32 = 3;
/// Reads of kernel memory that failed: each is an absent fact of some event.
pub const READ_FAILED: u32 = 4;
/// A victim's task could not be found: only with the pid-only layout of `mark_victim`.
pub const TASK_UNKNOWN: u32 = 5;
/// A scratch buffer could not be had: the record could not be made. Leaves a hole in `seq`.
pub const NO_SCRATCH: u32 = 6;
/// Victims that were sent their SIGKILL and then marked: each moved the kernel's `oom_kill` by one.
pub const KILLED: u32 = 7;
/// SIGKILLs of the killer's to a process it had marked before, which it does not mark again: each moved
/// the kernel's `oom_kill` by one. A group kill does that to its first victim.
pub const REPEATED: u32 = 8;

/// Records without a number dropped because the kill ring was full: of memory cgroups that ran out without a kill.
pub const UNNUMBERED_RING_FULL: u32 = 9;

/// How many counters there are.
pub const COUNT: u32 = 10;
