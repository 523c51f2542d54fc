//! The running kernel's layout for the eBPF programs, read from BTF.
//!
//! A kernel's version decides nothing: a member exists if BTF has it, else it is absent.

mod lru;
mod tasks;

use oomtrace_common::layout::{
    ABSENT, COMMAND_LINE_FULL, FOLLOW_ALL, KernelLayout, MARK_VICTIM_PID, MARK_VICTIM_TASK, MEMORY_EVENTS,
};

use oomtrace_common::record::sample::CSS_DYING;

use crate::{
    facts::OomControlLayout,
    kernel::btf::{Btf, TypeId},
};
use lru::Lists;
use tasks::Tasks;

/// The number of the memory controller, if the kernel has one.
const MEMORY: &str = "memory_cgrp_id";

/// The number of the controller that counts tasks, if the kernel has it.
const PIDS: &str = "pids_cgrp_id";

/// How many LRU lists there are.
const LISTS: &str = "NR_LRU_LISTS";

/// The flag of a removed cgroup.
const DYING: &str = "CSS_DYING";

/// An enumerator of the allocation flags' numbers, which newer kernels have.
pub(super) const GFP: &str = "___GFP_DMA_BIT";

/// The types and enumerators that a start needs, so that one pass through all types finds them. Other names are found
/// too, each in a pass of its own.
pub const NAMES: [&str; 38] = [
    "task_struct",
    "pid",
    "upid",
    "cred",
    "signal_struct",
    "mm_struct",
    "file",
    "dentry",
    "css_set",
    "cgroup_subsys_state",
    "cgroup",
    "cgroup_root",
    "kernfs_node",
    "mem_cgroup",
    "mem_cgroup_per_node",
    "pids_cgroup",
    "oom_control",
    "btf_trace_mark_victim",
    MEMORY,
    PIDS,
    LISTS,
    DYING,
    "PIDTYPE_TGID",
    "MM_FILEPAGES",
    "MM_ANONPAGES",
    "MM_SWAPENTS",
    "MM_SHMEMPAGES",
    "MEMCG_LOW",
    "MEMCG_HIGH",
    "MEMCG_MAX",
    "MEMCG_OOM",
    "MEMCG_OOM_KILL",
    "MEMCG_OOM_GROUP_KILL",
    GFP,
    // The functions of the hooks.
    "out_of_memory",
    "oom_kill_process",
    "mem_cgroup_out_of_memory",
    "mem_cgroup_oom_synchronize",
];

/// The layout, and what this kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Offsets for the programs.
    pub layout: KernelLayout,
    /// Members without which an event has fewer facts, as `struct.member`.
    pub absent: Vec<String>,
}

/// A kernel on which events could not be true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A required member.
    #[error("this kernel's BTF has no {0}")]
    Member(String),
    /// A tracepoint whose arguments have neither of the two known forms.
    #[error("this kernel's mark_victim passes neither a task nor a pid")]
    MarkVictim,
}

/// Reads structures by name, each looked up once.
struct Structures<'a> {
    btf: &'a Btf,
    found: Vec<(&'static str, Option<TypeId>)>,
    absent: Vec<String>,
}

impl Structures<'_> {
    fn id(&mut self, structure: &'static str) -> Option<TypeId> {
        if let Some((_, id)) = self.found.iter().find(|(name, _)| *name == structure) {
            return *id;
        }
        let id = self.btf.structure(structure);
        self.found.push((structure, id));
        id
    }

    /// The offset of the first of `paths` that the structure has.
    fn find(&mut self, structure: &'static str, paths: &[&str]) -> Option<u32> {
        let id = self.id(structure)?;
        paths.iter().find_map(|path| self.btf.member(id, path)).map(|member| member.offset_bytes)
    }

    /// A required member.
    fn needed(&mut self, structure: &'static str, paths: &[&str]) -> Result<u32, LayoutError> {
        self.find(structure, paths).ok_or_else(|| LayoutError::Member(name(structure, paths)))
    }

    /// A member that only some kernels have, and only some events need.
    fn optional(&mut self, structure: &'static str, path: &str) -> u32 {
        self.find(structure, &[path]).unwrap_or(ABSENT)
    }

    /// A member without which an event has fewer facts.
    fn wanted(&mut self, structure: &'static str, paths: &[&str]) -> u32 {
        self.find(structure, paths).unwrap_or_else(|| self.lack(name(structure, paths)))
    }

    fn lack(&mut self, what: String) -> u32 {
        self.absent.push(what);
        ABSENT
    }
}

