//! cgroup v1 with `oom_kill_disable`: a task that needs memory waits until there is room.
//!
//! Nothing here holds `oom_lock`, so these events have no number. A task wakes whenever memory is freed, and
//! waits again if it was not enough. All of this is one hang, reported once.

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, generated::bpf_get_current_task};
use oomtrace_common::record::{OUTCOME_KILL_DISABLED, OomControl, oc_fact};

use crate::{
    maps, memcg,
    memory::{Reader, layout},
    run, unkilled,
};

/// A hang is over when no task has waited for this long. A task that tries again does so at once.
const OVER_NS: u64 = 1_000_000_000;

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// `mem_cgroup_oom_synchronize(handle)` was entered.
#[inline(always)]
pub fn starts(source: u32, handle: u64) {
    // Without `handle` the function only cleans up.
    if handle & 0xff == 0 {
        return;
    }
    let mut reader = Reader::default();
    // SAFETY: the helper takes no argument.
    let current = unsafe { bpf_get_current_task() };
    let memcg = reader.pointer(current, layout!(task_memcg_in_oom));
    let mut disabled = 0u8;
    let mut id = 0u64;
    if memcg == 0 {
        return;
    }
    // SAFETY: both are locals of integers.
    unsafe {
        // An int, or a bool on later kernels, of value 0 or 1. On a little-endian machine the first byte has
        // it.
        reader.copy(&raw mut disabled, memcg, layout!(mem_cgroup_oom_kill_disable));
        if disabled == 0 {
            return;
        }
        memcg::id(&mut reader, &raw mut id, memcg::css(memcg));
    }
    let others = reader.u32(memcg, layout!(mem_cgroup_under_oom)) != 0;
    if begins(id, others) {
        let mut oom = OomControl { source, present: oc_fact::MEMCG, oom_memcg_id: id, ..run::NOTHING_KNOWN };
        // SAFETY: `oom` is a local; `report` only reads it.
        unsafe {
            let gfp_mask = reader.copy(&raw mut oom.gfp_mask, current, layout!(task_memcg_oom_gfp_mask));
            let order = reader.copy(&raw mut oom.order, current, layout!(task_memcg_oom_order));
            oom.present |= (gfp_mask * oc_fact::GFP_MASK) | (order * oc_fact::ORDER);
            unkilled::report(&mut reader, 0, OUTCOME_KILL_DISABLED, memcg, &raw const oom);
        }
    }
}

/// Records that a task waits in cgroup `id`. Returns whether this starts a hang. If several start one at
/// once, one gets true.
#[inline(always)]
fn begins(id: u64, others: bool) -> bool {
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(moved_ns) = maps::HANGS.get_ptr_mut(id) {
        // SAFETY: a pointer into the map, checked for NULL; another task can only write a whole integer
        // there.
        unsafe {
            if !others && now.wrapping_sub(*moved_ns) > OVER_NS {
                // Another task may have removed it already.
                let _over = maps::HANGS.remove(id);
            } else {
                *moved_ns = now;
            }
        }
    }
    // If this entry is pushed out, the end of this wait is not noticed; those of other tasks are.
    let _traced = maps::WAITERS.insert(maps::caller(), id, 0);
    maps::HANGS.insert(id, now, NO_EXIST).is_ok()
}

/// `mem_cgroup_oom_synchronize` returns.
#[inline(always)]
pub fn ends() {
    let caller = maps::caller();
    let Some(id) = maps::WAITERS.get_ptr(caller) else { return };
    // SAFETY: a pointer into the map, checked for NULL; only this task has this key.
    let id = unsafe { *id };
    // It was there a moment ago, and only this task uses this key.
    let _there = maps::WAITERS.remove(caller);
    if let Some(moved_ns) = maps::HANGS.get_ptr_mut(id) {
        // SAFETY: a pointer into the map, checked for NULL.
        unsafe { *moved_ns = bpf_ktime_get_boot_ns() };
    }
}
