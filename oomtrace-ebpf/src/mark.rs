//! A mark of the OOM killer: builds the record of its victim.
//!
//! It runs under the kernel's single `oom_lock`, so nothing here races with itself.

use core::{ffi::c_void, hint::black_box, ptr};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{
            bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str,
        },
    },
};
use aya_log_ebpf::debug;
use oomtrace_common::{
    counter,
    layout::{ABSENT, COMMAND_LINE_PROGRAM},
    record::{
        COMMAND_LINE_LEN, FLAG_COMMAND_LINE_CUT, FLAG_PID_ONLY, FLAG_SIGNALLED, FLAG_SIGNALS_FOLLOWED,
        Header, KIND_OOM_KILL, OomKill, SOURCE_NONE, STACK_LEN, oc_fact, task_fact,
    },
};

use crate::{
    early, lru,
    maps::{self, KillScratch, PARTS_FULL, Run},
    memcg::{self, Walk},
    memory::{Reader, layout},
    signal::{self, Sent},
    stack, task,
};

/// `mark_victim(task, uid)`.
#[inline(always)]
pub fn mark_victim<C: EbpfContext>(ctx: &C, task: u64) {
    victim(ctx, task, 0);
}

/// `mark_victim(pid)`: the task itself must be found where the OOM killer just used it.
#[inline(always)]
pub fn mark_victim_by_pid<C: EbpfContext>(ctx: &C, pid: u32) {
    let mut reader = Reader::default();
    // For a kill, its SIGKILL came just before. If it was already exiting, it is the caller itself.
    let mut task = match maps::SIGKILLS.get_ptr(pid) {
        // SAFETY: a pointer into the map, checked for NULL. If the task is gone, its memory has another id,
        // or none.
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

/// Of a victim of which only the id is known.
///
/// # Safety
/// `to` points to a record.
#[inline(always)]
unsafe fn only_pid(to: *mut OomKill, pid: u32) {
    // SAFETY: by this function's contract.
    unsafe {
        (*to).flags |= FLAG_PID_ONLY;
        (*to).stack.task = 0;
        (*to).stack.leader = 0;
        (*to).victim.present = task_fact::IDS;
        (*to).victim.tid = pid;
        (*to).victim.tgid = 0;
        (*to).memory.present = 0;
        (*to).command_line_len = 0;
        (*to).lineage.flags = 0;
        (*to).lineage.path_len = 0;
        (*to).lineage.level_count = 0;
        (*to).tasks.present = 0;
        (*to).lru.present = 0;
    }
}

/// What a function hook read of the run that killed the victim.
///
/// # Safety
/// `to` points to a record, and `run` to the run.
#[inline(always)]
unsafe fn of_run(to: *mut OomKill, run: *mut Run, seq: u64, is_hooked: bool) {
    // SAFETY: by this function's contract.
    unsafe {
        (*to).run = 0;
        (*to).oom.source = SOURCE_NONE;
        if is_hooked {
            if (*run).first == 0 {
                (*run).first = seq;
            }
            (*to).run = (*run).first;
            (*to).oom = (*run).oom;
            // The score belongs to the chosen task, not to those that are killed with it.
            (*run).oom.present &= !oc_fact::CHOSEN_POINTS;
        }
    }
}

/// Builds and sends the record of a victim; `task` is 0 if only `pid` is known.
#[inline(always)]
fn victim<C: EbpfContext>(ctx: &C, task: u64, pid: u32) {
    let seq = maps::next_seq();
    let caller = maps::caller();
    let (Some(scratch), Some(run)) = (maps::KILL_SCRATCH.get_ptr_mut(0), maps::RUN.get_ptr_mut(0)) else {
        maps::count(counter::NO_SCRATCH, 1);
        return;
    };
    let mut reader = Reader::default();
    // SAFETY: `scratch` and `run` point into map values, checked for NULL; `oom_lock` serialises their writers.
    let status = unsafe {
        // Written and read back, so that the verifier treats it as a number and not as a pointer.
        ptr::write_volatile(&raw mut (*run).marked_at, ctx.as_ptr() as u64);
        let at = ptr::read_volatile(&raw const (*run).marked_at);
        let to = &raw mut (*scratch).kill;
        stack::begin(&raw mut (*to).stack, at, is_hooked(run, at));
        (*to).flags = sent_flags(&mut reader, run, task, at);
        task::facts(&mut reader, &raw mut (*to).trigger, bpf_get_current_task());

        let mm = reader.pointer(task, layout!(task_mm));
        if task == 0 {
            only_pid(to, pid);
        } else {
            (*to).stack.task = task;
            (*to).stack.leader = reader.pointer(task, layout!(task_group_leader));
            let css = task::facts(&mut reader, &raw mut (*to).victim, task);
            task::memory(&mut reader, &raw mut (*to).memory, mm);
            command_line(&mut reader, scratch, mm);
            let walk = Walk {
                to: &raw mut (*to).lineage,
                path: (&raw mut (*scratch).path).cast(),
                levels: (&raw mut (*scratch).parts).cast(),
            };
            memcg::walk(&mut reader, walk, css);
            task::tasks(&mut reader, &raw mut (*to).tasks, task);
            lru::facts(&mut reader, &raw mut (*to).lru, &raw mut (*scratch).lists, css);
        }

        of_run(to, run, seq, is_hooked(run, at));
        (*run).marked_by = caller;
        (*run).marked_ns = bpf_ktime_get_boot_ns();
        (*run).victim = seq;
        (*run).victim_mm = mm;
        (*run).victim_tgid = u64::from((*to).victim.tgid);
        (*run).shared_tgid = 0;
        (*run).again = 0;

        // Not with a default of 0, because then the verifiers lose its upper bound.
        let Some(levels) = memcg::levels_bytes(&raw const (*to).lineage) else {
            maps::count(counter::NO_SCRATCH, 1);
            return;
        };
        parts(scratch, levels, at);
        let size = size_of::<OomKill>() as u64 + used(scratch);
        (*to).header = Header { kind: KIND_OOM_KILL, len: size as u32, seq, boot_time_ns: (*run).marked_ns };
        early::send(to, size)
    };
    maps::count(counter::RING_FULL, u64::from(status < 0));
    debug!(ctx, "mark_victim: seq {} status {} failed reads {}", seq, status, reader.failed());
}

/// Puts the parts without a fixed length after the levels.
///
/// # Safety
/// `scratch` must be writable.
#[inline(always)]
unsafe fn parts(scratch: *mut KillScratch, levels: u64, at: u64) {
    // SAFETY: by this function's contract.
    unsafe {
        let to = &raw mut (*scratch).kill;
        ptr::write_volatile(&raw mut (*scratch).used, levels);
        let path = (&raw const (*scratch).path) as u64;
        append(scratch, ptr::read_volatile(&raw const (*to).lineage.path_len), path);
        let command_line = (&raw const (*scratch).command_line) as u64;
        append(scratch, ptr::read_volatile(&raw const (*to).command_line_len), command_line);
        (*to).stack.len = append(scratch, ptr::read_volatile(&raw const (*to).stack.len), at);
    }
}

/// Puts `len` bytes of kernel memory behind the other parts. Returns how many could be read: all or none.
///
/// # Safety
/// `scratch` must be writable.
#[inline(always)]
unsafe fn append(scratch: *mut KillScratch, len: u32, from: u64) -> u32 {
    const MOST: u64 = 2 * STACK_LEN as u64 - 1;
    // SAFETY: by this function's contract; there is room for MOST bytes behind the last place. The helper checks `from`.
    unsafe {
        let len = black_box(u64::from(len)) & MOST;
        let used = used(scratch);
        let to = (&raw mut (*scratch).parts).cast::<u8>().add(used as usize);
        let status = bpf_probe_read_kernel(to.cast(), len as u32, from as *const c_void);
        // A part that could not be read has length 0. This needs no branch.
        let len = len & ((status as u64) >> 63).wrapping_sub(1);
        ptr::write_volatile(&raw mut (*scratch).used, used + len);
        len as u32
    }
}

/// Bytes of the parts so far. Kept in the scratch: in a register the older verifiers would lose its bound.
///
/// # Safety
/// `scratch` must be readable.
#[inline(always)]
unsafe fn used(scratch: *const KillScratch) -> u64 {
    // SAFETY: by this function's contract.
    black_box(unsafe { ptr::read_volatile(&raw const (*scratch).used) }) & PARTS_FULL as u64
}

/// Whether a function hook saw the run of the OOM killer that marks at the stack address `at`. It is computed twice: if the
/// result were kept, the verifier would check everything in between twice.
///
/// # Safety
/// `run` must be readable.
#[inline(always)]
unsafe fn is_hooked(run: *const Run, at: u64) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        ptr::read_volatile(&raw const (*run).by) == maps::caller()
            && maps::is_below(at, (*run).oc)
            && (*run).oom.source != SOURCE_NONE
    }
}

/// Whether the OOM killer sent the victim its SIGKILL, as flags of a record.
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

/// The start of the victim's command line, if the victim itself runs the OOM killer. Then it is in the
/// current task's memory, and this program can read the parts that are resident.
///
/// # Safety
/// `scratch` must be writable.
#[inline(always)]
unsafe fn command_line(reader: &mut Reader, scratch: *mut KillScratch, mm: u64) {
    const MOST: u64 = COMMAND_LINE_LEN as u64 - 1;
    // SAFETY: the helpers take no pointer but one to the record, which has room for MOST bytes and a NUL.
    unsafe {
        let to = &raw mut (*scratch).kill;
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
        let text = (&raw mut (*scratch).command_line).cast();
        let from = start as *const c_void;
        // If it is not resident, this is no failure: `/proc` may still have it.
        let kept = if layout!(command_line) == COMMAND_LINE_PROGRAM {
            // Including its NUL. Without a NUL it is not an argument, but a title that the process set
            // itself: `/proc` has all of it.
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
