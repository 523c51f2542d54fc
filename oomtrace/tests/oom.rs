//! The facts of a run of the OOM killer from each kind of evidence: nothing is guessed, and each absent fact
//! has a reason.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, reason = "not each test crate needs each record")]

#[path = "oom/own.rs"]
mod own;
mod records;
#[path = "oom/unhooked.rs"]
mod unhooked;

use std::collections::BTreeMap;

use oomtrace::enrich::absent::Absent;
use oomtrace::enrich::oom::{Context, LogFacts, Runs, oom};
use oomtrace::event::{CgroupVersion, Constraint, Evidence, Kill, Oom, Reason, Scope};
use oomtrace::facts::{CgroupId, Decoder, OomKillFacts, Record};
use oomtrace::kernel::gfp::GfpNames;
use oomtrace_common::record::{MemcgLevel, SOURCE_KPROBE, oc_fact};
use records::{OomKill, Sent};

const PAGE: u64 = 4096;
const V2: Context<'static> =
    Context { version: CgroupVersion::V2, gfp: None, kill_allocating_task: Some(false) };
const V1: Context<'static> = Context { version: CgroupVersion::V1, ..V2 };

fn facts(record: &OomKill) -> OomKillFacts {
    match Decoder::new(PAGE).record(&record.sent()).unwrap() {
        Record::OomKill(facts) => *facts,
        other => panic!("{other:?}"),
    }
}

/// A kill in `/pod/leaf` because `/pod` was full, with a function hook.
fn hooked() -> OomKillFacts {
    facts(&records::oom_kill(3))
}

/// The same without a function hook.
fn unhooked() -> OomKillFacts {
    OomKillFacts { run: None, oom: None, ..hooked() }
}

fn log(constraint: Constraint, oom_memcg: Option<&[u8]>) -> LogFacts {
    LogFacts {
        constraint,
        oom_memcg: oom_memcg.map(<[u8]>::to_vec),
        gfp_mask: Some((0xcc0, Some("GFP_KERNEL".into()))),
        order: Some(0),
    }
}

/// Reasons by key.
type Reasons = BTreeMap<String, Reason>;

fn told(facts: &OomKillFacts, log: Option<LogFacts>, context: &Context<'_>) -> (Oom, Reasons) {
    let mut absent = Absent::default();
    let oom = oom(facts, log, &mut Runs::default(), context, &mut absent);
    let missing: Reasons =
        absent.into_missing().into_iter().map(|absence| (absence.key.into_owned(), absence.reason)).collect();
    assert_explained(&oom, &missing, context.version);
    (oom, missing)
}

/// Each fact is present, or has a reason in `missing`, or does not exist here. A present fact has no reason.
fn assert_explained(oom: &Oom, missing: &Reasons, version: CgroupVersion) {
    let value = serde_json::to_value(oom).unwrap();
    let mut keys: Vec<String> = [
        "id",
        "scope",
        "constraint",
        "kill",
        "order",
        "gfp_mask",
        "gfp_mask_raw",
        "domain_bytes",
        "evidence",
    ]
    .map(String::from)
    .into();
    if oom.cgroup.is_some() {
        let swap = if version == CgroupVersion::V2 { "swap" } else { "memsw" };
        keys.extend(
            ["path", "id", "limit_bytes", "usage_bytes", "peak_bytes"].map(|key| format!("cgroup.{key}")),
        );
        keys.extend(["usage", "limit"].map(|key| format!("cgroup.{swap}_{key}_bytes")));
        keys.extend(["max", "oom", "oom_kill"].map(|key| format!("cgroup.events.{key}")));
        if version == CgroupVersion::V2 {
            keys.extend(["low", "high", "oom_group_kill"].map(|key| format!("cgroup.events.{key}")));
            keys.push("cgroup.oom_group".into());
        }
    } else if oom.scope.is_none_or(|scope| scope == Scope::Memcg) {
        keys.push("cgroup".into());
    }
    // If the limit's own cgroup was not read, one reason stands for all its facts.
    let unread = oom.cgroup.as_ref().is_some_and(|cgroup| cgroup.events.is_none());
    for key in keys {
        let there = value.pointer(&format!("/{}", key.replace('.', "/"))).is_some();
        let why = missing.get(&format!("oom.{key}"));
        if there {
            assert_eq!(why, None, "oom.{key} is there");
        } else if !(unread && missing.contains_key("oom.cgroup.limit_bytes")) {
            assert!(why.is_some(), "oom.{key} is absent without a reason: {missing:?}");
        }
    }
}

