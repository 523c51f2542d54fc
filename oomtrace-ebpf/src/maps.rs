//! The maps. All their memory is allocated when they are created: nothing is allocated during an OOM.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use oomtrace_common::{
    counter,
    early::Watch,
    pinned,
    record::{
        COMMAND_LINE_LEN, CgroupChange, OomControl, OomKill, PATH_LEN, STACK_LEN, SignalGroup, SignalKey,
        Sigterm, sample::Walked,
    },
};

use crate::lru::Lists;

/// Kills. They have their own ring, so that a storm of cgroups never displaces one. User space sets its size.
#[map]
pub static KILLS: RingBuf = RingBuf::with_byte_size(512 << 10, 0);

/// Cgroups made, removed and renamed.
#[map]
pub static CGROUPS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);

/// Signals that end processes: a ring of their own, so that a storm of them pushes out nothing else.
#[map]
pub static SIGNALS: RingBuf = RingBuf::with_byte_size(128 << 10, 0);

/// Signals that belong together, counted. The oldest make room.
#[map]
pub static SIGNAL_GROUPS: LruHashMap<SignalKey, SignalGroup> = LruHashMap::with_max_entries(1024, 0);

/// The last SIGTERM to a process, by its id: a SIGKILL may follow. The oldest make room.
#[map]
pub static SIGTERMS: LruHashMap<u32, Sigterm> = LruHashMap::with_max_entries(1024, 0);

/// Wakes the reader of the kills before there is one: see [`oomtrace_common::early`].
#[map]
pub static WAKEUPS: RingBuf = RingBuf::with_byte_size(4 << 10, 0);