fn name(structure: &str, paths: &[&str]) -> String {
    format!("{structure}.{}", paths.first().unwrap_or(&""))
}

/// Whether the kernel that `btf` describes was built with the memory controller (`CONFIG_MEMCG`).
pub fn has_memory_controller(btf: &Btf) -> bool {
    value(btf, MEMORY).is_some()
}

/// Reads the layout of the kernel that `btf` describes. `memory_hierarchy_id`: the hierarchy of memory
/// cgroups, `None` if the kernel has none or they are off. Then nothing about them is read.
///
/// # Errors
/// Names a missing required member.
#[expect(clippy::too_many_lines, reason = "a table: where each member is")]
pub fn resolve(btf: &Btf, memory_hierarchy_id: Option<u32>) -> Result<Resolved, LayoutError> {
    let mut s = Structures { btf, found: Vec::new(), absent: Vec::new() };
    let memcg = Memcg { there: memory_hierarchy_id.is_some() };
    let pid_numbers = s.wanted("pid", &["numbers"]);
    let upid_size = s.id("upid").and_then(|upid| btf.size(upid));
    let oc_size = s.id("oom_control").and_then(|oc| btf.size(oc));
    let tasks = if memcg.there { tasks::of(&mut s) } else { Tasks::NONE };
    let lists = if memcg.there { lru::of(&mut s) } else { Lists::NONE };
    let layout = KernelLayout {
        mark_victim: mark_victim(btf)?,
        memory_hierarchy_id: memory_hierarchy_id.unwrap_or(ABSENT),
        // The operator and the host decide these: see `sources::probe`.
        follow_signals: 1,
        command_line: COMMAND_LINE_FULL,
        follow_kills: FOLLOW_ALL,
        copy_stack: 1,
        task_pid: s.needed("task_struct", &["pid"])?,
        task_tgid: s.needed("task_struct", &["tgid"])?,
        task_comm: s.wanted("task_struct", &["comm"]),
        task_mm: s.wanted("task_struct", &["mm"]),
        task_flags: s.wanted("task_struct", &["flags"]),
        task_signal: s.wanted("task_struct", &["signal"]),
        task_cgroups: memcg.needed(&mut s, "task_struct", "cgroups")?,
        task_group_leader: s.wanted("task_struct", &["group_leader"]),
        task_real_parent: s.wanted("task_struct", &["real_parent"]),
        task_real_cred: s.wanted("task_struct", &["real_cred"]),
        task_start_boottime: s.wanted("task_struct", &["start_boottime", "real_start_time"]),
        task_alloc_lock: lock(&mut s),
        task_memcg_in_oom: match memory_hierarchy_id {
            // On cgroup v2 no task waits for memory.
            None | Some(0) => ABSENT,
            _ => s.optional("task_struct", "memcg_in_oom"),
        },
        task_memcg_oom_gfp_mask: s.optional("task_struct", "memcg_oom_gfp_mask"),
        task_memcg_oom_order: s.optional("task_struct", "memcg_oom_order"),
        cred_uid: s.wanted("cred", &["uid"]),
        signal_oom_score_adj: s.wanted("signal_struct", &["oom_score_adj"]),
        signal_oom_mm: s.wanted("signal_struct", &["oom_mm"]),
        signal_nr_threads: s.wanted("signal_struct", &["nr_threads"]),
        signal_flags: s.wanted("signal_struct", &["flags"]),
        signal_live: s.wanted("signal_struct", &["live"]),
        signal_pid_tgid: element(&mut s, "signal_struct", "pids", "PIDTYPE_TGID"),
        pid_level: s.wanted("pid", &["level"]),
        pid_numbers,
        upid_size: upid_size.unwrap_or_else(|| s.lack("sizeof(upid)".into())),
        upid_nr: s.wanted("upid", &["nr"]),
        mm_arg_start: s.wanted("mm_struct", &["arg_start"]),
        mm_arg_end: s.wanted("mm_struct", &["arg_end"]),
        mm_exe_file: s.wanted("mm_struct", &["exe_file"]),
        file_dentry: s.wanted("file", &["f_path.dentry"]),
        dentry_name: s.wanted("dentry", &["d_name.name"]),
        mm_total_vm: s.wanted("mm_struct", &["total_vm"]),
        mm_pgtables_bytes: s.wanted("mm_struct", &["pgtables_bytes"]),
        mm_rss_file: rss(&mut s, "MM_FILEPAGES"),
        mm_rss_anon: rss(&mut s, "MM_ANONPAGES"),
        mm_rss_swap: rss(&mut s, "MM_SWAPENTS"),
        mm_rss_shmem: rss(&mut s, "MM_SHMEMPAGES"),
        css_set_memory: memcg.css_set(&mut s)?,
        css_set_pids: tasks.css_set,
        pids_cgroup_css: tasks.css,
        pids_cgroup_counter: tasks.counter,
        pids_cgroup_limit: tasks.limit,
        pids_cgroup_watermark: tasks.watermark,
        css_cgroup: memcg.needed(&mut s, "cgroup_subsys_state", "cgroup")?,
        css_parent: memcg.needed(&mut s, "cgroup_subsys_state", "parent")?,
        css_children: memcg.of_css(&mut s, "children"),
        css_sibling: memcg.of_css(&mut s, "sibling"),
        css_flags: memcg.css_flags(&mut s),
        cgroup_kn: memcg.needed(&mut s, "cgroup", "kn")?,
        cgroup_root: memcg.needed(&mut s, "cgroup", "root")?,
        cgroup_root_hierarchy_id: memcg.needed(&mut s, "cgroup_root", "hierarchy_id")?,
        kernfs_id: memcg.needed(&mut s, "kernfs_node", "id")?,
        kernfs_name: memcg.needed(&mut s, "kernfs_node", "name")?,
        mem_cgroup_css: memcg.needed(&mut s, "mem_cgroup", "css")?,
        mem_cgroup_usage: memcg.wanted(&mut s, &["memory.usage"]),
        mem_cgroup_max: memcg.wanted(&mut s, &["memory.max"]),
        mem_cgroup_watermark: memcg.wanted(&mut s, &["memory.watermark"]),
        mem_cgroup_swap_usage: memcg.wanted(&mut s, &["swap.usage", "memsw.usage"]),
        mem_cgroup_swap_max: memcg.wanted(&mut s, &["swap.max", "memsw.max"]),
        mem_cgroup_oom_group: memcg.wanted(&mut s, &["oom_group"]),
        mem_cgroup_oom_kill_disable: memcg.optional(&mut s, "oom_kill_disable"),
        mem_cgroup_under_oom: memcg.optional(&mut s, "under_oom"),
        mem_cgroup_nodeinfo: lists.nodeinfo,
        lru_zone_size: lists.zone_size,
        lru_gen_nr_pages: lists.gen_nr_pages,
        zones: lists.zones,
        // The host decides this: see `Resolved::of_nodes`.
        nodes: ABSENT,
        // These exist with and without memory cgroups.
        oc_zonelist: s.wanted("oom_control", &["zonelist"]),
        oc_nodemask: s.wanted("oom_control", &["nodemask"]),
        oc_memcg: s.wanted("oom_control", &["memcg"]),
        oc_gfp_mask: s.wanted("oom_control", &["gfp_mask"]),
        oc_order: s.wanted("oom_control", &["order"]),
        oc_totalpages: s.wanted("oom_control", &["totalpages"]),
        oc_chosen: s.wanted("oom_control", &["chosen"]),
        oc_chosen_points: s.wanted("oom_control", &["chosen_points"]),
        oc_constraint: s.wanted("oom_control", &["constraint"]),
        oc_size: oc_size.unwrap_or_else(|| s.lack("sizeof(oom_control)".into())),
        mem_cgroup_events: memcg.events(&mut s),
    };
    // The numbers need both offsets, or they would be read at a wrong place.
    let layout = if layout.pid_numbers == ABSENT || layout.upid_size == ABSENT {
        KernelLayout { upid_nr: ABSENT, ..layout }
    } else {
        layout
    };
    // Without all that tells it from other words, it is not looked for.
    let layout = if OomControlLayout::of(&layout).is_none() {
        KernelLayout { copy_stack: ABSENT, ..layout }
    } else {
        layout
    };
    Ok(Resolved { layout, absent: s.absent })
}

