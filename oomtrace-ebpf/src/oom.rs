//! The killer: its runs, its victims, and whom it kills besides.
//!
//! All of it runs under the kernel's one `oom_lock`, so nothing here races with itself.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_get_current_task, bpf_probe_read_user, bpf_ringbuf_output},
    },
};
use aya_log_ebpf::debug;
use oomtrace_common::{
    counter,
    record::{
        COMMAND_LINE_LEN, FLAG_COMMAND_LINE_CUT, FLAG_PID_ONLY, FLAG_SIGNALLED, FLAG_SIGNALS_FOLLOWED,
        Header, KIND_MEMCG_OOM, KIND_OOM_KILL, KIND_SHARED_MM_KILL, Lineage, MESSAGE_LEN, MemcgOom,
        OUTCOME_NO_KILLABLE_PROCESS, OUTCOME_RELIEVED, OomControl, OomKill, SOURCE_NONE, SharedMmKill,
        oc_fact, task_fact,
    },
};

use crate::{
    maps::{self, Call, Run},
    memcg,
    memory::{Reader, layout},
    task,
};

/// An `oom_control` of which nothing was read.
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
pub fn run_starts(source: u32, oc: u64) {
    let Some(run) = maps::RUN.get_ptr_mut(0) else { return };
    if let Some(call) = maps::CALLS.get_ptr_mut(maps::caller()) {
        // SAFETY: a pointer into the map, checked for NULL; only this task has this key.
        unsafe { (*call).ran = 1 };
    }
    // SAFETY: a pointer into the map, checked for NULL; `oom_lock` serialises its writers.
    unsafe {
        (*run).by = maps::caller();
        (*run).first = 0;
        (*run).oc = oc;
        (*run).chosen = 0;
        oom_control(run, source, oc);
        // The killer works these out later; `oom_kill_process` will have them.
        (*run).oom.present &= !(oc_fact::TOTAL_PAGES | oc_fact::CONSTRAINT | oc_fact::CHOSEN_POINTS);
    }
}

/// `out_of_memory` returns: with nothing chosen and nobody marked, nothing there may be killed.
#[inline(always)]
pub fn run_ends() {
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
        // Chosen is -1 where an earlier victim has not yet gone: that one was told.
        if read != 0
            && chosen == 0
            && (*run).first == 0
            && memcg != 0
            && is_due(memcg, OUTCOME_NO_KILLABLE_PROCESS)
        {
            let seq = maps::next_seq();
            nobody_killed(&mut reader, seq, OUTCOME_NO_KILLABLE_PROCESS, memcg, &raw const (*run).oom);
        }
        (*run).by = 0;
    }
    maps::count(counter::READ_FAILED, reader.failed());
}

/// `mem_cgroup_out_of_memory(memcg, gfp_mask, order)` was entered.
#[inline(always)]
pub fn memcg_ran_out(memcg: u64, gfp_mask: u32, order: i32) {
    let call = Call { memcg, gfp_mask, order, ran: 0 };
    // Without it one may not be told that was relieved: no kill is lost.
    let _kept = maps::CALLS.insert(maps::caller(), call, 0);
}

/// Whether it is time to tell of it (again): once a second of one cgroup and outcome.
#[inline(always)]
fn is_due(memcg: u64, outcome: u32) -> bool {
    const PAUSE_NS: u64 = 1_000_000_000;
    // A `mem_cgroup` is aligned to more than there are outcomes.
    let key = memcg | u64::from(outcome);
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(last) = maps::UNKILLED.get_ptr(key) {
        // SAFETY: a pointer into the map, checked for NULL; a whole integer.
        if now.wrapping_sub(unsafe { *last }) < PAUSE_NS {
            return false;
        }
    }
    // Without it the next one is told too.
    let _kept = maps::UNKILLED.insert(key, now, 0);
    true
}

/// `PF_EXITING`: the calling task is on its way out.
#[inline(always)]
fn is_exiting(reader: &mut Reader) -> bool {
    const PF_EXITING: u32 = 4;
    // SAFETY: the helper takes no argument.
    let current = unsafe { bpf_get_current_task() };
    reader.u32(current, layout!(task_flags)) & PF_EXITING != 0
}

