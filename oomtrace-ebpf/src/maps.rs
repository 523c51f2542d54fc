//! The maps. All their memory is taken when they are made: nothing is allocated at an OOM.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use oomtrace_common::{
    counter, pinned,
    record::{COMMAND_LINE_LEN, CgroupChange, OomControl, OomKill, PATH_LEN, STACK_LEN},
};

/// Kills: a ring of their own, so that a storm of cgroups never pushes one out. User space sets its size.
#[map]
pub static KILLS: RingBuf = RingBuf::with_byte_size(512 << 10, 0);

/// Cgroups made, removed and renamed.
#[map]
pub static CGROUPS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);

/// The counters of [`oomtrace_common::counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// The number of the last event.
#[map]
pub static SEQ: Array<u64> = Array::with_max_entries(1, 0);

/// What user space must know again after its end: [`oomtrace_common::pinned`]. No program uses it.
#[map]
pub static PINNED: Array<pinned::Pinned> = Array::with_max_entries(1, 0);

/// Where a kill record is built: larger than a stack, and sent at its length. One is enough: `oom_lock` is held.
#[map]
pub static KILL_SCRATCH: Array<KillScratch> = Array::with_max_entries(1, 0);

/// Where a cgroup record is built.
#[map]
pub static CGROUP_SCRATCH: PerCpuArray<CgroupChange> = PerCpuArray::with_max_entries(1, 0);

/// The run of the killer that is under way. There is at most one: the kernel's `oom_lock` sees to it.
#[map]
pub static RUN: Array<Run> = Array::with_max_entries(1, 0);

/// SIGKILLs that the kernel itself has sent, by the id of the thread. Each has a note of its own: between a victim's
/// signal and its mark, others on the same CPU may send theirs. The oldest make room.
#[map]
pub static SIGKILLS: LruHashMap<u32, Sigkill> = LruHashMap::with_max_entries(1024, 0);

/// Where [`address_of`] makes a number of a pointer.
#[map]
static ADDRESS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Tasks for which a memory cgroup has run out, by `bpf_get_current_pid_tgid`. Preallocated, as maps are by default. The
/// end of a call may go unseen (a kretprobe has only so many places), so the oldest make room.
#[map]
pub static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(1024, 0);

/// When it was last reported that a memory cgroup ran out without a victim, `CLOCK_BOOTTIME` ns: a task that finds
/// nobody to kill tries again at once, for ever.
#[map]
pub static UNKILLED: LruHashMap<Unkilled, u64> = LruHashMap::with_max_entries(1024, 0);

/// Tasks that wait because kills are disabled in their cgroup (v1), and the cgroup's id.
#[map]
pub static WAITERS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Cgroups in which tasks wait, by id, and when the last one began or ceased to, `CLOCK_BOOTTIME` ns.
/// Preallocated too; a cgroup that is pushed out is told once more.
#[map]
pub static HANGS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// A kill record, and what is put together to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KillScratch {
    /// The record up to where the lengths of its parts begin to count.
    pub kill: OomKill,
    /// These parts, one after the other.
    pub parts: [u8; PARTS_LEN],
    /// How many of these bytes are used.
    pub used: u64,
    /// The path, before it is one of the parts.
    pub path: [u8; PATH_LEN],
    /// The command line, before it is.
    pub command_line: [u8; COMMAND_LINE_LEN],
}

/// Where the last part of a record may start: one less than a power of two, a mask that every verifier follows.
pub const PARTS_FULL: usize = 8191;
/// Room for the last part, whose length is bounded by a mask as well.
const PARTS_LEN: usize = PARTS_FULL + 1 + 2 * STACK_LEN;

/// A call of `mem_cgroup_out_of_memory`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// The `mem_cgroup` that ran out.
    pub memcg: u64,
    /// The allocation's flags.
    pub gfp_mask: u32,
    /// The allocation's order.
    pub order: i32,
    /// 1 when the killer itself was entered, 0 before.
    pub ran: u64,
}

/// A run of the killer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Run {
    /// `bpf_get_current_pid_tgid` of the task that a function hook saw start it; [`NOBODY`] if none did.
    pub by: u64,
    /// `seq` of its first victim; 0 before that.
    pub first: u64,
    /// What the function hooks read.
    pub oom: OomControl,
    /// The `oom_control`, which lives on the caller's stack until the run ends.
    pub oc: u64,
    /// `oc->chosen`.
    pub chosen: u64,
    /// Who marked the last victim; [`NOBODY`] once its run is known to be over.
    pub marked_by: u64,
    /// When, `CLOCK_BOOTTIME` ns.
    pub marked_ns: u64,
    /// Where in the caller's stack.
    pub marked_at: u64,
    /// The last victim's `seq`.
    pub victim: u64,
    /// The last victim's mm.
    pub victim_mm: u64,
    /// The last victim's tgid.
    pub victim_tgid: u64,
    /// Who was last reported as dying with a victim: its tgid.
    pub shared_tgid: u64,
    /// 1 from when the killer passes over its last victim again until it marks another.
    pub again: u64,
    /// Whose last SIGKILL could not be noted.
    pub unnoted_by: u64,
}

/// A SIGKILL of the kernel's own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sigkill {
    /// `bpf_get_current_pid_tgid` of the sender.
    pub by: u64,
    /// The `task_struct` it was sent to.
    pub task: u64,
    /// `start_boottime` of that task: another one may be at its place later.
    pub start_ns: u64,
    /// When it was sent, `CLOCK_BOOTTIME` ns.
    pub sent_ns: u64,
    /// Where in the sender's stack.
    pub at: u64,
    /// 1 when it was counted as [`counter::REPEATED`].
    pub repeated: u64,
}

/// What is reported once a second.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Unkilled {
    /// The cgroup's `kernfs_node.id`.
    pub cgroup_id: u64,
    /// One of `OUTCOME_*`.
    pub outcome: u64,
}

/// Adds to a counter of this CPU.
#[inline(always)]
pub fn count(counter: u32, by: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: a pointer into the map, checked for NULL; per CPU, so no other program writes it now.
        unsafe { *value = (*value).wrapping_add(by) }
    }
}

/// The number of the next event. Only ever asked for under `oom_lock`, so a plain addition is enough.
#[inline(always)]
pub fn next_seq() -> u64 {
    match SEQ.get_ptr_mut(0) {
        Some(seq) => {
            // SAFETY: a pointer into the map, checked for NULL; `oom_lock` serialises its writers.
            unsafe {
                *seq += 1;
                *seq
            }
        }
        None => 0,
    }
}

/// The calling task.
#[inline(always)]
pub fn caller() -> u64 {
    bpf_get_current_pid_tgid()
}

/// [`caller`] of nobody: it is that of the idle tasks, which run no killer.
pub const NOBODY: u64 = 0;

/// Where in the kernel stack of the caller a program was called from: the address of its arguments.
#[inline(always)]
pub fn address_of<C: EbpfContext>(ctx: &C) -> u64 {
    let Some(address) = ADDRESS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a pointer into the map of this CPU, checked for NULL. What is read back is a number to the verifier.
    unsafe {
        ptr::write_volatile(address, ctx.as_ptr() as u64);
        ptr::read_volatile(address)
    }
}

/// Whether `inner` lies in a function that was called from where `outer` lies, by these two addresses of one stack.
#[inline(always)]
pub fn is_below(inner: u64, outer: u64) -> bool {
    /// More than the killer's functions use between any two places, and less than a stack.
    const REACH: u64 = 4096;
    // Stacks grow down.
    outer.wrapping_sub(inner).wrapping_sub(1) < REACH
}
