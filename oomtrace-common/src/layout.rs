//! Where the running kernel keeps what the programs read. User space fills in this global of the eBPF object
//! from the kernel's own BTF before it loads the programs.
//!
//! It becomes frozen read-only data, so the verifier knows the values: a fact whose member this kernel does
//! not have costs the verifier nothing.

/// The offset of a member this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// `mark_victim` passes `(struct task_struct *task, uid_t uid)`.
pub const MARK_VICTIM_TASK: u32 = 1;
/// `mark_victim` passes `(int pid)` only: before 6.9 and its backports.
pub const MARK_VICTIM_PID: u32 = 2;

/// All arguments that fit.
pub const COMMAND_LINE_FULL: u32 = 1;
/// Only the first argument.
pub const COMMAND_LINE_PROGRAM: u32 = 2;

/// Every signal that ends a process is reported.
pub const FOLLOW_ALL: u32 = 1;
/// Those that come from another cgroup, and those to the first process of a pid namespace.
pub const FOLLOW_FROM_OUTSIDE: u32 = 2;

/// The memory events of one cgroup that are reported, in the order of
/// [`crate::record::MemcgLevel::events`] and of [`KernelLayout::mem_cgroup_events`].
pub const MEMORY_EVENTS: [&str; 6] = ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"];

/// `enum lru_list` has this many lists: inactive and active anon, inactive and active file, unevictable.
pub const LRU_LISTS: usize = 5;
/// The multi-gen LRU has this many generations, each of two kinds: anon, file (`MAX_NR_GENS`, `ANON_AND_FILE`).
pub const LRU_GENERATIONS: usize = 4;
/// The most zones that any configuration of a 64-bit kernel has, and one more.
pub const MAX_ZONES: usize = 6;
/// On a host with more nodes the LRU lists are not read.
pub const MAX_NODES: usize = 8;

