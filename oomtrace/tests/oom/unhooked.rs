//! What is known without a function hook, and to which run a kill belongs.

use super::*;

#[test]
fn the_log_says_what_ran_out() {
    for (constraint, path, scope, id) in [
        (Constraint::Memcg, Some(&b"/pod"[..]), Scope::Memcg, Some("20")),
        (Constraint::Memcg, Some(b"/pod/leaf"), Scope::Memcg, Some("30")),
        (Constraint::Memcg, Some(b"/"), Scope::Memcg, Some("1")),
        (Constraint::Memcg, Some(b"/elsewhere"), Scope::Memcg, None),
        (Constraint::Memcg, None, Scope::Memcg, None),
        (Constraint::None, None, Scope::Host, None),
        (Constraint::Cpuset, None, Scope::Cpuset, None),
        (Constraint::MemoryPolicy, None, Scope::Mempolicy, None),
    ] {
        let (oom, missing) = told(&unhooked(), Some(log(constraint, path)), &V2);
        assert_eq!((oom.scope, oom.constraint), (Some(scope), Some(constraint)));
        assert_eq!(oom.evidence, Some(Evidence::KernelLog));
        assert_eq!(cgroup_id(&oom), id);
        assert_eq!(cgroup_path(&oom).map(str::as_bytes), path);
        assert_eq!((oom.order, oom.gfp_mask.as_deref()), (Some(0), Some("GFP_KERNEL")));
        assert_eq!(missing["oom.domain_bytes"], Reason::NoFunctionHook);
    }
    // Its other lines may have been suppressed by the rate limit.
    let short = LogFacts { gfp_mask: None, order: None, ..log(Constraint::None, None) };
    let (oom, missing) = told(&unhooked(), Some(short), &V2);
    assert_eq!((oom.order, oom.gfp_mask_raw), (None, None));
    for key in ["oom.gfp_mask", "oom.order"] {
        assert_eq!(missing[key], Reason::NotInKernelLog);
    }
}

#[test]
fn a_hook_is_believed_before_the_log() {
    let (oom, _) = told(&hooked(), Some(log(Constraint::None, None)), &V2);
    assert_eq!((oom.scope, oom.evidence), (Some(Scope::Memcg), Some(Evidence::Fentry)));
    // A hook that read nothing useful is not evidence.
    let mut blind = hooked();
    let killer = blind.oom.as_mut().unwrap();
    (killer.constraint, killer.memcg) = (None, None);
    let (oom, _) = told(&blind, Some(log(Constraint::None, None)), &V2);
    assert_eq!((oom.scope, oom.evidence), (Some(Scope::Host), Some(Evidence::KernelLog)));
}

#[test]
fn the_nearest_full_ancestor_is_whose_limit_fired() {
    // For leaf, pod and root: the pages that are left below each limit.
    let full = |left: [Option<u64>; 3], memsw_left: [Option<u64>; 3], context: &Context<'_>| {
        let mut facts = unhooked();
        for (level, (left, memsw)) in facts.lineage.levels.iter_mut().zip(left.into_iter().zip(memsw_left)) {
            let limit =
                |left: Option<u64>| left.map_or(Limit::Unlimited, |left| Limit::Bytes((2000 + left) * PAGE));
            (level.usage_bytes, level.max) = (Some(2000 * PAGE), Some(limit(left)));
            (level.swap_usage_bytes, level.swap_max) = (Some(2000 * PAGE), Some(limit(memsw)));
        }
        let (oom, missing) = told(&facts, None, context);
        assert_eq!(oom.scope.is_some(), oom.cgroup.is_some());
        assert_eq!(oom.evidence.is_some(), oom.cgroup.is_some());
        assert!(missing.contains_key("oom.order") && missing.contains_key("oom.domain_bytes"));
        cgroup_id(&oom).map(str::to_owned)
    };
    let none = [None; 3];
    for context in [V1, V2] {
        assert_eq!(full([None, Some(0), None], none, &context).as_deref(), Some("20"));
        assert_eq!(full([Some(0), Some(0), None], none, &context).as_deref(), Some("30"));
        // A processor's batch of charges may be left, but not one page more.
        assert_eq!(full([Some(64), Some(0), None], none, &context).as_deref(), Some("30"));
        assert_eq!(full([Some(65), Some(0), None], none, &context).as_deref(), Some("20"));
        assert_eq!(full([Some(65), None, None], none, &context), None);
        assert_eq!(full(none, none, &context), None);
    }
    // Memory and swap together: on v1 this limit fires. On v2 it is swap alone, which does not fire.
    assert_eq!(full([None, Some(900), None], [None, Some(3), None], &V1).as_deref(), Some("20"));
    assert_eq!(full([None, Some(900), None], [None, Some(3), None], &V2), None);

    let (oom, missing) = told(&unhooked(), None, &V2);
    assert_eq!((oom.scope, oom.constraint), (Some(Scope::Memcg), Some(Constraint::Memcg)));
    assert_eq!((oom.evidence, cgroup_id(&oom)), (Some(Evidence::MemcgWalk), Some("20")));
    assert_eq!(missing["oom.order"], Reason::NoHookAndNoLogLine);
}

