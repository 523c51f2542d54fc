//! The records in the ring buffers.
//!
//! Each starts with a [`Header`]. Each fact that is read from the kernel has a bit in the `present` mask of
//! its struct. A clear bit means that the read failed or that this kernel has no such member; then the value
//! has no meaning.

mod memory;
mod own;
pub mod sample;
mod signal;
mod stack;

pub use memory::{Memory, memory_fact};
pub use own::{Lru, Tasks, tasks_fact};
pub use signal::*;
pub use stack::{STACK_LEN, Stack};

/// [`Header::kind`]: the OOM killer marked a victim ([`OomKill`]).
pub const KIND_OOM_KILL: u32 = 1;
/// [`Header::kind`]: a memory cgroup was made ([`CgroupChange`]).
pub const KIND_CGROUP_MKDIR: u32 = 2;
/// [`Header::kind`]: a memory cgroup was removed ([`CgroupChange`]).
pub const KIND_CGROUP_RMDIR: u32 = 3;
/// [`Header::kind`]: a memory cgroup was renamed ([`CgroupChange`]); only cgroup v1 can.
pub const KIND_CGROUP_RENAME: u32 = 4;
/// [`Header::kind`]: a process that shares a victim's memory was killed with it ([`SharedMmKill`]).
pub const KIND_SHARED_MM_KILL: u32 = 5;
/// [`Header::kind`]: a memory cgroup ran out and the OOM killer ended without a victim ([`MemcgOom`]).
pub const KIND_MEMCG_OOM: u32 = 6;
/// [`Header::kind`]: processes were sent a signal that ended them ([`SignalKill`]).
pub const KIND_SIGNAL_KILL: u32 = 7;

/// `TASK_COMM_LEN`.
pub const COMM_LEN: usize = 16;
/// How many memory cgroups are read, from the victim's upwards. Deeper trees get [`FLAG_LEVELS_CUT`].
pub const MAX_LEVELS: usize = 24;
/// The last byte at which a cgroup name may start. One less than a power of two, so that a mask bounds it for
/// every verifier.
pub const PATH_FULL: usize = 511;
/// `NAME_MAX` + 1: the largest size of a cgroup name.
pub const NAME_LEN: usize = 256;
/// Room for the names of a path: the last one may start at [`PATH_FULL`].
pub const PATH_LEN: usize = PATH_FULL + 1 + NAME_LEN;
/// The kernel builds the path of a cgroup tracepoint in a buffer of this size (`TRACE_CGROUP_PATH_LEN`).
pub const CGROUP_PATH_LEN: usize = 1024;
/// Room for the start of a command line. The mask that bounds its length is one less.
pub const COMMAND_LINE_LEN: usize = 512;
/// Room for the `message` argument of `oom_kill_process`.
pub const MESSAGE_LEN: usize = 64;

/// What every record starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Header {
    /// One of the `KIND_*` constants.
    pub kind: u32,
    /// Bytes of the whole record, this header included.
    pub len: u32,
    /// Counts the records of the kill ring since the programs were attached, from 1; 0 in the cgroup ring.
    pub seq: u64,
    /// `CLOCK_BOOTTIME` at the tracepoint, ns.
    pub boot_time_ns: u64,
}

/// [`Task::present`] bits.
pub mod task_fact {
    /// `tid` and `tgid`.
    pub const IDS: u32 = 1 << 0;
    /// `comm`.
    pub const COMM: u32 = 1 << 1;
    /// `uid`.
    pub const UID: u32 = 1 << 2;
    /// `namespace_tgid`.
    pub const NAMESPACE_TGID: u32 = 1 << 3;
    /// `parent_tgid`.
    pub const PARENT: u32 = 1 << 4;
    /// `start_boot_ns`.
    pub const START: u32 = 1 << 5;
    /// `oom_score_adj`.
    pub const OOM_SCORE_ADJ: u32 = 1 << 6;
    /// `memcg_id`.
    pub const MEMCG: u32 = 1 << 7;
}