/// What the reader says about itself.
#[map]
pub static WATCH: Array<Watch> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The counters of [`oomtrace_common::counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// The number of the last event.
#[map]
pub static SEQ: Array<u64> = Array::with_max_entries(1, 0);

/// State that user space keeps for its next run: [`oomtrace_common::pinned`]. No program uses it.
#[map]
pub static PINNED: Array<pinned::Pinned> = Array::with_max_entries(1, 0);

/// Where a kill record is built: larger than a stack, and sent at its length. One is enough: `oom_lock` is held.
#[map]
pub static KILL_SCRATCH: Array<KillScratch> = Array::with_max_entries(1, 0);

/// Where a cgroup record is built.
#[map]
pub static CGROUP_SCRATCH: PerCpuArray<CgroupChange> = PerCpuArray::with_max_entries(1, 0);

/// The current run of the OOM killer. There is at most one, because of the kernel's `oom_lock`.
#[map]
pub static RUN: Array<Run> = Array::with_max_entries(1, 0);

/// SIGKILLs that the kernel itself has sent, by thread id. Each has its own entry: between a victim's signal
/// and its mark, others on the same CPU may send signals. The oldest entries are replaced.
#[map]
pub static SIGKILLS: LruHashMap<u32, Sigkill> = LruHashMap::with_max_entries(1024, 0);

/// See [`Forgetful`].
#[map]
static FORGOTTEN: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// [`address_of`] uses it to turn a pointer into a number.
#[map]
static ADDRESS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Tasks in whose memory cgroup the memory has run out, by `bpf_get_current_pid_tgid`. Preallocated, as maps
/// are by default. The end of a call may be missed (a kretprobe has a limited number of places), so the
/// oldest entries are replaced.
#[map]
pub static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(1024, 0);

/// When a memory cgroup without a victim was last reported, `CLOCK_BOOTTIME` ns: a task that finds no process
/// to kill tries again at once, for ever.
#[map]
pub static UNKILLED: LruHashMap<Unkilled, u64> = LruHashMap::with_max_entries(1024, 0);

/// Tasks that wait because kills are disabled in their cgroup (v1), and the cgroup's id.
#[map]
pub static WAITERS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Cgroups in which tasks wait, by id, and when the last task began or stopped waiting, `CLOCK_BOOTTIME` ns.
/// Preallocated too. A cgroup whose entry was replaced is reported again.
#[map]
pub static HANGS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Where the walk of the sampler is, and what it has found.
#[map]
pub static WALKED: Array<Walked> = Array::with_max_entries(1, 0);

/// Sizes of LRU lists of the walk, before they are added up.
#[map]
pub static WALKED_LISTS: Array<Lists> = Array::with_max_entries(1, 0);

/// A kill record, and the parts of which it is built.
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
    /// Sizes of LRU lists, before they are added up.
    pub lists: Lists,
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
    /// 1 after the OOM killer itself was entered, 0 before.
    pub ran: u64,
}

/// A run of the OOM killer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Run {
    /// `bpf_get_current_pid_tgid` of the task that started it, if a function hook saw this; else [`NOBODY`].
    pub by: u64,
    /// `seq` of its first victim; 0 before the first victim.
    pub first: u64,
    /// What the function hooks read.
    pub oom: OomControl,
    /// The `oom_control`, which lives on the caller's stack until the run ends.
    pub oc: u64,
    /// `oc->chosen`.
    pub chosen: u64,
    /// The task that marked the last victim; [`NOBODY`] when its run is known to be over.
    pub marked_by: u64,
    /// The time of that mark, `CLOCK_BOOTTIME` ns.
    pub marked_ns: u64,
    /// The address of that mark in the caller's stack.
    pub marked_at: u64,
    /// The last victim's `seq`.
    pub victim: u64,
    /// The last victim's mm.
    pub victim_mm: u64,
    /// The last victim's tgid.
    pub victim_tgid: u64,
    /// The tgid of the process that was last reported as dying with a victim.
    pub shared_tgid: u64,
    /// 1 from when the OOM killer kills its last victim again until it marks another.
    pub again: u64,
    /// The task whose last SIGKILL could not be recorded.
    pub unnoted_by: u64,
}

/// A SIGKILL that the kernel itself sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sigkill {
    /// `bpf_get_current_pid_tgid` of the sender.
    pub by: u64,
    /// The `task_struct` it was sent to.
    pub task: u64,
    /// `start_boottime` of that task, because another one may have the same address later.
    pub start_ns: u64,
    /// When it was sent, `CLOCK_BOOTTIME` ns.
    pub sent_ns: u64,
    /// The address in the sender's stack.
    pub at: u64,
    /// 1 if it was counted as [`counter::REPEATED`].
    pub repeated: u64,
}

/// The key of what is reported at most once a second.
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

/// Adds to a number in a map that other processors add to as well.
///
/// # Safety
/// `to` must be an aligned place in a map.
#[inline(always)]
pub unsafe fn add(to: *mut u64, by: u64) {
    // The compiler has no atomic addition for this target, which it takes for one without compare-and-swap.
    // SAFETY: by this function's contract.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) by)
    };
    // Only for clippy, on the host's target.
    // SAFETY: by this function's contract.
    #[cfg(not(target_arch = "bpf"))]
    unsafe {
        *to = (*to).wrapping_add(by)
    };
}

/// The number of the next event. Called only under `oom_lock`, so a simple addition is enough.
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

/// The value of [`caller`] for no task: it is that of the idle tasks, which never run the OOM killer.
pub const NOBODY: u64 = 0;

/// The place in the caller's kernel stack from which the program was called: the address of its arguments.
#[inline(always)]
pub fn address_of<C: EbpfContext>(ctx: &C) -> u64 {
    let Some(address) = ADDRESS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a pointer into the map of this CPU, checked for NULL. The verifier treats what is read back as
    // a number.
    unsafe {
        ptr::write_volatile(address, ctx.as_ptr() as u64);
        ptr::read_volatile(address)
    }
}

/// A place where a number becomes another one to the verifier.
#[derive(Clone, Copy)]
pub struct Forgetful(*mut u32);

impl Forgetful {
    /// That of this CPU; none never happens.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Self> {
        FORGOTTEN.get_ptr_mut(0).map(Self)
    }

    /// The same number, of which the verifier has forgotten what it knows: the ways to here are one to it from then on.
    #[inline(always)]
    pub fn forgotten(self, number: u32) -> u32 {
        // SAFETY: a pointer into the map of this CPU, checked for NULL.
        unsafe {
            ptr::write_volatile(self.0, number);
            ptr::read_volatile(self.0)
        }
    }
}

/// Whether `inner` is in a function that was called from where `outer` is, from these two addresses in one
/// stack.
#[inline(always)]
pub fn is_below(inner: u64, outer: u64) -> bool {
    /// More than the OOM killer's functions use between two of these places, and less than a stack.
    const REACH: u64 = 4096;
    // Stacks grow down.
    outer.wrapping_sub(inner).wrapping_sub(1) < REACH
}