macro_rules! layout {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Byte offsets of kernel members, and the few constants that depend on the kernel's
        /// configuration. [`ABSENT`] where the kernel has no such member.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable))]
        pub struct KernelLayout {
            $($(#[$doc])* pub $field: u32,)*
            /// `mem_cgroup.memory_events[i]` for each of [`MEMORY_EVENTS`].
            pub mem_cgroup_events: [u32; 6],
        }

        impl KernelLayout {
            /// A layout in which nothing is known: every read is skipped.
            pub const UNKNOWN: Self = Self { $($field: ABSENT,)* mem_cgroup_events: [ABSENT; 6] };
        }
    };
}

layout! {
    /// Which arguments `mark_victim` passes: [`MARK_VICTIM_TASK`] or [`MARK_VICTIM_PID`].
    mark_victim,
    /// Whether a mark without a SIGKILL means that the process was already exiting. [`ABSENT`] where a run of
    /// a program can be skipped.
    follow_signals,
    /// How much of a victim's command line is copied: [`COMMAND_LINE_FULL`], [`COMMAND_LINE_PROGRAM`], or [`ABSENT`]
    /// for nothing.
    command_line,
    /// Which signals are reported that end processes: [`FOLLOW_ALL`], [`FOLLOW_FROM_OUTSIDE`], or [`ABSENT`] for none.
    follow_kills,
    /// Whether a part of the kernel stack is copied where no function hook sees the killer: [`ABSENT`] where `oom_control`
    /// could not be found in it.
    copy_stack,
    /// `cgroup_root.hierarchy_id` of the memory hierarchy: 0 on cgroup v2.
    memory_hierarchy_id,
    /// `task_struct.pid`: the thread's id.
    task_pid,
    /// `task_struct.tgid`: the process's id.
    task_tgid,
    /// `task_struct.flags`: `PF_*` bits.
    task_flags,
    /// `task_struct.comm`.
    task_comm,
    /// `task_struct.mm`.
    task_mm,
    /// `task_struct.signal`.
    task_signal,
    /// `task_struct.cgroups`.
    task_cgroups,
    /// `task_struct.group_leader`.
    task_group_leader,
    /// `task_struct.real_parent`.
    task_real_parent,
    /// `task_struct.real_cred`.
    task_real_cred,
    /// `task_struct.start_boottime`.
    task_start_boottime,
    /// `task_struct.alloc_lock`: not 0 while it is held. [`ABSENT`] where it is no such number (`PREEMPT_RT`).
    task_alloc_lock,
    /// `task_struct.memcg_in_oom`: the memory cgroup that the task waits for. Only for memory on cgroup v1.
    task_memcg_in_oom,
    /// `task_struct.memcg_oom_gfp_mask`; not since 6.12.
    task_memcg_oom_gfp_mask,
    /// `task_struct.memcg_oom_order`; not since 6.12.
    task_memcg_oom_order,
    /// `cred.uid`.
    cred_uid,
    /// `signal_struct.oom_score_adj`.
    signal_oom_score_adj,
    /// `signal_struct.oom_mm`: set from a process's first mark until its end.
    signal_oom_mm,
    /// `signal_struct.nr_threads`.
    signal_nr_threads,
    /// `signal_struct.flags`.
    signal_flags,
    /// `signal_struct.live`: threads that have not ended.
    signal_live,
    /// `signal_struct.pids[PIDTYPE_TGID]`.
    signal_pid_tgid,
    /// `pid.level`.
    pid_level,
    /// `pid.numbers`.
    pid_numbers,
    /// `sizeof(struct upid)`.
    upid_size,
    /// `upid.nr`.
    upid_nr,
    /// `mm_struct.arg_start`.
    mm_arg_start,
    /// `mm_struct.arg_end`.
    mm_arg_end,
    /// `mm_struct.exe_file`.
    mm_exe_file,
    /// `file.f_path.dentry`.
    file_dentry,
    /// `dentry.d_name.name`.
    dentry_name,
    /// `mm_struct.total_vm`, in pages.
    mm_total_vm,
    /// `mm_struct.pgtables_bytes`.
    mm_pgtables_bytes,
    /// The `MM_FILEPAGES` counter of `mm_struct.rss_stat`.
    mm_rss_file,
    /// The `MM_ANONPAGES` counter of `mm_struct.rss_stat`.
    mm_rss_anon,
    /// The `MM_SWAPENTS` counter of `mm_struct.rss_stat`.
    mm_rss_swap,
    /// The `MM_SHMEMPAGES` counter of `mm_struct.rss_stat`.
    mm_rss_shmem,
    /// `css_set.subsys[memory_cgrp_id]`.
    css_set_memory,
    /// `css_set.subsys[pids_cgrp_id]`.
    css_set_pids,
    /// `pids_cgroup.css`.
    pids_cgroup_css,
    /// `pids_cgroup.counter`.
    pids_cgroup_counter,
    /// `pids_cgroup.limit`.
    pids_cgroup_limit,
    /// `pids_cgroup.watermark`: from 6.1.
    pids_cgroup_watermark,
    /// `cgroup_subsys_state.cgroup`.
    css_cgroup,
    /// `cgroup_subsys_state.parent`.
    css_parent,
    /// `cgroup_subsys_state.children`: only for the sampler, as the next two.
    css_children,
    /// `cgroup_subsys_state.sibling`.
    css_sibling,
    /// `cgroup_subsys_state.flags`.
    css_flags,
    /// `cgroup.kn`.
    cgroup_kn,
    /// `cgroup.root`.
    cgroup_root,
    /// `cgroup_root.hierarchy_id`.
    cgroup_root_hierarchy_id,
    /// `kernfs_node.id`.
    kernfs_id,
    /// `kernfs_node.name`.
    kernfs_name,
    /// `mem_cgroup.css`.
    mem_cgroup_css,
    /// `mem_cgroup.memory.usage`, in pages.
    mem_cgroup_usage,
    /// `mem_cgroup.memory.max`, in pages.
    mem_cgroup_max,
    /// `mem_cgroup.memory.watermark`, in pages.
    mem_cgroup_watermark,
    /// `mem_cgroup.swap.usage` (v2) or `.memsw.usage` (v1): the same place, in pages.
    mem_cgroup_swap_usage,
    /// `mem_cgroup.swap.max` (v2) or `.memsw.max` (v1): the same place, in pages.
    mem_cgroup_swap_max,
    /// `mem_cgroup.oom_group`.
    mem_cgroup_oom_group,
    /// `mem_cgroup.oom_kill_disable`, of cgroup v1.
    mem_cgroup_oom_kill_disable,
    /// `mem_cgroup.under_oom`, of cgroup v1: how many tasks wait.
    mem_cgroup_under_oom,
    /// `mem_cgroup.nodeinfo`: a pointer for each node.
    mem_cgroup_nodeinfo,
    /// `mem_cgroup_per_node.lru_zone_size`: for each zone, the size of each list in pages.
    lru_zone_size,
    /// `mem_cgroup_per_node.lruvec.lrugen.nr_pages`: of the multi-gen LRU, for each generation and kind the size in each zone.
    lru_gen_nr_pages,
    /// `MAX_NR_ZONES`, at most [`MAX_ZONES`].
    zones,
    /// How many nodes a `nodeinfo` has (`nr_node_ids`), at most [`MAX_NODES`]. [`ABSENT`] where the lists are not read.
    nodes,
    /// `oom_control.zonelist`.
    oc_zonelist,
    /// `oom_control.nodemask`.
    oc_nodemask,
    /// `oom_control.memcg`.
    oc_memcg,
    /// `oom_control.gfp_mask`.
    oc_gfp_mask,
    /// `oom_control.order`.
    oc_order,
    /// `oom_control.totalpages`.
    oc_totalpages,
    /// `oom_control.chosen`.
    oc_chosen,
    /// `oom_control.chosen_points`.
    oc_chosen_points,
    /// `oom_control.constraint`.
    oc_constraint,
    /// `sizeof(struct oom_control)`.
    oc_size,
}