/// A task: the victim, the trigger, or a process that shares the victim's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Task {
    /// Bits of [`task_fact`].
    pub present: u32,
    /// `task->pid`: the thread.
    pub tid: u32,
    /// `task->tgid`: the process.
    pub tgid: u32,
    /// The process's id in its own pid namespace.
    pub namespace_tgid: u32,
    /// `group_leader->real_parent->tgid`.
    pub parent_tgid: u32,
    /// `real_cred->uid`, in the initial user namespace.
    pub uid: u32,
    /// `signal->oom_score_adj`, -1000..=1000.
    pub oom_score_adj: i32,
    /// Always 0.
    pub reserved: u32,
    /// `group_leader->start_boottime`, `CLOCK_BOOTTIME` ns.
    pub start_boot_ns: u64,
    /// `kernfs_node.id` of the memory cgroup.
    pub memcg_id: u64,
    /// `task->comm`, NUL-padded; any bytes.
    pub comm: [u8; COMM_LEN],
}

/// [`MemcgLevel::present`] bits; bit `EVENTS << i` is for `events[i]`.
pub mod level_fact {
    /// `usage_pages`.
    pub const USAGE: u32 = 1 << 0;
    /// `max_pages`.
    pub const MAX: u32 = 1 << 1;
    /// `watermark_pages`.
    pub const WATERMARK: u32 = 1 << 2;
    /// `swap_usage_pages`.
    pub const SWAP_USAGE: u32 = 1 << 3;
    /// `swap_max_pages`.
    pub const SWAP_MAX: u32 = 1 << 4;
    /// `oom_group`.
    pub const OOM_GROUP: u32 = 1 << 5;
    /// `events[0]`; the following five bits are the other five.
    pub const EVENTS: u32 = 1 << 8;
}

/// One memory cgroup between a victim and the root.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct MemcgLevel {
    /// `kernfs_node.id`.
    pub cgroup_id: u64,
    /// `memory.usage`.
    pub usage_pages: u64,
    /// `memory.max`; the kernel's `PAGE_COUNTER_MAX` if there is no limit.
    pub max_pages: u64,
    /// `memory.watermark`.
    pub watermark_pages: u64,
    /// `swap.usage` (v2), `memsw.usage` (v1).
    pub swap_usage_pages: u64,
    /// `swap.max` (v2), `memsw.max` (v1).
    pub swap_max_pages: u64,
    /// `memory_events[]`, in the order of [`crate::layout::MEMORY_EVENTS`].
    pub events: [u64; 6],
    /// Where the kernel has it. Not in a recording.
    pub address: u64,
    /// `oom_group`: 0 or 1.
    pub oom_group: u32,
    /// Bits of [`level_fact`].
    pub present: u32,
}

/// [`OomControl::source`]: no function hook ran.
pub const SOURCE_NONE: u32 = 0;
/// [`OomControl::source`]: read by a fentry program.
pub const SOURCE_FENTRY: u32 = 1;
/// [`OomControl::source`]: read by a kprobe.
pub const SOURCE_KPROBE: u32 = 2;
/// [`OomControl::source`]: found by user space in [`Stack`]. Only in recordings: no program writes it.
pub const SOURCE_STACK: u32 = 3;

/// [`OomControl::present`] bits.
pub mod oc_fact {
    /// `oom_memcg_id`; clear together with [`GLOBAL`] when it could not be read.
    pub const MEMCG: u32 = 1 << 0;
    /// `oc->memcg` is NULL: the whole host, a cpuset or a policy ran out, not a cgroup.
    pub const GLOBAL: u32 = 1 << 1;
    /// `gfp_mask`.
    pub const GFP_MASK: u32 = 1 << 2;
    /// `order`.
    pub const ORDER: u32 = 1 << 3;
    /// `total_pages`.
    pub const TOTAL_PAGES: u32 = 1 << 4;
    /// `chosen_points`: only if the OOM killer chose by score.
    pub const CHOSEN_POINTS: u32 = 1 << 5;
    /// `constraint`.
    pub const CONSTRAINT: u32 = 1 << 6;
    /// `message`.
    pub const MESSAGE: u32 = 1 << 7;
}

