//! The layouts of several kernels, from their own BTF, reduced to what is read. `OOMTRACE_BTF_DIR=DIR cargo
//! test -p oomtrace --test layout -- --ignored` makes the fixtures again from `DIR/*.btf`, copies of
//! `/sys/kernel/btf/vmlinux`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "fixtures are small")]

mod any_bytes;
mod types;

use std::{fs, path::PathBuf};

use oomtrace::kernel::btf::Btf;
use oomtrace::kernel::layout::{LayoutError, Resolved, has_memory_controller, resolve};
use oomtrace_common::layout::{ABSENT, KernelLayout, MARK_VICTIM_PID, MARK_VICTIM_TASK};
use types::{PTR, STRUCT, TYPEDEF, Type, Types};

const KERNELS: [&str; 8] = ["5.10", "6.1", "6.12", "6.16", "6.18", "7.0", "7.2", "7.3"];

fn fixture(kernel: &str) -> PathBuf {
    PathBuf::from(format!("{}/tests/fixtures/btf/{kernel}.btf", env!("CARGO_MANIFEST_DIR")))
}

fn types(kernel: &str) -> Types {
    Types::read(&fs::read(fixture(kernel)).unwrap())
}

fn layout(types: &Types) -> Result<Resolved, LayoutError> {
    resolve(&Btf::parse(types.write()).unwrap(), Some(0))
}

#[test]
fn each_kernel_has_its_layout() {
    for kernel in KERNELS {
        let btf = Btf::parse(fs::read(fixture(kernel)).unwrap()).unwrap();
        let resolved = resolve(&btf, Some(9)).unwrap();
        assert_eq!(resolved.layout.memory_hierarchy_id, 9);
        insta::assert_debug_snapshot!(kernel, resolved);
    }
}

/// With the memory controller off, nothing about cgroups is read, but everything else is.
#[test]
fn without_memory_cgroups_the_rest_is_there() {
    for kernel in KERNELS {
        let btf = Btf::parse(fs::read(fixture(kernel)).unwrap()).unwrap();
        assert!(has_memory_controller(&btf), "{kernel}");
        let with = resolve(&btf, Some(0)).unwrap();
        let without = resolve(&btf, None).unwrap();
        let expected = KernelLayout {
            memory_hierarchy_id: ABSENT,
            task_cgroups: ABSENT,
            css_set_memory: ABSENT,
            css_set_pids: ABSENT,
            pids_cgroup_css: ABSENT,
            pids_cgroup_counter: ABSENT,
            pids_cgroup_limit: ABSENT,
            pids_cgroup_watermark: ABSENT,
            css_cgroup: ABSENT,
            css_parent: ABSENT,
            css_children: ABSENT,
            css_sibling: ABSENT,
            css_flags: ABSENT,
            cgroup_kn: ABSENT,
            cgroup_root: ABSENT,
            cgroup_root_hierarchy_id: ABSENT,
            kernfs_id: ABSENT,
            kernfs_name: ABSENT,
            mem_cgroup_css: ABSENT,
            mem_cgroup_usage: ABSENT,
            mem_cgroup_max: ABSENT,
            mem_cgroup_watermark: ABSENT,
            mem_cgroup_swap_usage: ABSENT,
            mem_cgroup_swap_max: ABSENT,
            mem_cgroup_oom_group: ABSENT,
            mem_cgroup_oom_kill_disable: ABSENT,
            mem_cgroup_under_oom: ABSENT,
            mem_cgroup_nodeinfo: ABSENT,
            lru_zone_size: ABSENT,
            lru_gen_nr_pages: ABSENT,
            zones: ABSENT,
            mem_cgroup_events: [ABSENT; 6],
            ..with.layout
        };
        assert_eq!(without, Resolved { layout: expected, absent: Vec::new() }, "{kernel}");
    }
}

/// A kernel without the memory controller has none of its types.
#[test]
fn a_kernel_without_the_memory_controller_has_a_layout() {
    for kernel in KERNELS {
        let mut types = types(kernel);
        let memcg = types.named(STRUCT, "mem_cgroup").unwrap();
        types.0[memcg as usize - 1].name = "other".into();
        assert!(types.rename_enumerator("memory_cgrp_id", "other_cgrp_id"), "{kernel}");
        let btf = Btf::parse(types.write()).unwrap();
        assert!(!has_memory_controller(&btf), "{kernel}");
        assert_eq!(resolve(&btf, None).unwrap().absent, Vec::<String>::new(), "{kernel}");
        assert!(resolve(&btf, Some(0)).is_err(), "{kernel}");
    }
}

