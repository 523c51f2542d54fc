//! What is known without a function hook, and to which run a kill belongs.

use super::*;
use oomtrace::facts::{Limit, OomControlFacts};

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

/// A cgroup that stands at its limit, and has run out before, need not be the one that ran out now.
#[test]
fn without_evidence_nothing_is_said() {
    for context in [V1, V2] {
        let mut facts = unhooked();
        for level in &mut facts.lineage.levels {
            (level.usage_bytes, level.max) = (Some(2000 * PAGE), Some(Limit::Bytes(2000 * PAGE)));
        }
        let (oom, missing) = told(&facts, None, &context);
        assert_eq!((oom.scope, oom.constraint, oom.evidence), (None, None, None));
        assert_eq!((oom.order, oom.gfp_mask_raw, oom.domain_bytes), (None, None, None));
        for key in ["scope", "constraint", "evidence", "cgroup", "order", "gfp_mask", "domain_bytes"] {
            assert_eq!(missing[&format!("oom.{key}")], Reason::NoHookAndNoLogLine);
        }
    }
}

#[test]
fn the_stack_is_believed_before_the_log() {
    let stack = |killer: OomControlFacts| {
        let killer = OomControlFacts { evidence: Evidence::Stack, message: None, ..killer };
        OomKillFacts { oom: Some(killer), run: Some(3), ..hooked() }
    };
    let killer = hooked().oom.unwrap();
    let (oom, _) = told(&stack(killer.clone()), Some(log(Constraint::None, None)), &V2);
    assert_eq!((oom.scope, oom.evidence), (Some(Scope::Memcg), Some(Evidence::Stack)));
    assert_eq!((cgroup_id(&oom), oom.domain_bytes), (Some("20"), Some(2000 * PAGE)));
    assert_eq!(oom.kill, Some(Kill::Selected));

    // It has no message: a score of 0 and the sysctl tell who was killed for allocating.
    let host = OomControlFacts { memcg: Some(None), constraint: Some(0), ..killer };
    for (score, own, sysctl, kill) in [
        (Some(0), true, Some(true), Some(Kill::AllocatingTask)),
        (Some(0), true, Some(false), Some(Kill::Selected)),
        (Some(0), true, None, None),
        (Some(0), false, Some(true), Some(Kill::Selected)),
        (Some(900), true, Some(true), Some(Kill::Selected)),
        (Some(900), true, None, Some(Kill::Selected)),
        (None, true, None, Some(Kill::Selected)),
    ] {
        let mut facts = stack(OomControlFacts { oom_score_bytes: score, ..host.clone() });
        if own {
            facts.trigger.tgid = facts.victim.tgid;
        }
        let context = Context { kill_allocating_task: sysctl, ..V2 };
        assert_eq!(told(&facts, None, &context).0.kill, kill, "{score:?} {own} {sysctl:?}");
    }
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
    assert_eq!(next(5, 51, Some(1), None, &V2), (5, None));
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