/// The contents of `struct oom_control` and the arguments of `oom_kill_process`, if a function hook ran.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct OomControl {
    /// One of the `SOURCE_*` constants.
    pub source: u32,
    /// Bits of [`oc_fact`].
    pub present: u32,
    /// `kernfs_node.id` of `oc->memcg`.
    pub oom_memcg_id: u64,
    /// `oc->totalpages`.
    pub total_pages: u64,
    /// `oc->chosen_points`, pages.
    pub chosen_points: i64,
    /// `oc->gfp_mask`.
    pub gfp_mask: u32,
    /// `oc->order`; -1 for sysrq.
    pub order: i32,
    /// `oc->constraint`.
    pub constraint: u32,
    /// Always 0.
    pub reserved: u32,
    /// The `message` of `oom_kill_process`, NUL-terminated.
    pub message: [u8; MESSAGE_LEN],
}

/// [`Lineage::flags`]: names were left out, so the path is only the last part.
pub const FLAG_PATH_CUT: u32 = 1 << 0;
/// [`Lineage::flags`]: the cgroup has more ancestors than [`MAX_LEVELS`].
pub const FLAG_LEVELS_CUT: u32 = 1 << 1;
/// [`OomKill::flags`]: in this run the kernel sent the victim a SIGKILL before the mark, so this is a kill.
pub const FLAG_SIGNALLED: u32 = 1 << 2;
/// [`OomKill::flags`]: signals were followed, so a clear [`FLAG_SIGNALLED`] means that there was no kill.
pub const FLAG_SIGNALS_FOLLOWED: u32 = 1 << 3;
/// [`OomKill::flags`]: only the pid is known, because the task was not found.
pub const FLAG_PID_ONLY: u32 = 1 << 4;
/// [`OomKill::flags`]: the command line is longer than what the record holds.
pub const FLAG_COMMAND_LINE_CUT: u32 = 1 << 5;

/// What is known of a memory cgroup and its ancestors up to the root. The levels and the path themselves are elsewhere.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Lineage {
    /// [`FLAG_PATH_CUT`] and [`FLAG_LEVELS_CUT`].
    pub flags: u32,
    /// Bytes of the path: the names of the cgroup and of its ancestors below the root, leaf first, each NUL-terminated.
    pub path_len: u32,
    /// How many [`MemcgLevel`]s there are: the cgroup and its ancestors, leaf first, including the root.
    pub level_count: u32,
    /// Always 0.
    pub reserved: u32,
}

/// One call of `mark_victim`. What has no fixed length follows in this order, each as long as it is: the levels and the path of
/// `lineage`, the command line, the bytes of `stack`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct OomKill {
    /// [`KIND_OOM_KILL`].
    pub header: Header,
    /// `seq` of the first victim of this run of the OOM killer; 0 if no hook shows where a run starts.
    pub run: u64,
    /// The victim.
    pub victim: Task,
    /// The task in whose context the OOM killer ran.
    pub trigger: Task,
    /// The victim's memory.
    pub memory: Memory,
    /// Facts of the OOM killer's own state.
    pub oom: OomControl,
    /// Bits of the `FLAG_*` constants.
    pub flags: u32,
    /// Bytes of the command line: the victim's arguments, separated by NUL. Only if the victim itself ran the OOM
    /// killer: then its memory can be read. 0 where it could not be read in the kernel.
    pub command_line_len: u32,
    /// Where the killer's state may be found.
    pub stack: Stack,
    /// The victim's memory cgroup and those above it.
    pub lineage: Lineage,
    /// The victim's threads, and the tasks of its cgroup.
    pub tasks: Tasks,
    /// The LRU lists of its memory cgroup.
    pub lru: Lru,
}

