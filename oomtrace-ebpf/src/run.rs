//! A run of the OOM killer, if function hooks see it start, choose and end.
//!
//! All of this runs under the kernel's single `oom_lock`, so nothing here races with itself.

use aya_ebpf::EbpfContext;
use oomtrace_common::record::{MESSAGE_LEN, OUTCOME_NO_KILLABLE_PROCESS, OomControl, SOURCE_NONE, oc_fact};

use crate::{
    early,
    maps::{self, Run},
    memcg,
    memory::{Reader, layout},
    unkilled,
};

/// An `oom_control` without any fact.
pub const NOTHING_KNOWN: OomControl = OomControl {
    source: SOURCE_NONE,
    present: 0,
    oom_memcg_id: 0,
    total_pages: 0,
    chosen_points: 0,
    gfp_mask: 0,
    order: 0,
    constraint: 0,
    reserved: 0,
    message: [0; MESSAGE_LEN],
};

/// `out_of_memory(oc)` was entered.
#[inline(always)]
pub fn starts<C: EbpfContext>(ctx: &C, source: u32, oc: u64) {
    early::wake(ctx);
    let Some(run) = maps::RUN.get_ptr_mut(0) else { return };
    unkilled::killer_entered();
    // SAFETY: a pointer into the map, checked for NULL; `oom_lock` serialises its writers.
    unsafe {
        (*run).chosen = 0;
        begin(run, oc);
        oom_control(run, source, oc);
        // The OOM killer computes these later. `oom_kill_process` has them.
        (*run).oom.present &= !(oc_fact::TOTAL_PAGES | oc_fact::CONSTRAINT | oc_fact::CHOSEN_POINTS);
    }
}

/// `oom_kill_process(oc, message)` was entered.
#[inline(always)]
pub fn chooses(source: u32, oc: u64, message: u64) {
    let Some(run) = maps::RUN.get_ptr_mut(0) else { return };
    let mut reader = Reader::default();
    // SAFETY: a pointer into the map, checked for NULL; `oom_lock` serialises its writers.
    unsafe {
        if (*run).by != maps::caller() || (*run).oc != oc {
            begin(run, oc);
        }
        (*run).chosen = reader.pointer(oc, layout!(oc_chosen));
        oom_control(run, source, oc);
        let len = reader.string((&raw mut (*run).oom.message).cast(), MESSAGE_LEN as u32, message);
        if len > 0 {
            (*run).oom.present |= oc_fact::MESSAGE;
        }
    }
}

/// Clears everything from an earlier run.
///
/// # Safety
/// `run` must be writable.
#[inline(always)]
unsafe fn begin(run: *mut Run, oc: u64) {
    // SAFETY: by this function's contract; all fields are integers.
    unsafe {
        (*run).by = maps::caller();
        (*run).first = 0;
        (*run).oc = oc;
        (*run).marked_by = maps::NOBODY;
        (*run).again = 0;
    }
}

/// `out_of_memory` returns. If nothing was chosen and nothing marked, no process there may be killed.
#[inline(always)]
pub fn ends() {
    let Some(run) = maps::RUN.get_ptr_mut(0) else { return };
    let mut reader = Reader::default();
    // SAFETY: a pointer into the map, checked for NULL; still under `oom_lock`.
    unsafe {
        if (*run).by != maps::caller() {
            return;
        }
        let oc = (*run).oc;
        let mut chosen = 0u64;
        let read = reader.copy(&raw mut chosen, oc, layout!(oc_chosen));
        let memcg = reader.pointer(oc, layout!(oc_memcg));
        let mut id = 0u64;
        // `chosen` is -1 while an earlier victim is not gone yet. That victim was reported.
        if read != 0
            && chosen == 0
            && (*run).first == 0
            && memcg != 0
            && memcg::id(&mut reader, &raw mut id, memcg::css(memcg)) != 0
            && unkilled::is_due(id, OUTCOME_NO_KILLABLE_PROCESS)
        {
            let seq = maps::next_seq();
            let oom = &raw const (*run).oom;
            unkilled::report(&mut reader, seq, OUTCOME_NO_KILLABLE_PROCESS, memcg, oom);
        }
        (*run).by = maps::NOBODY;
        (*run).marked_by = maps::NOBODY;
    }
}

/// # Safety
/// `run` must be writable.
#[inline(always)]
unsafe fn oom_control(run: *mut Run, source: u32, oc: u64) {
    let mut reader = Reader::default();
    // SAFETY: `run` is writable by this function's contract; all fields are integers.
    unsafe {
        let to: *mut OomControl = &raw mut (*run).oom;
        (*to).source = source;
        (*to).reserved = 0;
        let mut memcg = 0u64;
        let mut present = 0;
        if reader.copy(&raw mut memcg, oc, layout!(oc_memcg)) != 0 {
            if memcg == 0 {
                present |= oc_fact::GLOBAL;
            } else {
                let id = memcg::id(&mut reader, &raw mut (*to).oom_memcg_id, memcg::css(memcg));
                present |= id * oc_fact::MEMCG;
            }
        }
        present |= reader.copy(&raw mut (*to).gfp_mask, oc, layout!(oc_gfp_mask)) * oc_fact::GFP_MASK;
        present |= reader.copy(&raw mut (*to).order, oc, layout!(oc_order)) * oc_fact::ORDER;
        present |= reader.copy(&raw mut (*to).total_pages, oc, layout!(oc_totalpages)) * oc_fact::TOTAL_PAGES;
        present |=
            reader.copy(&raw mut (*to).chosen_points, oc, layout!(oc_chosen_points)) * oc_fact::CHOSEN_POINTS;
        present |= reader.copy(&raw mut (*to).constraint, oc, layout!(oc_constraint)) * oc_fact::CONSTRAINT;
        (*to).present = present;
    }
}