/// Which arguments `mark_victim` passes, from the type of its probe function.
fn mark_victim(btf: &Btf) -> Result<u32, LayoutError> {
    let probe = btf
        .typedef("btf_trace_mark_victim")
        .ok_or_else(|| LayoutError::Member("typedef btf_trace_mark_victim".into()))?;
    let parameters = btf.parameters(probe).unwrap_or_default();
    // The first parameter is the probe's own data.
    match parameters.get(1) {
        Some(id) if btf.pointee(*id) == Some("task_struct") => Ok(MARK_VICTIM_TASK),
        Some(id) if btf.size(*id) == Some(4) => Ok(MARK_VICTIM_PID),
        _ => Err(LayoutError::MarkVictim),
    }
}

/// `task_struct.alloc_lock`, where it is a number that is 0 while nobody holds it.
fn lock(s: &mut Structures<'_>) -> u32 {
    let btf = s.btf;
    let lock = s.id("task_struct").and_then(|task| btf.member(task, "alloc_lock.rlock.raw_lock"));
    lock.filter(|lock| btf.size(lock.type_id) == Some(4)).map_or(ABSENT, |lock| lock.offset_bytes)
}

/// An element of an array member, by the name of its index.
fn element(s: &mut Structures<'_>, structure: &'static str, member: &str, index: &str) -> u32 {
    let btf = s.btf;
    let offset = s.id(structure).and_then(|id| {
        let array = btf.member(id, member)?;
        let (element, count) = btf.array(array.type_id)?;
        let index = u32::try_from(value(btf, index)?).ok().filter(|index| *index < count)?;
        array.offset_bytes.checked_add(btf.size(element)?.checked_mul(index)?)
    });
    offset.unwrap_or_else(|| s.lack(format!("{structure}.{member}[{index}]")))
}