#[test]
fn a_cgroup_full_of_page_cache_has_not_fired() {
    let mut facts = unhooked();
    for level in &mut facts.lineage.levels {
        (level.usage_bytes, level.max) = (Some(2000 * PAGE), Some(Limit::Bytes(2000 * PAGE)));
    }
    let leaf = &mut facts.lineage.levels[0];
    leaf.events.oom = Some(1);
    assert_eq!(cgroup_id(&told(&facts, None, &V2).0), Some("30"));
    // It never invoked the OOM killer; the cgroup above did.
    facts.lineage.levels[0].events.oom = Some(0);
    assert_eq!(cgroup_id(&told(&facts, None, &V2).0), Some("20"));
    for level in &mut facts.lineage.levels {
        level.events.oom = Some(0);
    }
    let (oom, missing) = told(&facts, None, &V2);
    assert_eq!((oom.scope, oom.evidence), (None, None));
    assert_eq!(missing["oom.scope"], Reason::NoLimitReached);
    // A counter that could not be read does not exclude it.
    facts.lineage.levels[0].events.oom = None;
    assert_eq!(cgroup_id(&told(&facts, None, &V2).0), Some("30"));
}

#[test]
fn without_evidence_nothing_is_said() {
    let mut facts = unhooked();
    facts.lineage.levels[1].max = None;
    let (oom, missing) = told(&facts, None, &V2);
    assert_eq!((oom.scope, oom.constraint, oom.evidence), (None, None, None));
    assert_eq!(missing["oom.scope"], Reason::NoLimitReached);
    // Cgroups that were not read may have fired.
    facts.lineage.levels_cut = true;
    let (_, missing) = told(&facts, None, &V2);
    assert_eq!(missing["oom.scope"], Reason::TooDeep);
    facts.lineage.levels_cut = false;

    facts.lineage.levels.clear();
    let (oom, missing) = told(&facts, None, &V2);
    assert_eq!(oom.scope, None);
    assert_eq!(missing["oom.scope"], Reason::NotReadInKernel);
}

/// The victims of one run, without a hook: the members of one group, killed by one task. Only the first has
/// lines in the log.
#[test]
fn the_victims_of_a_group_share_their_run() {
    let mut runs = Runs::default();
    let mut next =
        |seq: u64, tid: u32, group: Option<usize>, log: Option<LogFacts>, context: &Context<'_>| {
            let mut facts = unhooked();
            facts.seq = seq;
            facts.trigger.tid = Some(tid);
            if let Some(index) = group {
                facts.lineage.levels[index].oom_group = Some(true);
            }
            let oom = oom(&facts, log, &mut runs, context, &mut Absent::default());
            (oom.id.unwrap(), oom.evidence)
        };
    let pod = || Some(log(Constraint::Memcg, Some(b"/pod")));
    assert_eq!(next(1, 50, Some(1), pod(), &V2), (1, Some(Evidence::KernelLog)));
    // The log's lines about the first also apply to those killed with it.
    assert_eq!(next(2, 50, Some(1), None, &V2), (1, Some(Evidence::KernelLog)));
    assert_eq!(next(3, 50, Some(1), None, &V2), (1, Some(Evidence::KernelLog)));
    // A victim with its own lines is the first of the next run.
    assert_eq!(next(4, 50, Some(1), pod(), &V2).0, 4);
    // Another task, another group, no group, or v1 means another run.
    assert_eq!(next(5, 51, Some(1), None, &V2), (5, Some(Evidence::MemcgWalk)));
    assert_eq!(next(6, 51, Some(0), None, &V2).0, 6);
    assert_eq!(next(7, 51, None, None, &V2).0, 7);
    assert_eq!(next(8, 51, None, None, &V2).0, 8);
    assert_eq!(next(9, 51, Some(1), None, &V1).0, 9);
    assert_eq!(next(10, 51, Some(1), None, &V1).0, 10);
}

#[test]
fn a_run_that_a_hook_marked_is_that_run() {
    let mut runs = Runs::default();
    let mut id = |facts: &OomKillFacts| oom(facts, None, &mut runs, &V2, &mut Absent::default()).id;
    assert_eq!(id(&hooked()), Some(3));
    assert_eq!(id(&OomKillFacts { seq: 4, ..hooked() }), Some(3), "the second of run 3");
    assert_eq!(id(&OomKillFacts { seq: 5, run: Some(5), ..hooked() }), Some(5));
    assert_eq!(id(&OomKillFacts { seq: 6, run: None, ..hooked() }), Some(6));
}