/// Facts that all kernels have are absent on none. Only newer members may be absent.
#[test]
fn only_what_came_later_is_absent() {
    for kernel in KERNELS {
        let absent = layout(&types(kernel)).unwrap().absent;
        let expected: &[&str] = match kernel {
            "5.10" => &["pids_cgroup.watermark", "mem_cgroup.memory_events[MEMCG_OOM_GROUP_KILL]"],
            _ => &[],
        };
        assert_eq!(absent, expected, "{kernel}");
    }
}

#[test]
fn mark_victim_passes_a_task_or_a_pid_or_is_not_understood() {
    for kernel in KERNELS {
        let mut types = types(kernel);
        let before = layout(&types).unwrap();
        types.pass_only_a_pid();
        let expected = KernelLayout { mark_victim: MARK_VICTIM_PID, ..before.layout };
        assert_eq!(layout(&types).unwrap(), Resolved { layout: expected, ..before.clone() }, "{kernel}");

        let task = types.named(STRUCT, "task_struct").unwrap();
        let task = types.add(Type::plain(PTR, "", task));
        types.pass_to_mark_victim(&[task]);
        assert_eq!(layout(&types).unwrap().layout.mark_victim, MARK_VICTIM_TASK);

        let mm = types.named(STRUCT, "mm_struct").unwrap();
        let mm = types.add(Type::plain(PTR, "", mm));
        for other in [&[][..], &[0], &[mm], &[mm, task]] {
            types.pass_to_mark_victim(other);
            assert_eq!(layout(&types), Err(LayoutError::MarkVictim), "{other:?}");
        }
        let typedef = types.named(TYPEDEF, "btf_trace_mark_victim").unwrap();
        types.0[typedef as usize - 1].name = "btf_trace_other".into();
        assert_eq!(layout(&types), Err(LayoutError::Member("typedef btf_trace_mark_victim".into())));
    }
}

/// A missing required member ends the start with an error that names it.
#[test]
fn a_member_that_is_needed_is_named() {
    for kernel in KERNELS {
        for (structure, member) in [
            ("task_struct", "pid"),
            ("task_struct", "tgid"),
            ("task_struct", "cgroups"),
            ("cgroup_subsys_state", "cgroup"),
            ("cgroup_subsys_state", "parent"),
            ("cgroup", "kn"),
            ("cgroup", "root"),
            ("cgroup_root", "hierarchy_id"),
            ("kernfs_node", "id"),
            ("kernfs_node", "name"),
            ("mem_cgroup", "css"),
        ] {
            let mut types = types(kernel);
            let id = types.named(STRUCT, structure).unwrap();
            assert!(types.rename_member(id, member, "gone"), "{kernel}: {structure}.{member}");
            assert_eq!(layout(&types), Err(LayoutError::Member(format!("{structure}.{member}"))), "{kernel}");
        }
        let lacks_memory = Err(LayoutError::Member("css_set.subsys[memory_cgrp_id]".into()));
        let mut without = types(kernel);
        assert!(without.rename_enumerator("memory_cgrp_id", "gone"));
        assert_eq!(layout(&without), lacks_memory);
        let mut without = types(kernel);
        let css_set = without.named(STRUCT, "css_set").unwrap();
        assert!(without.rename_member(css_set, "subsys", "gone"));
        assert_eq!(layout(&without), lacks_memory);
    }
}

/// The field of a fact in the layout.
type Place = fn(&mut KernelLayout) -> &mut u32;