/// `mem_cgroup_out_of_memory` returns: true without the killer having run, if enough was free by then.
#[inline(always)]
pub fn memcg_call_ends(source: u32, returned: u64) {
    // SIGNAL_GROUP_EXIT: a caller that is dying itself gets true as well, and needs nothing.
    const DYING: u32 = 4;
    let caller = maps::caller();
    let Some(call) = maps::CALLS.get_ptr(caller) else { return };
    // SAFETY: a pointer into the map, checked for NULL; only this task has this key.
    let call = unsafe { *call };
    // The key was there a moment ago and is this task's own.
    let _there = maps::CALLS.remove(caller);
    if call.ran != 0 || returned & 0xff == 0 {
        return;
    }
    let mut reader = Reader::default();
    // SAFETY: the helper takes no argument.
    let current = unsafe { bpf_get_current_task() };
    let signal = reader.pointer(current, layout!(task_signal));
    let dying = reader.u32(signal, layout!(signal_flags)) & DYING != 0 || is_exiting(&mut reader);
    if !dying && is_due(call.memcg, OUTCOME_RELIEVED) {
        let mut oom = OomControl {
            source,
            present: oc_fact::GFP_MASK | oc_fact::ORDER,
            gfp_mask: call.gfp_mask,
            order: call.order,
            ..NOTHING_KNOWN
        };
        // SAFETY: `oom` is a local; `nobody_killed` only reads it.
        unsafe {
            let id = memcg::id(&mut reader, &raw mut oom.oom_memcg_id, memcg::css(call.memcg));
            oom.present |= id * oc_fact::MEMCG;
            // Seen outside `oom_lock`, where no number can be given.
            nobody_killed(&mut reader, 0, OUTCOME_RELIEVED, call.memcg, &raw const oom);
        }
    }
    maps::count(counter::READ_FAILED, reader.failed());
}

/// Tells of a memory cgroup that ran out without a victim.
///
/// # Safety
/// `oom` must be readable.
#[inline(always)]
pub unsafe fn nobody_killed(reader: &mut Reader, seq: u64, outcome: u32, memcg: u64, oom: *const OomControl) {
    let Some(mut entry) = maps::KILLS.reserve::<MemcgOom>(0) else {
        maps::count(counter::RING_FULL, 1);
        return;
    };
    let to = entry.as_mut_ptr();
    // SAFETY: the reservation has room for the record; what of it is not written is not counted in its length.
    unsafe {
        (*to).outcome = outcome;
        (*to).reserved = 0;
        (*to).oom = *oom;
        trigger(reader, &raw mut (*to).trigger);
        memcg::walk(reader, &raw mut (*to).lineage, memcg::css(memcg));
        let levels = memcg::levels_bytes(&raw const (*to).lineage).unwrap_or(0);
        let size = (offset_of!(MemcgOom, lineage) + offset_of!(Lineage, levels)) as u64 + levels;
        (*to).header =
            Header { kind: KIND_MEMCG_OOM, len: size as u32, seq, boot_time_ns: bpf_ktime_get_boot_ns() };
    }
    entry.submit(0);
    maps::count(counter::EMITTED, 1);
}

/// `oom_kill_process(oc, message)` was entered.
#[inline(always)]
pub fn chosen(source: u32, oc: u64, message: u64) {
    let Some(run) = maps::RUN.get_ptr_mut(0) else { return };
    let mut reader = Reader::default();
    // SAFETY: a pointer into the map, checked for NULL; `oom_lock` serialises its writers.
    unsafe {
        if (*run).by != maps::caller() {
            (*run).by = maps::caller();
            (*run).first = 0;
        }
        (*run).chosen = reader.pointer(oc, layout!(oc_chosen));
        oom_control(run, source, oc);
        let len = reader.string((&raw mut (*run).oom.message).cast(), MESSAGE_LEN as u32, message);
        if len > 0 {
            (*run).oom.present |= oc_fact::MESSAGE;
        }
    }
    maps::count(counter::READ_FAILED, reader.failed());
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
    maps::count(counter::READ_FAILED, reader.failed());
}

/// `mark_victim(task, uid)`.
#[inline(always)]
pub fn mark_victim<C: EbpfContext>(ctx: &C, task: u64) {
    victim(ctx, task, 0);
}

/// `mark_victim(pid)`: the task itself is found where the killer has just had it in hand.
#[inline(always)]
pub fn mark_victim_by_pid<C: EbpfContext>(ctx: &C, pid: u32) {
    let mut reader = Reader::default();
    // Its SIGKILL came just before, if it is a kill; the caller itself, if it was already exiting.
    let mut task = match maps::SIGKILL.get_ptr(0) {
        // SAFETY: a pointer into the map, checked for NULL.
        Some(last) => unsafe { (*last).task },
        None => 0,
    };
    if reader.u32(task, layout!(task_pid)) != pid {
        // SAFETY: the helper takes no argument.
        task = unsafe { bpf_get_current_task() };
    }
    if reader.u32(task, layout!(task_pid)) != pid {
        task = match maps::RUN.get_ptr(0) {
            // SAFETY: a pointer into the map, checked for NULL.
            Some(run) => unsafe { (*run).chosen },
            None => 0,
        };
    }
    if reader.u32(task, layout!(task_pid)) != pid {
        maps::count(counter::TASK_UNKNOWN, 1);
        task = 0;
    }
    victim(ctx, task, pid);
}