fn cgroup_id(oom: &Oom) -> Option<&str> {
    oom.cgroup.as_ref()?.cgroup.id.as_deref()
}

fn cgroup_path(oom: &Oom) -> Option<&str> {
    oom.cgroup.as_ref()?.cgroup.path.as_deref()
}

/// `enum oom_constraint`, and whether a cgroup's limit fired.
#[test]
fn the_killer_says_what_ran_out() {
    for (number, global, scope, constraint) in [
        (3, false, Scope::Memcg, Constraint::Memcg),
        (0, true, Scope::Host, Constraint::None),
        (1, true, Scope::Cpuset, Constraint::Cpuset),
        (2, true, Scope::Mempolicy, Constraint::MemoryPolicy),
    ] {
        let mut facts = hooked();
        let killer = facts.oom.as_mut().unwrap();
        killer.constraint = Some(number);
        if global {
            killer.memcg = Some(None);
        }
        let (oom, missing) = told(&facts, None, &V2);
        assert_eq!((oom.scope, oom.constraint), (Some(scope), Some(constraint)));
        assert_eq!(oom.evidence, Some(Evidence::Fentry));
        assert_eq!(oom.kill, Some(Kill::Selected));
        assert_eq!(oom.domain_bytes, Some(2000 * PAGE));
        assert_eq!((oom.order, oom.gfp_mask_raw), (Some(0), Some(0xcc0)));
        assert_eq!(cgroup_id(&oom), (!global).then_some("20"));
        assert_eq!(cgroup_path(&oom), (!global).then_some("/pod"));
        assert!(missing.contains_key("oom.gfp_mask"), "no names here");
    }
    let mut kprobe = records::oom_kill(3);
    kprobe.oom.source = SOURCE_KPROBE;
    assert_eq!(told(&facts(&kprobe), None, &V2).0.evidence, Some(Evidence::Kprobe));
}

#[test]
fn the_killer_that_had_not_got_that_far() {
    // `out_of_memory` found that the caller was exiting, so the constraint was not computed.
    let mut record = records::oom_kill(3);
    record.oom.present &= !(oc_fact::TOTAL_PAGES | oc_fact::CONSTRAINT | oc_fact::CHOSEN_POINTS);
    let (oom, _) = told(&facts(&record), None, &V2);
    assert_eq!((oom.scope, oom.constraint), (Some(Scope::Memcg), Some(Constraint::Memcg)));
    assert_eq!(cgroup_id(&oom), Some("20"));

    // Without a cgroup it is not known what ran out.
    record.oom.present = record.oom.present & !oc_fact::MEMCG | oc_fact::GLOBAL;
    let (oom, missing) = told(&facts(&record), None, &V2);
    assert_eq!((oom.scope, oom.constraint, oom.domain_bytes), (None, None, None));
    assert_eq!(missing["oom.scope"], Reason::NotYetComputed);

    // An enumerator of a later kernel is unknown.
    let mut facts = hooked();
    facts.oom.as_mut().unwrap().constraint = Some(4);
    facts.oom.as_mut().unwrap().memcg = Some(None);
    assert_eq!(told(&facts, None, &V2).0.scope, None);
}

/// Any single fact of the OOM killer can be absent: it has a reason, and the other facts stay.
#[test]
fn each_fact_of_the_killer_may_be_absent() {
    for bit in 0..8 {
        let mut record = records::oom_kill(3);
        record.oom.present &= !(1 << bit);
        let (oom, _) = told(&facts(&record), None, &V2);
        assert_eq!((oom.scope, oom.evidence), (Some(Scope::Memcg), Some(Evidence::Fentry)), "bit {bit}");
    }
    let mut record = records::oom_kill(3);
    record.oom.present &= !(oc_fact::GFP_MASK | oc_fact::ORDER);
    let (_, missing) = told(&facts(&record), None, &V2);
    assert_eq!(missing["oom.gfp_mask"], Reason::NotReadInKernel, "no log was asked");
}

/// The same for any single fact of the cgroup.
#[test]
fn each_fact_of_the_cgroup_may_be_absent() {
    for context in [V1, V2] {
        for bit in 0..16 {
            let mut record = records::oom_kill(3);
            record.lineage.levels[1].present &= !(1 << bit);
            told(&facts(&record), None, &context);
        }
    }
}

