//! What one run of user space leaves for the next: the one value of the array `PINNED`, which only user space
//! reads and writes. The other maps hold everything else that is kept.

/// The value. It is updated in one system call, which a SIGKILL cannot interrupt.
pub type Pinned = [u64; COUNT];

/// 1 after every program was attached and pinned. A start that was interrupted leaves 0.
pub const COMPLETE: usize = 0;
/// `oom_kill` of `/proc/vmstat` at [`SINCE`].
pub const KERNEL_KILLS: usize = 1;
/// How many of these kills the programs had counted at [`SINCE`].
pub const SEEN: usize = 2;
/// When the programs were attached, or when the last `gap` was reported: `CLOCK_BOOTTIME`, ns.
pub const SINCE: usize = 3;
/// The id of this set of programs, in two entries: the value of `stream`.
pub const STREAM: usize = 4;
/// The first entry about losses.
pub const LOSSES: usize = 6;

/// The offset of the calendar from `CLOCK_BOOTTIME` at the last sample, ns, signed.
pub const CLOCK_OFFSET: usize = COUNT - 2;
/// The time of that sample: `CLOCK_BOOTTIME`, ns; 0 if there was none.
pub const CLOCK_LOOKED: usize = COUNT - 1;

/// The number of entries. Those between the losses and the clock are unused.
pub const COUNT: usize = 32;
