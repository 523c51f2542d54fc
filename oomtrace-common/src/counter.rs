//! The counters of the eBPF side: indices into its per-CPU array `COUNTERS`.
//!
//! Each place where an event can be lost has a counter, and user space reads all of them. Lost events become
//! `lost` lines. Facts that could not be read are named in `missing` of the event.

/// Numbered records dropped because the kill ring was full. Each leaves a hole in `seq`.
pub const RING_FULL: u32 = 0;
/// Cgroup records dropped because the cgroup ring was full: names may be unknown later.
pub const CGROUP_RING_FULL: u32 = 1;
/// A victim's task could not be found: only with the pid-only layout of `mark_victim`.
pub const TASK_UNKNOWN: u32 = 2;
/// No scratch buffer was free, so the record could not be made. Leaves a hole in `seq`.
pub const NO_SCRATCH: u32 = 3;
/// Victims that got a SIGKILL and then a mark. Each raised the kernel's `oom_kill` by one.
pub const KILLED: u32 = 4;
/// SIGKILLs of the OOM killer to a process that it had marked before and does not mark again. Each raised the
/// kernel's `oom_kill` by one. A group kill does this to its first victim.
pub const REPEATED: u32 = 5;
/// Records without a number, dropped because the kill ring was full: memory cgroups that ran out without a
/// kill.
pub const UNNUMBERED_RING_FULL: u32 = 6;
/// Records dropped because the ring of signals was full.
pub const SIGNAL_RING_FULL: u32 = 7;
/// SIGKILLs to processes that had not ended, and not the OOM killer's.
pub const SIGKILLED: u32 = 8;

/// How many counters there are.
pub const COUNT: u32 = 9;