#[test]
fn a_limit_that_is_no_ancestors() {
    let mut facts = hooked();
    facts.oom.as_mut().unwrap().memcg = Some(Some(CgroupId(99)));
    let (oom, missing) = told(&facts, None, &V2);
    assert_eq!((cgroup_id(&oom), cgroup_path(&oom)), (Some("99"), None));
    assert!(missing.contains_key("oom.cgroup.path") && missing.contains_key("oom.cgroup.limit_bytes"));
}

#[test]
fn flags_have_the_kernels_names() {
    let names = GfpNames::from_format(
        r#"__print_flags(x, "|", {(unsigned long)0xcc0, "GFP_KERNEL"}, {0, NULL})"#,
        &[],
    );
    let context = Context { gfp: names.as_ref(), ..V2 };
    let (oom, missing) = told(&hooked(), None, &context);
    assert_eq!(oom.gfp_mask.as_deref(), Some("GFP_KERNEL"));
    assert!(!missing.contains_key("oom.gfp_mask"));
}

#[test]
fn each_version_has_its_own_words() {
    let (oom, _) = told(&hooked(), None, &V2);
    let cgroup = oom.cgroup.unwrap();
    assert_eq!((cgroup.swap_limit_bytes, cgroup.swap_usage_bytes), (Some(12 * PAGE), Some(11 * PAGE)));
    assert_eq!((cgroup.memsw_limit_bytes, cgroup.memsw_usage_bytes), (None, None));
    assert_eq!(cgroup.oom_group, Some(false));
    assert_eq!(cgroup.events.unwrap().oom_group_kill, Some(6));

    let hybrid = Context { version: CgroupVersion::Hybrid, ..V2 };
    for context in [V1, hybrid] {
        let (oom, _) = told(&hooked(), None, &context);
        let cgroup = oom.cgroup.unwrap();
        assert_eq!((cgroup.memsw_limit_bytes, cgroup.memsw_usage_bytes), (Some(12 * PAGE), Some(11 * PAGE)));
        assert_eq!((cgroup.swap_limit_bytes, cgroup.swap_usage_bytes, cgroup.oom_group), (None, None, None));
        let events = cgroup.events.unwrap();
        assert_eq!((events.low, events.high, events.oom_group_kill), (None, None, None));
        assert_eq!((events.max, events.oom, events.oom_kill), (Some(3), Some(4), Some(5)));
    }
}

fn kill(facts: &OomKillFacts, context: &Context<'_>) -> Option<Kill> {
    let (oom, missing) = told(facts, None, context);
    assert_eq!(oom.kill.is_none(), missing.contains_key("oom.kill"));
    oom.kill
}

#[test]
fn how_the_victim_came_to_be_one() {
    assert_eq!(kill(&hooked(), &V2), Some(Kill::Selected));
    assert_eq!(kill(&OomKillFacts { signalled: Some(false), ..hooked() }, &V2), Some(Kill::AlreadyExiting));
    // It is not known if it was a kill.
    assert_eq!(kill(&OomKillFacts { signalled: None, ..hooked() }, &V2), None);
    assert_eq!(kill(&OomKillFacts { signalled: None, ..unhooked() }, &V2), None);

    let mut sysrq = hooked();
    sysrq.oom.as_mut().unwrap().order = Some(-1);
    assert_eq!(kill(&sysrq, &V2), Some(Kill::Sysrq));
    sysrq.signalled = Some(false);
    assert_eq!(kill(&sysrq, &V2), Some(Kill::AlreadyExiting), "no kill was made");

    let mut allocating = hooked();
    let message = b"Out of memory (oom_kill_allocating_task)".to_vec();
    allocating.oom.as_mut().unwrap().message = Some(message);
    assert_eq!(kill(&allocating, &V2), Some(Kill::AllocatingTask));
    // Of the same run, but not the allocating task: its group died with it.
    allocating.lineage.levels[0].oom_group = Some(true);
    allocating.seq = 4;
    assert_eq!(kill(&allocating, &V2), Some(Kill::Group));
}