/// A counter of `mm_struct.rss_stat`: an array of `percpu_counter` since 6.2, a structure
/// with an array of `atomic_long_t` before.
fn rss(s: &mut Structures<'_>, index: &str) -> u32 {
    let btf = s.btf;
    let offset = s.id("mm_struct").and_then(|mm| {
        let stat = btf.member(mm, "rss_stat")?;
        let array = if btf.array(stat.type_id).is_some() { stat } else { btf.member(mm, "rss_stat.count")? };
        let (element, length) = btf.array(array.type_id)?;
        let index = u32::try_from(value(btf, index)?).ok().filter(|index| *index < length)?;
        // The value of an `atomic_long_t` is at its start.
        let inside = btf.member(element, "count").map_or(0, |count| count.offset_bytes);
        array.offset_bytes.checked_add(btf.size(element)?.checked_mul(index)?)?.checked_add(inside)
    });
    offset.unwrap_or_else(|| s.lack(format!("mm_struct.rss_stat[{index}]")))
}

/// Reads the members of cgroups: none if there are no memory cgroups. With `cgroup_disable=memory` each task
/// seems to be in the root cgroup, and this would be reported as its cgroup.
struct Memcg {
    there: bool,
}

impl Memcg {
    /// A member without which cgroups could not be distinguished.
    fn needed(
        &self,
        s: &mut Structures<'_>,
        structure: &'static str,
        path: &str,
    ) -> Result<u32, LayoutError> {
        if self.there { s.needed(structure, &[path]) } else { Ok(ABSENT) }
    }

    fn wanted(&self, s: &mut Structures<'_>, paths: &[&str]) -> u32 {
        if self.there { s.wanted("mem_cgroup", paths) } else { ABSENT }
    }

    /// A member that only the sampler needs.
    fn of_css(&self, s: &mut Structures<'_>, path: &str) -> u32 {
        if self.there { s.wanted("cgroup_subsys_state", &[path]) } else { ABSENT }
    }

    /// The flags, if the one that is looked for has the number that is looked for.
    fn css_flags(&self, s: &mut Structures<'_>) -> u32 {
        match value(s.btf, DYING) {
            Some(bit) if bit == i64::from(CSS_DYING) => self.of_css(s, "flags"),
            _ if self.there => s.lack(format!("{DYING} as oomtrace knows it")),
            _ => ABSENT,
        }
    }

    fn optional(&self, s: &mut Structures<'_>, path: &str) -> u32 {
        if self.there { s.optional("mem_cgroup", path) } else { ABSENT }
    }

    fn css_set(&self, s: &mut Structures<'_>) -> Result<u32, LayoutError> {
        if !self.there {
            return Ok(ABSENT);
        }
        match element(s, "css_set", "subsys", MEMORY) {
            ABSENT => Err(LayoutError::Member(format!("css_set.subsys[{MEMORY}]"))),
            offset => Ok(offset),
        }
    }

    fn events(&self, s: &mut Structures<'_>) -> [u32; 6] {
        let mut offsets = [ABSENT; 6];
        for (offset, event) in offsets.iter_mut().zip(MEMORY_EVENTS).filter(|_| self.there) {
            let index = format!("MEMCG_{}", event.to_uppercase());
            *offset = element(s, "mem_cgroup", "memory_events", &index);
        }
        offsets
    }
}

fn value(btf: &Btf, enumerator: &str) -> Option<i64> {
    btf.enumeration_with(enumerator)?
        .into_iter()
        .find(|(name, _)| *name == enumerator)
        .map(|(_, value)| value)
}