/// Members without which an event has fewer facts.
const WANTED: &[(&str, &str, Place)] = &[
    ("task_struct", "comm", |layout| &mut layout.task_comm),
    ("task_struct", "mm", |layout| &mut layout.task_mm),
    ("task_struct", "flags", |layout| &mut layout.task_flags),
    ("task_struct", "signal", |layout| &mut layout.task_signal),
    ("task_struct", "group_leader", |layout| &mut layout.task_group_leader),
    ("task_struct", "real_parent", |layout| &mut layout.task_real_parent),
    ("task_struct", "real_cred", |layout| &mut layout.task_real_cred),
    ("task_struct", "start_boottime", |layout| &mut layout.task_start_boottime),
    ("cred", "uid", |layout| &mut layout.cred_uid),
    ("signal_struct", "oom_score_adj", |layout| &mut layout.signal_oom_score_adj),
    ("signal_struct", "oom_mm", |layout| &mut layout.signal_oom_mm),
    ("signal_struct", "nr_threads", |layout| &mut layout.signal_nr_threads),
    ("pids_cgroup", "counter", |layout| &mut layout.pids_cgroup_counter),
    ("pids_cgroup", "limit", |layout| &mut layout.pids_cgroup_limit),
    ("signal_struct", "flags", |layout| &mut layout.signal_flags),
    ("signal_struct", "live", |layout| &mut layout.signal_live),
    ("mm_struct", "exe_file", |layout| &mut layout.mm_exe_file),
    ("mm_struct", "arg_start", |layout| &mut layout.mm_arg_start),
    ("mm_struct", "arg_end", |layout| &mut layout.mm_arg_end),
    ("pid", "level", |layout| &mut layout.pid_level),
    ("upid", "nr", |layout| &mut layout.upid_nr),
    ("mm_struct", "total_vm", |layout| &mut layout.mm_total_vm),
    ("mm_struct", "pgtables_bytes", |layout| &mut layout.mm_pgtables_bytes),
    ("mem_cgroup", "oom_group", |layout| &mut layout.mem_cgroup_oom_group),
    ("oom_control", "zonelist", |layout| &mut layout.oc_zonelist),
    ("oom_control", "nodemask", |layout| &mut layout.oc_nodemask),
    ("oom_control", "memcg", |layout| &mut layout.oc_memcg),
    ("oom_control", "gfp_mask", |layout| &mut layout.oc_gfp_mask),
    ("oom_control", "order", |layout| &mut layout.oc_order),
    ("oom_control", "totalpages", |layout| &mut layout.oc_totalpages),
    ("oom_control", "chosen", |layout| &mut layout.oc_chosen),
    ("oom_control", "chosen_points", |layout| &mut layout.oc_chosen_points),
    ("oom_control", "constraint", |layout| &mut layout.oc_constraint),
    ("mem_cgroup", "memory.usage", |layout| &mut layout.mem_cgroup_usage),
    ("mem_cgroup", "memory.max", |layout| &mut layout.mem_cgroup_max),
    ("mem_cgroup", "memory.watermark", |layout| &mut layout.mem_cgroup_watermark),
];

/// A missing optional member is reported, and nothing else changes.
#[test]
fn a_member_that_is_wanted_is_told() {
    for kernel in KERNELS {
        let whole = layout(&types(kernel)).unwrap();
        for &(structure, member, place) in WANTED {
            let mut types = types(kernel);
            let mut expected = whole.layout;
            *place(&mut expected) = ABSENT;
            let (structure_of, of) = match member.split_once('.') {
                Some((_, of)) => ("page_counter", of),
                None => (structure, member),
            };
            let id = types.named(STRUCT, structure_of).unwrap();
            assert!(types.rename_member(id, of, "gone"), "{kernel}: {structure_of}.{of}");
            let resolved = layout(&types).unwrap();
            assert!(resolved.absent.contains(&format!("{structure}.{member}")), "{:?}", resolved.absent);
            // The counters of swap have the same type.
            match of {
                "usage" => expected.mem_cgroup_swap_usage = ABSENT,
                "max" => expected.mem_cgroup_swap_max = ABSENT,
                _ => {}
            }
            // It is not looked for without all that tells it from other words.
            if structure == "oom_control" {
                expected.copy_stack = ABSENT;
            }
            assert_eq!(resolved.layout, expected, "{kernel}: {structure}.{member}");
        }
    }
}