/// A cgroup of the memory hierarchy was made, removed or renamed. Sent without the unused tail of `path`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct CgroupChange {
    /// [`KIND_CGROUP_MKDIR`], [`KIND_CGROUP_RMDIR`] or [`KIND_CGROUP_RENAME`].
    pub header: Header,
    /// `kernfs_node.id`.
    pub cgroup_id: u64,
    /// Bytes used in `path`, without its NUL.
    pub path_len: u32,
    /// Always 0.
    pub reserved: u32,
    /// The path from the root of the hierarchy, as the kernel's tracepoint has it.
    pub path: [u8; CGROUP_PATH_LEN],
}

/// A process that shares a victim's memory got SIGKILL with it. The kernel neither counts nor logs it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct SharedMmKill {
    /// [`KIND_SHARED_MM_KILL`].
    pub header: Header,
    /// `seq` of the victim whose memory it shares.
    pub of: u64,
    /// The process.
    pub task: Task,
}

/// [`MemcgOom::outcome`]: nothing in the cgroup may be killed.
pub const OUTCOME_NO_KILLABLE_PROCESS: u32 = 1;
/// [`MemcgOom::outcome`]: enough memory was freed, because a process exited.
pub const OUTCOME_RELIEVED: u32 = 2;
/// [`MemcgOom::outcome`]: v1 `oom_kill_disable`: tasks that ask for memory hang.
pub const OUTCOME_KILL_DISABLED: u32 = 3;

/// A memory cgroup ran out and the OOM killer ended without a victim. Sent without the unused tail of `levels`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct MemcgOom {
    /// [`KIND_MEMCG_OOM`].
    pub header: Header,
    /// The task in whose context the OOM killer ran.
    pub trigger: Task,
    /// The arguments of the OOM killer.
    pub oom: OomControl,
    /// One of the `OUTCOME_*` constants.
    pub outcome: u32,
    /// Always 0.
    pub reserved: u32,
    /// The cgroup that ran out and those above it.
    pub lineage: Lineage,
    /// Its path.
    pub path: [u8; PATH_LEN],
    /// Its levels.
    pub levels: [MemcgLevel; MAX_LEVELS],
}

// No implicit padding: each size is the sum of its members. Offsets that both compilers must agree on.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Task>() == 64);
    assert!(size_of::<Memory>() == 56);
    assert!(size_of::<MemcgLevel>() == 112);
    assert!(size_of::<OomControl>() == 112);
    assert!(offset_of!(OomKill, victim) == 32);
    assert!(offset_of!(OomKill, memory) == 160);
    assert!(offset_of!(OomKill, oom) == 216);
    assert!(offset_of!(OomKill, flags) == 328);
    assert!(size_of::<Stack>() == 40);
    assert!(offset_of!(OomKill, stack) == 336);
    assert!(offset_of!(OomKill, lineage) == 376);
    assert!(size_of::<Lineage>() == 16);
    assert!(size_of::<Tasks>() == 40);
    assert!(size_of::<Lru>() == 32);
    assert!(offset_of!(OomKill, tasks) == 392);
    assert!(size_of::<OomKill>() == 464);
    assert!(offset_of!(CgroupChange, path) == 40);
    assert!(size_of::<CgroupChange>() == 40 + CGROUP_PATH_LEN);
    assert!(size_of::<SharedMmKill>() == 96);
    assert!(offset_of!(SignalKill, sigterm) == 240);
    assert!(offset_of!(SignalKill, levels) == 288);
    assert!(size_of::<SignalKill>() == 288 + SIGNAL_LEVELS * size_of::<MemcgLevel>());
    assert!(size_of::<SignalKey>() == 24);
    assert!(offset_of!(MemcgOom, lineage) == 208);
    assert!(offset_of!(MemcgOom, path) == 224);
    assert!(offset_of!(MemcgOom, levels) == 224 + PATH_LEN);
    assert!(size_of::<MemcgOom>() == 224 + PATH_LEN + MAX_LEVELS * size_of::<MemcgLevel>());
};