/// Builds and sends the record of a victim; `task` is 0 if only `pid` is known.
#[inline(always)]
fn victim<C: EbpfContext>(ctx: &C, task: u64, pid: u32) {
    let seq = maps::next_seq();
    let caller = maps::caller();
    let (Some(to), Some(run)) = (maps::KILL_SCRATCH.get_ptr_mut(0), maps::RUN.get_ptr_mut(0)) else {
        maps::count(counter::NO_SCRATCH, 1);
        return;
    };
    let mut reader = Reader::default();
    // SAFETY: `to` and `run` point into map values, checked for NULL; `oom_lock` serialises their writers.
    let status = unsafe {
        (*to).flags = FLAG_SIGNALS_FOLLOWED;
        if let Some(last) = maps::SIGKILL.get_ptr_mut(0)
            && (*last).by == caller
            && (*last).task == task
        {
            // It is this mark's: the next one has one of its own, or was not killed.
            (*last).task = 0;
            (*to).flags |= FLAG_SIGNALLED;
            maps::count(counter::KILLED, 1);
            // A process is marked again if the killer met another thread of it.
            maps::count(counter::REPEATED, 0u64.wrapping_sub((*last).repeated));
        }
        trigger(&mut reader, &raw mut (*to).trigger);

        let mm = reader.pointer(task, layout!(task_mm));
        if task == 0 {
            (*to).flags |= FLAG_PID_ONLY;
            (*to).victim.present = task_fact::IDS;
            (*to).victim.tid = pid;
            (*to).victim.tgid = 0;
            (*to).memory.present = 0;
            (*to).command_line_len = 0;
            (*to).lineage.flags = 0;
            (*to).lineage.path_len = 0;
            (*to).lineage.level_count = 0;
        } else {
            let css = task::facts(&mut reader, &raw mut (*to).victim, task);
            task::memory(&mut reader, &raw mut (*to).memory, mm);
            command_line(&mut reader, to, mm);
            memcg::walk(&mut reader, &raw mut (*to).lineage, css);
        }

        (*to).run = 0;
        (*to).oom.source = SOURCE_NONE;
        if (*run).by == caller && (*run).oom.source != SOURCE_NONE {
            if (*run).first == 0 {
                (*run).first = seq;
            }
            (*to).run = (*run).first;
            (*to).oom = (*run).oom;
            // The score is that of the task chosen, not of those killed with it.
            (*run).oom.present &= !oc_fact::CHOSEN_POINTS;
        }
        (*run).marked_by = caller;
        (*run).victim = seq;
        (*run).victim_mm = mm;
        (*run).victim_tgid = u64::from((*to).victim.tgid);
        (*run).shared_tgid = 0;
        (*run).again = 0;

        // Not with a default of 0: the verifiers lose sight of its bound then.
        let Some(levels) = memcg::levels_bytes(&raw const (*to).lineage) else {
            maps::count(counter::NO_SCRATCH, 1);
            return;
        };
        let size = (offset_of!(OomKill, lineage) + offset_of!(Lineage, levels)) as u64 + levels;
        (*to).header =
            Header { kind: KIND_OOM_KILL, len: size as u32, seq, boot_time_ns: bpf_ktime_get_boot_ns() };
        bpf_ringbuf_output((&raw const maps::KILLS).cast_mut().cast(), to.cast(), size, 0)
    };
    sent(status, &reader);
    debug!(ctx, "mark_victim: seq {} status {} failed reads {}", seq, status, reader.failed());
}

/// The start of the victim's command line, where the victim itself runs the killer: it is in
/// its own memory, which this program may read as far as it is resident.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
unsafe fn command_line(reader: &mut Reader, to: *mut OomKill, mm: u64) {
    const MOST: u64 = COMMAND_LINE_LEN as u64 - 1;
    // SAFETY: the helpers take no pointer but one to the record, which has room for MOST bytes.
    unsafe {
        (*to).command_line_len = 0;
        let own = reader.pointer(bpf_get_current_task(), layout!(task_mm));
        if mm == 0 || own != mm {
            return;
        }
        let start = reader.pointer(mm, layout!(mm_arg_start));
        let len = reader.pointer(mm, layout!(mm_arg_end)).wrapping_sub(start);
        let kept = if len > MOST { MOST } else { len };
        let kept = core::hint::black_box(kept) & MOST;
        let text = (&raw mut (*to).command_line).cast();
        // Not resident is no failure: `/proc` may still tell.
        if bpf_probe_read_user(text, kept as u32, start as *const c_void) == 0 {
            (*to).command_line_len = kept as u32;
            if len > MOST {
                (*to).flags |= FLAG_COMMAND_LINE_CUT;
            }
        }
    }
}

