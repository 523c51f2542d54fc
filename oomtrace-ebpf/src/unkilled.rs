//! A memory cgroup that ran out of memory without a victim.

use core::mem::offset_of;

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, generated::bpf_get_current_task};
use oomtrace_common::{
    counter,
    record::{Header, KIND_MEMCG_OOM, MemcgOom, OUTCOME_RELIEVED, OomControl, oc_fact},
};

use crate::{
    maps::{self, Call, Unkilled},
    memcg::{self, Walk},
    memory::{Reader, layout},
    run, task,
};

/// `mem_cgroup_out_of_memory(memcg, gfp_mask, order)` was entered.
#[inline(always)]
pub fn memcg_ran_out(memcg: u64, gfp_mask: u32, order: i32) {
    let call = Call { memcg, gfp_mask, order, ran: 0 };
    // If this fails, a relieved cgroup may not be reported. No kill is lost.
    let _kept = maps::CALLS.insert(maps::caller(), call, 0);
}

/// The OOM killer itself was entered in this call.
#[inline(always)]
pub fn killer_entered() {
    if let Some(call) = maps::CALLS.get_ptr_mut(maps::caller()) {
        // SAFETY: a pointer into the map, checked for NULL; only this task has this key.
        unsafe { (*call).ran = 1 };
    }
}

/// Whether to report it: at most once a second for one cgroup and outcome.
///
/// The key is the cgroup's id, because another `mem_cgroup` may have the same address later.
#[inline(always)]
pub fn is_due(cgroup_id: u64, outcome: u32) -> bool {
    const PAUSE_NS: u64 = 1_000_000_000;
    let key = Unkilled { cgroup_id, outcome: u64::from(outcome) };
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(last) = maps::UNKILLED.get_ptr(key) {
        // SAFETY: a pointer into the map, checked for NULL; a whole integer.
        if now.wrapping_sub(unsafe { *last }) < PAUSE_NS {
            return false;
        }
    }
    // If this fails, the next one is reported too.
    let _kept = maps::UNKILLED.insert(key, now, 0);
    true
}

/// `mem_cgroup_out_of_memory` returns. It returns true without running the OOM killer if enough memory was
/// free by then.
#[inline(always)]
pub fn memcg_call_ends(source: u32, returned: u64) {
    // SIGNAL_GROUP_EXIT: a dying caller gets true as well, and needs nothing.
    const DYING: u32 = 4;
    let caller = maps::caller();
    let Some(call) = maps::CALLS.get_ptr(caller) else { return };
    // SAFETY: a pointer into the map, checked for NULL; only this task has this key.
    let call = unsafe { *call };
    // It was there a moment ago, and only this task uses this key.
    let _there = maps::CALLS.remove(caller);
    if call.ran != 0 || returned & 0xff == 0 {
        return;
    }
    let mut reader = Reader::default();
    // SAFETY: the helper takes no argument.
    let current = unsafe { bpf_get_current_task() };
    let signal = reader.pointer(current, layout!(task_signal));
    let dying = reader.u32(signal, layout!(signal_flags)) & DYING != 0 || task::is_exiting(&mut reader);
    let mut oom = OomControl {
        source,
        present: oc_fact::GFP_MASK | oc_fact::ORDER,
        gfp_mask: call.gfp_mask,
        order: call.order,
        ..run::NOTHING_KNOWN
    };
    // SAFETY: `oom` is a local; `report` only reads it.
    unsafe {
        let id = memcg::id(&mut reader, &raw mut oom.oom_memcg_id, memcg::css(call.memcg));
        oom.present |= id * oc_fact::MEMCG;
        if !dying && is_due(oom.oom_memcg_id, OUTCOME_RELIEVED) {
            // Seen outside `oom_lock`, where events get no number.
            report(&mut reader, 0, OUTCOME_RELIEVED, call.memcg, &raw const oom);
        }
    }
}

/// Sends the record of a memory cgroup that ran out without a victim. `seq` is 0 outside `oom_lock`.
///
/// # Safety
/// `oom` must be readable.
#[inline(always)]
pub unsafe fn report(reader: &mut Reader, seq: u64, outcome: u32, memcg: u64, oom: *const OomControl) {
    let Some(mut entry) = maps::KILLS.reserve::<MemcgOom>(0) else {
        // Only a lost number leaves a hole.
        let lost = if seq == 0 { counter::UNNUMBERED_RING_FULL } else { counter::RING_FULL };
        maps::count(lost, 1);
        return;
    };
    let to = entry.as_mut_ptr();
    // SAFETY: the reservation has room for the record. Parts that are not written are not counted in its
    // length.
    unsafe {
        (*to).outcome = outcome;
        (*to).reserved = 0;
        (*to).oom = *oom;
        task::facts(reader, &raw mut (*to).trigger, bpf_get_current_task());
        let walk = Walk {
            to: &raw mut (*to).lineage,
            path: (&raw mut (*to).path).cast(),
            levels: (&raw mut (*to).levels).cast(),
        };
        memcg::walk(reader, walk, memcg::css(memcg));
        let levels = memcg::levels_bytes(&raw const (*to).lineage).unwrap_or(0);
        let size = offset_of!(MemcgOom, levels) as u64 + levels;
        (*to).header =
            Header { kind: KIND_MEMCG_OOM, len: size as u32, seq, boot_time_ns: bpf_ktime_get_boot_ns() };
    }
    entry.submit(0);
}
