//! Facts of a task, read from the task itself. Never from `current`, which during an OOM is the task that
//! runs the OOM killer.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use oomtrace_common::layout::ABSENT;
use oomtrace_common::record::{Memory, Task, Tasks, memory_fact, task_fact, tasks_fact};

use crate::{
    memcg,
    memory::{Reader, layout},
};

/// Fills in `to` from the `task_struct` at `task`. Returns the css of its `mem_cgroup`.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn facts(reader: &mut Reader, to: *mut Task, task: u64) -> u64 {
    let signal = reader.pointer(task, layout!(task_signal));
    let leader = reader.pointer(task, layout!(task_group_leader));
    // SAFETY: `to` is writable by this function's contract, and so is each of its fields; all are integers.
    unsafe {
        (*to).reserved = 0;
        let tid = reader.copy(&raw mut (*to).tid, task, layout!(task_pid));
        let tgid = reader.copy(&raw mut (*to).tgid, task, layout!(task_tgid));
        let mut present = (tid & tgid) * task_fact::IDS;
        present |= reader.copy(&raw mut (*to).comm, task, layout!(task_comm)) * task_fact::COMM;

        let cred = reader.pointer(task, layout!(task_real_cred));
        present |= reader.copy(&raw mut (*to).uid, cred, layout!(cred_uid)) * task_fact::UID;

        present |= namespace_tgid(reader, &raw mut (*to).namespace_tgid, signal) * task_fact::NAMESPACE_TGID;

        let parent = reader.pointer(leader, layout!(task_real_parent));
        present |= reader.copy(&raw mut (*to).parent_tgid, parent, layout!(task_tgid)) * task_fact::PARENT;
        present |= reader.copy(&raw mut (*to).start_boot_ns, leader, layout!(task_start_boottime))
            * task_fact::START;

        let mut adj = 0i16;
        present |=
            reader.copy(&raw mut adj, signal, layout!(signal_oom_score_adj)) * task_fact::OOM_SCORE_ADJ;
        (*to).oom_score_adj = i32::from(adj);

        let css_set = reader.pointer(task, layout!(task_cgroups));
        let css = reader.pointer(css_set, layout!(css_set_memory));
        present |= memcg::id(reader, &raw mut (*to).memcg_id, css) * task_fact::MEMCG;

        (*to).present = present;
        css
    }
}

/// The process's id in its own pid namespace: the last id in its `struct pid`.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn namespace_tgid(reader: &mut Reader, to: *mut u32, signal: u64) -> u32 {
    // MAX_PID_NS_LEVEL.
    const DEEPEST: u32 = 32;
    let pid = reader.pointer(signal, layout!(signal_pid_tgid));
    let level = reader.u32(pid, layout!(pid_level)) & (DEEPEST * 2 - 1);
    let upid = pid
        .wrapping_add(u64::from(layout!(pid_numbers)))
        .wrapping_add(u64::from(level) * u64::from(layout!(upid_size)));
    // SAFETY: `to` is writable by this function's contract.
    unsafe { reader.copy(to, upid, layout!(upid_nr)) }
}

/// Fills in `to` from the `mm_struct` at `mm`.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn memory(reader: &mut Reader, to: *mut Memory, mm: u64) {
    // SAFETY: `to` is writable by this function's contract, and so is each of its fields; all are integers.
    unsafe {
        let mut present = 0;
        let mut fact = |read: u32, bit: u64| present |= u64::from(read) * bit;
        fact(reader.copy(&raw mut (*to).total_vm_pages, mm, layout!(mm_total_vm)), memory_fact::TOTAL_VM);
        fact(reader.copy(&raw mut (*to).anon_pages, mm, layout!(mm_rss_anon)), memory_fact::ANON);
        fact(reader.copy(&raw mut (*to).file_pages, mm, layout!(mm_rss_file)), memory_fact::FILE);
        fact(reader.copy(&raw mut (*to).shmem_pages, mm, layout!(mm_rss_shmem)), memory_fact::SHMEM);
        fact(reader.copy(&raw mut (*to).swap_entries, mm, layout!(mm_rss_swap)), memory_fact::SWAP);
        fact(
            reader.copy(&raw mut (*to).pgtables_bytes, mm, layout!(mm_pgtables_bytes)),
            memory_fact::PGTABLES,
        );
        (*to).present = present;
    }
}

/// Fills in `to` from the `task_struct` at `task`: its threads, and what its cgroup of the pids hierarchy counts.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
pub unsafe fn tasks(reader: &mut Reader, to: *mut Tasks, task: u64) {
    let signal = reader.pointer(task, layout!(task_signal));
    let css_set = reader.pointer(task, layout!(task_cgroups));
    let css = reader.pointer(css_set, layout!(css_set_pids));
    let pids = css.wrapping_sub(u64::from(layout!(pids_cgroup_css)));
    // SAFETY: `to` is writable by this function's contract, and so is each of its fields; all are integers.
    unsafe {
        let mut present = 0;
        let mut fact = |read: u32, bit: u32| present |= read * bit;
        fact(reader.copy(&raw mut (*to).threads, signal, layout!(signal_nr_threads)), tasks_fact::THREADS);
        if layout!(css_set_pids) != ABSENT {
            fact(memcg::id(reader, &raw mut (*to).cgroup_id, css), tasks_fact::CGROUP);
            let parent = reader.pointer(css, layout!(css_parent));
            fact(is_not_zero(parent), tasks_fact::COUNTED);
            let cgroup = reader.pointer(css, layout!(css_cgroup));
            let root = reader.pointer(cgroup, layout!(cgroup_root));
            let mut hierarchy = 0u32;
            let read = reader.copy(&raw mut hierarchy, root, layout!(cgroup_root_hierarchy_id));
            let same = is_not_zero(u64::from(hierarchy ^ layout!(memory_hierarchy_id))) ^ 1;
            fact(read & same, tasks_fact::IN_MEMORY_HIERARCHY);
            fact(reader.copy(&raw mut (*to).count, pids, layout!(pids_cgroup_counter)), tasks_fact::COUNT);
            fact(reader.copy(&raw mut (*to).limit, pids, layout!(pids_cgroup_limit)), tasks_fact::LIMIT);
            fact(reader.copy(&raw mut (*to).peak, pids, layout!(pids_cgroup_watermark)), tasks_fact::PEAK);
        }
        (*to).present = present;
    }
}

/// 0 for 0, else 1, without a branch.
#[inline(always)]
fn is_not_zero(number: u64) -> u32 {
    ((number | number.wrapping_neg()) >> 63) as u32
}

/// `PF_EXITING`: the calling task is exiting.
#[inline(always)]
pub fn is_exiting(reader: &mut Reader) -> bool {
    const PF_EXITING: u32 = 4;
    // SAFETY: the helper takes no argument.
    let current = unsafe { bpf_get_current_task() };
    reader.u32(current, layout!(task_flags)) & PF_EXITING != 0
}