/// Without a message, it is the allocating task if the kernel takes that first.
#[test]
fn the_allocating_task_without_a_hook() {
    let host = log(Constraint::None, None);
    let kill = |own: bool, setting: Option<bool>, log: LogFacts| {
        let mut facts = unhooked();
        if own {
            facts.victim.tgid = facts.trigger.tgid;
        }
        let (oom, missing) = told(&facts, Some(log), &Context { kill_allocating_task: setting, ..V2 });
        assert_eq!(oom.kill.is_none(), missing.contains_key("oom.kill"));
        oom.kill
    };
    assert_eq!(kill(true, Some(true), host.clone()), Some(Kill::AllocatingTask));
    assert_eq!(kill(true, Some(false), host.clone()), Some(Kill::Selected));
    assert_eq!(kill(false, Some(true), host.clone()), Some(Kill::Selected));
    assert_eq!(kill(false, None, host.clone()), Some(Kill::Selected));
    assert_eq!(kill(true, None, host), None);
    // The setting does not apply to a cgroup's OOM.
    assert_eq!(kill(true, Some(true), log(Constraint::Memcg, Some(b"/pod"))), Some(Kill::Selected));
}

/// `memory.oom.group` counts from the victim's cgroup up to the one whose limit fired.
#[test]
fn a_group_dies_where_the_kernel_looks_for_one() {
    // In `/top/pod/leaf`, with the limit at `/top/pod`.
    let with_group = |index: Option<usize>| {
        let mut record = records::oom_kill(3);
        let mut levels: Vec<MemcgLevel> = [30, 20, 10, 1].map(records::level).into();
        if let Some(index) = index {
            levels[index].oom_group = 1;
        }
        records::lineage(&mut record, b"leaf\0pod\0top\0", &levels);
        facts(&record)
    };
    for (index, inside) in
        [(None, false), (Some(0), true), (Some(1), true), (Some(2), false), (Some(3), false)]
    {
        let expected = if inside { Kill::Group } else { Kill::Selected };
        assert_eq!(kill(&with_group(index), &V2), Some(expected), "{index:?}");
        // v1 has no groups, whatever the bit says.
        assert_eq!(kill(&with_group(index), &V1), Some(Kill::Selected), "{index:?}");
        assert_eq!(
            kill(&OomKillFacts { signalled: Some(false), ..with_group(index) }, &V2),
            Some(Kill::AlreadyExiting)
        );

        // The host ran out: all cgroups below the root count.
        let mut host = with_group(index);
        host.oom.as_mut().unwrap().memcg = Some(None);
        host.oom.as_mut().unwrap().constraint = Some(0);
        let expected = if matches!(index, Some(0..=2)) { Kill::Group } else { Kill::Selected };
        assert_eq!(kill(&host, &V2), Some(expected), "{index:?}");

        // Moved out from below the limit: the kernel does not kill its group.
        let mut moved = with_group(index);
        moved.oom.as_mut().unwrap().memcg = Some(Some(CgroupId(99)));
        assert_eq!(kill(&moved, &V2), Some(Kill::Selected), "{index:?}");

        // It is not known whose limit fired, so only its own cgroup certainly counts.
        let mut unknown = with_group(index);
        unknown.oom.as_mut().unwrap().memcg = None;
        let expected = match index {
            Some(0) => Some(Kill::Group),
            Some(1 | 2) => None,
            _ => Some(Kill::Selected),
        };
        assert_eq!(kill(&unknown, &V2), expected, "{index:?}");
    }
    // The limit is above the levels that were read, so all of these count.
    let mut deep = with_group(Some(3));
    deep.lineage.levels_cut = true;
    deep.lineage.path_cut = true;
    deep.oom.as_mut().unwrap().memcg = Some(Some(CgroupId(99)));
    assert_eq!(kill(&deep, &V2), Some(Kill::Group));
}

#[test]
fn the_score_is_the_chosen_ones() {
    let why = |facts: &OomKillFacts, log: Option<LogFacts>, context: &Context<'_>| {
        told(facts, log, context).1["victim.oom_score_bytes"]
    };
    assert_eq!(why(&unhooked(), None, &V2), Reason::NoFunctionHook);
    let second = OomKillFacts { seq: 4, ..hooked() };
    assert_eq!(why(&second, None, &V2), Reason::NotTheChosen);
    let exiting = OomKillFacts { signalled: Some(false), ..hooked() };
    assert_eq!(why(&exiting, None, &V2), Reason::AlreadyExiting);
    let mut allocating = hooked();
    allocating.oom.as_mut().unwrap().message = Some(b"(oom_kill_allocating_task)".to_vec());
    assert_eq!(why(&allocating, None, &V2), Reason::AllocatingTask);
}
