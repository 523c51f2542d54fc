//! A mark of the killer's: the record of its victim.
//!
//! It runs under the kernel's one `oom_lock`, so nothing here races with itself.

use core::{ffi::c_void, hint::black_box, mem::offset_of, ptr};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_get_current_task, bpf_probe_read_user, bpf_probe_read_user_str, bpf_ringbuf_output},
    },
};
use aya_log_ebpf::debug;
use oomtrace_common::{
    counter,
    layout::{ABSENT, COMMAND_LINE_PROGRAM},
    record::{
        COMMAND_LINE_LEN, FLAG_COMMAND_LINE_CUT, FLAG_PID_ONLY, FLAG_SIGNALLED, FLAG_SIGNALS_FOLLOWED,
        Header, KIND_OOM_KILL, Lineage, OomKill, SOURCE_NONE, oc_fact, task_fact,
    },
};

use crate::{
    maps::{self, Run},
    memcg,
    memory::{Reader, layout},
    signal::{self, Sent},
    task,
};

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
    let mut task = match maps::SIGKILLS.get_ptr(pid) {
        // SAFETY: a pointer into the map, checked for NULL. A task that is gone has another id, or none, at its place.
        Some(note) => unsafe { (*note).task },
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
        // Written and read back, it is a number to the verifier, and no pointer.
        ptr::write_volatile(&raw mut (*run).marked_at, ctx.as_ptr() as u64);
        let at = ptr::read_volatile(&raw const (*run).marked_at);
        (*to).flags = sent_flags(&mut reader, run, task, at);
        task::facts(&mut reader, &raw mut (*to).trigger, bpf_get_current_task());

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
        let in_run = (*run).by == caller && maps::is_below(at, (*run).oc);
        if in_run && (*run).oom.source != SOURCE_NONE {
            if (*run).first == 0 {
                (*run).first = seq;
            }
            (*to).run = (*run).first;
            (*to).oom = (*run).oom;
            // The score is that of the task chosen, not of those killed with it.
            (*run).oom.present &= !oc_fact::CHOSEN_POINTS;
        }
        (*run).marked_by = caller;
        (*run).marked_ns = bpf_ktime_get_boot_ns();
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
        (*to).header = Header { kind: KIND_OOM_KILL, len: size as u32, seq, boot_time_ns: (*run).marked_ns };
        bpf_ringbuf_output((&raw const maps::KILLS).cast_mut().cast(), to.cast(), size, 0)
    };
    maps::count(if status < 0 { counter::RING_FULL } else { counter::EMITTED }, 1);
    maps::count(counter::READ_FAILED, reader.failed());
    debug!(ctx, "mark_victim: seq {} status {} failed reads {}", seq, status, reader.failed());
}

/// Whether the killer sent the victim its SIGKILL, as the flags of a record say it.
///
/// # Safety
/// `run` must be writable.
#[inline(always)]
unsafe fn sent_flags(reader: &mut Reader, run: *mut Run, task: u64, at: u64) -> u32 {
    let sent = signal::sent_to(reader, task, at);
    // SAFETY: by this function's contract.
    let unnoted = unsafe {
        let unnoted = (*run).unnoted_by == maps::caller();
        (*run).unnoted_by = maps::NOBODY;
        unnoted
    };
    match sent {
        Sent::ByTheKiller => FLAG_SIGNALLED | FLAG_SIGNALS_FOLLOWED,
        Sent::No if layout!(follow_signals) != ABSENT && !unnoted => FLAG_SIGNALS_FOLLOWED,
        _ => 0,
    }
}

/// The start of the victim's command line, where the victim itself runs the killer: it is in
/// its own memory, which this program may read as far as it is resident.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
unsafe fn command_line(reader: &mut Reader, to: *mut OomKill, mm: u64) {
    const MOST: u64 = COMMAND_LINE_LEN as u64 - 1;
    // SAFETY: the helpers take no pointer but one to the record, which has room for MOST bytes and a NUL.
    unsafe {
        (*to).command_line_len = 0;
        if layout!(command_line) == ABSENT {
            return;
        }
        let own = reader.pointer(bpf_get_current_task(), layout!(task_mm));
        if mm == 0 || own != mm {
            return;
        }
        let start = reader.pointer(mm, layout!(mm_arg_start));
        let len = reader.pointer(mm, layout!(mm_arg_end)).wrapping_sub(start);
        let most = if len > MOST { MOST } else { len };
        let most = black_box(most) & MOST;
        let text = (&raw mut (*to).command_line).cast();
        let from = start as *const c_void;
        // Not resident is no failure: `/proc` may still have it.
        let kept = if layout!(command_line) == COMMAND_LINE_PROGRAM {
            // With its NUL. Without one it is no argument, but a title that a process gave itself: `/proc` has all of it.
            let read = bpf_probe_read_user_str(text, most as u32 + 1, from);
            if read < 0 || (read as u64 > most && len <= MOST) { 0 } else { read as u64 }
        } else if bpf_probe_read_user(text, most as u32, from) == 0 {
            most
        } else {
            0
        };
        if kept > most || (kept == most && len > MOST) {
            (*to).flags |= FLAG_COMMAND_LINE_CUT;
        }
        (*to).command_line_len = if kept > most { most as u32 } else { kept as u32 };
    }
}