#[test]
fn an_index_that_is_not_there_is_told() {
    let cases: [(&str, &str, Place); 11] = [
        ("PIDTYPE_TGID", "signal_struct.pids[PIDTYPE_TGID]", |layout| &mut layout.signal_pid_tgid),
        ("MM_FILEPAGES", "mm_struct.rss_stat[MM_FILEPAGES]", |layout| &mut layout.mm_rss_file),
        ("MM_ANONPAGES", "mm_struct.rss_stat[MM_ANONPAGES]", |layout| &mut layout.mm_rss_anon),
        ("MM_SWAPENTS", "mm_struct.rss_stat[MM_SWAPENTS]", |layout| &mut layout.mm_rss_swap),
        ("MM_SHMEMPAGES", "mm_struct.rss_stat[MM_SHMEMPAGES]", |layout| &mut layout.mm_rss_shmem),
        ("MEMCG_LOW", "mem_cgroup.memory_events[MEMCG_LOW]", |layout| &mut layout.mem_cgroup_events[0]),
        ("MEMCG_HIGH", "mem_cgroup.memory_events[MEMCG_HIGH]", |layout| &mut layout.mem_cgroup_events[1]),
        ("MEMCG_MAX", "mem_cgroup.memory_events[MEMCG_MAX]", |layout| &mut layout.mem_cgroup_events[2]),
        ("MEMCG_OOM", "mem_cgroup.memory_events[MEMCG_OOM]", |layout| &mut layout.mem_cgroup_events[3]),
        ("MEMCG_OOM_KILL", "mem_cgroup.memory_events[MEMCG_OOM_KILL]", |layout| {
            &mut layout.mem_cgroup_events[4]
        }),
        ("MEMCG_OOM_GROUP_KILL", "mem_cgroup.memory_events[MEMCG_OOM_GROUP_KILL]", |layout| {
            &mut layout.mem_cgroup_events[5]
        }),
    ];
    for kernel in KERNELS {
        let whole = layout(&types(kernel)).unwrap();
        for (enumerator, name, place) in cases {
            let mut types = types(kernel);
            let mut expected = whole.layout;
            *place(&mut expected) = ABSENT;
            // What 5.10 lacks is absent anyway.
            let had = types.rename_enumerator(enumerator, "gone");
            assert!(had || whole.absent.contains(&name.into()), "{kernel}: {enumerator}");
            let resolved = layout(&types).unwrap();
            assert!(resolved.absent.contains(&name.into()), "{kernel}: {name}");
            assert_eq!(resolved.layout, expected, "{kernel}: {enumerator}");
        }
    }
}

/// Without the offset or the size of the numbers, a number in them has no place either.
#[test]
fn the_numbers_of_a_pid_are_found_together_or_not_at_all() {
    for (structure, member, absent) in [("pid", "numbers", "pid.numbers"), ("upid", "", "sizeof(upid)")] {
        let mut types = types("6.12");
        let id = types.named(STRUCT, structure).unwrap();
        if member.is_empty() {
            types.0[id as usize - 1].name = "gone".into();
        } else {
            assert!(types.rename_member(id, member, "gone"));
        }
        let resolved = layout(&types).unwrap();
        assert!(resolved.absent.contains(&absent.into()), "{:?}", resolved.absent);
        assert_eq!(resolved.layout.upid_nr, ABSENT);
    }
}