/// The kernel itself has sent SIGKILL to `task`.
#[inline(always)]
pub fn kernel_sent_sigkill(task: u64) {
    let caller = maps::caller();
    if let Some(last) = maps::SIGKILL.get_ptr_mut(0) {
        // SAFETY: a pointer into the map of this CPU, checked for NULL.
        unsafe {
            (*last).by = caller;
            (*last).task = task;
            (*last).repeated = 0;
        }
    }
    let Some(run) = maps::RUN.get_ptr_mut(0) else { return };
    let mut reader = Reader::default();
    // Who exits kills as well: the first process of a pid namespace all others in it, a tracer its tracees. If it ran the
    // killer before, that may look like the killer's doing. (One that exits and runs the killer itself is not followed:
    // then a second pass is not known as one, and told as a `gap`.)
    if is_exiting(&mut reader) {
        return;
    }
    let signal = reader.pointer(task, layout!(task_signal));
    let marked_before = reader.pointer(signal, layout!(signal_oom_mm)) != 0;
    // A leader that has exited has no mm, but its threads may still share the victim's.
    let mm = reader.pointer(task, layout!(task_mm));
    let tgid = u64::from(reader.u32(task, layout!(task_tgid)));
    // SAFETY: a pointer into the map, checked for NULL. Only the task that runs the killer goes on, under `oom_lock`.
    unsafe {
        let marked_by_caller = (*run).marked_by == caller;
        if !marked_by_caller && (*run).by != caller {
            return;
        }
        let (victim, victim_mm, victim_tgid) = ((*run).victim, (*run).victim_mm, (*run).victim_tgid);
        // After each mark the killer goes over all processes that share the victim's memory.
        let shares = marked_by_caller && victim_mm != 0 && mm == victim_mm && tgid != victim_tgid;
        if marked_before {
            // It was told of when it was marked.
            if !shares {
                (*run).again = 1;
                repeated();
            }
        } else if shares && (*run).again == 0 && (*run).shared_tgid != tgid {
            // Those that share with a victim of a group are gone over again and again, and may be marked themselves yet.
            (*run).shared_tgid = tgid;
            shared_mm_kill(&mut reader, task, victim);
        }
    }
}

/// The killer passed again over a process that it had marked before.
#[inline(always)]
fn repeated() {
    maps::count(counter::REPEATED, 1);
    if let Some(last) = maps::SIGKILL.get_ptr_mut(0) {
        // SAFETY: a pointer into the map of this CPU, checked for NULL.
        unsafe { (*last).repeated = 1 };
    }
}

/// Tells of a process that dies because it shares the memory of the victim `of`.
#[inline(always)]
fn shared_mm_kill(reader: &mut Reader, task: u64, of: u64) {
    let seq = maps::next_seq();
    let Some(mut entry) = maps::KILLS.reserve::<SharedMmKill>(0) else {
        maps::count(counter::RING_FULL, 1);
        return;
    };
    let to = entry.as_mut_ptr();
    // SAFETY: the reservation has room for the record, and each of its fields is written here.
    unsafe {
        (*to).header = Header {
            kind: KIND_SHARED_MM_KILL,
            len: size_of::<SharedMmKill>() as u32,
            seq,
            boot_time_ns: bpf_ktime_get_boot_ns(),
        };
        (*to).of = of;
        task::facts(reader, &raw mut (*to).task, task);
    }
    entry.submit(0);
    sent(0, reader);
}

/// # Safety
/// `to` must be writable.
#[inline(always)]
unsafe fn trigger(reader: &mut Reader, to: *mut oomtrace_common::record::Task) {
    // SAFETY: the helper takes no argument; `to` is writable by this function's contract.
    unsafe {
        let current = bpf_get_current_task();
        task::facts(reader, to, current);
    }
}

#[inline(always)]
fn sent(status: i64, reader: &Reader) {
    let counter = if status < 0 { counter::RING_FULL } else { counter::EMITTED };
    maps::count(counter, 1);
    maps::count(counter::READ_FAILED, reader.failed());
}
