//! What one run of user space leaves to the next: the one value of the array `PINNED`, which
//! only user space reads and writes. The rest of what is kept is in the other maps.

/// The value: one update of it is one system call, which no SIGKILL divides.
pub type Pinned = [u64; COUNT];

/// 1 once every program was attached and pinned: a start that was cut short leaves 0.
pub const COMPLETE: usize = 0;
/// `oom_kill` of `/proc/vmstat` at [`SINCE`].
pub const KERNEL_KILLS: usize = 1;
/// What the programs had counted of those kills at [`SINCE`].
pub const SEEN: usize = 2;
/// When the programs were attached, or when a `gap` was told of: `CLOCK_BOOTTIME`, ns.
pub const SINCE: usize = 3;
/// The id of this set of programs, in two entries: what `stream` says.
pub const STREAM: usize = 4;
/// The first entry of what is known of losses.
pub const LOSSES: usize = 6;

/// The distance of the calendar from `CLOCK_BOOTTIME` when it was looked at last, ns, signed.
pub const CLOCK_OFFSET: usize = COUNT - 2;
/// When that was: `CLOCK_BOOTTIME`, ns; 0 if it never was.
pub const CLOCK_LOOKED: usize = COUNT - 1;

/// How many entries there are; those between the losses and the clock are for later.
pub const COUNT: usize = 32;