/// What only one name of several tells would be added up wrong: the LRU lists are read as the kernel has them, or not at all.
#[test]
fn the_lists_are_found_together_or_not_at_all() {
    for kernel in KERNELS {
        let whole = layout(&types(kernel)).unwrap().layout;
        assert_eq!(whole.zones, 5, "{kernel}");
        assert_eq!(whole.lru_gen_nr_pages == ABSENT, kernel == "5.10", "{kernel}");
        let none = KernelLayout {
            mem_cgroup_nodeinfo: ABSENT,
            lru_zone_size: ABSENT,
            lru_gen_nr_pages: ABSENT,
            zones: ABSENT,
            ..whole
        };
        let without = |change: &dyn Fn(&mut Types), what: &str| {
            let mut types = types(kernel);
            change(&mut types);
            let mut resolved = layout(&types).unwrap();
            assert!(resolved.absent.iter().any(|absent| absent == what), "{kernel}: {:?}", resolved.absent);
            let found = KernelLayout { mem_cgroup_nodeinfo: ABSENT, ..resolved.layout };
            assert_eq!(found, none, "{kernel}: {what}");
            resolved.of_nodes(Some(1));
            assert_eq!(resolved.layout.nodes, ABSENT, "{kernel}: {what}");
        };
        let rename = |structure: &'static str, member: &'static str| {
            move |types: &mut Types| {
                let id = types.named(STRUCT, structure).unwrap();
                assert!(types.rename_member(id, member, "gone"), "{structure}.{member}");
            }
        };
        without(&rename("mem_cgroup", "nodeinfo"), "mem_cgroup.nodeinfo");
        let zone_size = "mem_cgroup_per_node.lru_zone_size";
        without(&rename("mem_cgroup_per_node", "lru_zone_size"), zone_size);
        let lists = "enum lru_list as oomtrace knows it";
        without(&|types| assert!(types.rename_enumerator("NR_LRU_LISTS", "gone")), lists);
        without(&|types| assert!(types.rename_enumerator("LRU_ACTIVE_ANON", "gone")), lists);
        if kernel != "5.10" {
            let generations = if kernel == "6.1" { "lru_gen_struct" } else { "lru_gen_folio" };
            let nr_pages = "mem_cgroup_per_node.lruvec.lrugen.nr_pages";
            without(&rename(generations, "nr_pages"), nr_pages);
        }
    }
}

/// The lists of a host with many nodes, or an unknown number of them, are not read, and this is told.
#[test]
fn the_lists_are_read_on_a_few_nodes() {
    let whole = layout(&types("6.12")).unwrap();
    for (nodes, read) in [(Some(1), 1), (Some(8), 8), (Some(9), ABSENT), (Some(0), ABSENT), (None, ABSENT)] {
        let mut resolved = whole.clone();
        resolved.of_nodes(nodes);
        assert_eq!(resolved.layout.nodes, read, "{nodes:?}");
        assert_eq!(resolved.absent.len(), usize::from(read == ABSENT), "{:?}", resolved.absent);
    }
}

/// Without the controller that counts tasks, or the place of its structure, none is read at a wrong place.
#[test]
fn tasks_are_counted_where_the_controller_is() {
    let mut without = types("6.12");
    assert!(without.rename_enumerator("pids_cgrp_id", "gone"));
    let Resolved { layout: found, absent } = layout(&without).unwrap();
    assert_eq!(absent, ["css_set.subsys[pids_cgrp_id]"]);
    assert_eq!((found.css_set_pids, found.pids_cgroup_counter), (ABSENT, ABSENT));
    let mut without = types("6.12");
    let pids = without.named(STRUCT, "pids_cgroup").unwrap();
    assert!(without.rename_member(pids, "css", "gone"));
    let resolved = layout(&without).unwrap();
    assert_eq!(resolved.absent, ["pids_cgroup.css"]);
    assert_eq!(resolved.layout.css_set_pids, ABSENT);
}

/// Older names of the same members.
#[test]
fn older_names_are_known() {
    let mut types = types("6.12");
    let whole = layout(&types).unwrap();
    let task = types.named(STRUCT, "task_struct").unwrap();
    assert!(types.rename_member(task, "start_boottime", "real_start_time"));
    let memcg = types.named(STRUCT, "mem_cgroup").unwrap();
    assert!(types.rename_member(memcg, "swap", "memsw"));
    assert_eq!(layout(&types).unwrap(), whole);
}

/// Makes the fixtures, and checks that they give the same layout as the whole BTF.
#[test]
#[ignore = "makes the fixtures anew from OOMTRACE_BTF_DIR"]
fn reduce() {
    let dir = PathBuf::from(std::env::var_os("OOMTRACE_BTF_DIR").unwrap());
    for kernel in KERNELS {
        let bytes = fs::read(dir.join(format!("{kernel}.btf"))).unwrap();
        let reduced = Types::read(&bytes).reduced().write();
        assert!(reduced.len() < 60_000, "{kernel}: {} bytes", reduced.len());
        let whole = resolve(&Btf::parse(bytes).unwrap(), Some(0)).unwrap();
        assert_eq!(resolve(&Btf::parse(reduced.clone()).unwrap(), Some(0)).unwrap(), whole, "{kernel}");
        fs::write(fixture(kernel), reduced).unwrap();
    }
}
