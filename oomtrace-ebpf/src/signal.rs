//! SIGKILLs that the kernel itself sends. They show whether a victim was really killed, who is killed with
//! it, and when the OOM killer kills a process again that it had marked before.
//!
//! Other parts of the kernel send such signals too. So time alone is no proof: a signal of the OOM killer is
//! sent from deeper in the caller's stack than the place where the OOM killer runs.

use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_boot_ns};
use oomtrace_common::{
    counter,
    record::{Header, KIND_SHARED_MM_KILL, SharedMmKill},
};

use crate::{
    maps::{self, Run, Sigkill},
    memory::{Reader, layout},
    task,
};

/// How long after a mark the OOM killer may still run, if no function hook sees its end. It goes over all
/// processes, and a slow console may delay it before that.
const AT_WORK_NS: u64 = 1_000_000_000;

/// What happened with the SIGKILL of a marked task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// None was sent.
    No,
    /// The OOM killer has just sent it.
    ByTheKiller,
    /// This caller sent one, but not from where the OOM killer sends it.
    Unclear,
}

/// The kernel itself has sent SIGKILL to `task`.
#[inline(always)]
pub fn kernel_sent_sigkill<C: EbpfContext>(ctx: &C, task: u64) {
    let caller = maps::caller();
    // The idle task never runs the OOM killer.
    if caller == maps::NOBODY {
        return;
    }
    let mut reader = Reader::default();
    let tid = reader.u32(task, layout!(task_pid));
    let mut note = Sigkill {
        by: caller,
        task,
        // SAFETY: the helper takes no argument.
        sent_ns: unsafe { bpf_ktime_get_boot_ns() },
        at: maps::address_of(ctx),
        start_ns: reader.u64(task, layout!(task_start_boottime)),
        repeated: 0,
    };
    // An exiting process kills others too: the first process of a pid namespace kills all in it, a tracer its
    // tracees. (If an exiting process itself runs the OOM killer, it is not followed. Then a second pass is
    // not recognised, and is reported as a `gap`.)
    if !task::is_exiting(&mut reader) {
        // SAFETY: a pointer into the map, checked for NULL.
        note.repeated =
            maps::RUN.get_ptr_mut(0).map_or(0, |run| unsafe { after_a_mark(run, &mut reader, &note) });
    }
    if maps::SIGKILLS.insert(tid, note, 0).is_err()
        && let Some(run) = maps::RUN.get_ptr_mut(0)
    {
        // SAFETY: a pointer into the map, checked for NULL; a whole integer.
        unsafe { (*run).unnoted_by = caller };
    }
}

/// Handles a signal of the OOM killer after a mark. Returns 1 if it kills a process again that it had marked
/// before.
///
/// # Safety
/// `run` must be writable. Only the task that runs the OOM killer gets past the first lines, under
/// `oom_lock`.
#[inline(always)]
unsafe fn after_a_mark(run: *mut Run, reader: &mut Reader, note: &Sigkill) -> u64 {
    // SAFETY: by this function's contract.
    unsafe {
        let in_run = (*run).by == note.by && maps::is_below(note.at, (*run).oc);
        let at_work = in_run || note.sent_ns.wrapping_sub((*run).marked_ns) < AT_WORK_NS;
        let after = (*run).marked_by == note.by && at_work && maps::is_below(note.at, (*run).marked_at);
        if !after && !in_run {
            return 0;
        }
        let signal = reader.pointer(note.task, layout!(task_signal));
        let marked_before = reader.pointer(signal, layout!(signal_oom_mm)) != 0;
        // An exited leader has no mm, but its threads may still share the victim's.
        let mm = reader.pointer(note.task, layout!(task_mm));
        let tgid = u64::from(reader.u32(note.task, layout!(task_tgid)));
        // After each mark the OOM killer goes over all processes that share the victim's memory.
        let shares = after && (*run).victim_mm != 0 && mm == (*run).victim_mm && tgid != (*run).victim_tgid;
        if marked_before {
            // This process was reported when it was marked.
            if !shares {
                (*run).again = 1;
                maps::count(counter::REPEATED, 1);
                return 1;
            }
        } else if shares && (*run).again == 0 && (*run).shared_tgid != tgid {
            // Processes that share memory with a victim of a group are visited repeatedly, and may still be
            // marked themselves.
            (*run).shared_tgid = tgid;
            shared_mm_kill(reader, note.task, (*run).victim);
        }
        0
    }
}

/// Whether the OOM killer has just sent SIGKILL to the `task` that it marks at the stack address `at`.
#[inline(always)]
pub fn sent_to(reader: &mut Reader, task: u64, at: u64) -> Sent {
    let tid = reader.u32(task, layout!(task_pid));
    let Some(note) = maps::SIGKILLS.get_ptr(tid) else { return Sent::No };
    // SAFETY: a pointer into the map, checked for NULL; it is not written while the OOM killer holds the
    // victim's `task_lock`.
    let note = unsafe { *note };
    let start_ns = reader.u64(task, layout!(task_start_boottime));
    // SAFETY: the helper takes no argument.
    let age = unsafe { bpf_ktime_get_boot_ns() }.wrapping_sub(note.sent_ns);
    if note.task != task || note.start_ns != start_ns || note.by != maps::caller() || age > AT_WORK_NS {
        return Sent::No;
    }
    if !maps::is_below(note.at, at) {
        // A signal that was sent from nearer the top of the stack is from before this run.
        return if maps::is_below(at, note.at) { Sent::No } else { Sent::Unclear };
    }
    // It belongs to this mark. The next mark has its own signal, or is no kill.
    let _there = maps::SIGKILLS.remove(tid);
    maps::count(counter::KILLED, 1);
    // A process is marked again if the OOM killer finds another thread of it.
    maps::count(counter::REPEATED, 0u64.wrapping_sub(note.repeated));
    Sent::ByTheKiller
}

/// Sends the record of a process that dies because it shares the memory of the victim `of`.
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
}
