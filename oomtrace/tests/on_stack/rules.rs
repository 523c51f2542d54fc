//! One kill after the other.

use oomtrace::event::Evidence;
use oomtrace::facts::{OomControlFacts, OomControlLayout, OomControlSearch, OomKillFacts};
use oomtrace_common::layout::{ABSENT, KernelLayout};

use crate::world::{
    CURRENT, IN_POD, LEADER, MEMCGS, NODES, OF_HOST, OTHER, Oc, TASK, WORDS, found, id_of, layout, search,
};

/// What is told of it.
pub fn told(oc: &Oc) -> OomControlFacts {
    OomControlFacts {
        evidence: Evidence::Stack,
        memcg: Some(id_of(oc.memcg)),
        domain_bytes: Some(oc.totalpages * 4096),
        oom_score_bytes: (oc.chosen_points != i64::MIN).then(|| oc.chosen_points * 4096),
        gfp_mask: Some(oc.gfp_mask),
        order: Some(oc.order),
        constraint: Some(oc.constraint),
        message: None,
    }
}

#[test]
fn every_way_to_run_out_is_found() {
    for oc in [
        IN_POD,
        Oc { memcg: MEMCGS[0], ..IN_POD },
        Oc { memcg: MEMCGS[2], ..IN_POD },
        OF_HOST,
        Oc { constraint: 1, order: 3, ..OF_HOST },
        Oc { constraint: 2, ..OF_HOST },
        // A page fault without memory says nothing of nodes.
        Oc { zonelist: 0, nodemask: 0, gfp_mask: 0, ..OF_HOST },
        Oc { order: -1, nodemask: 0, ..OF_HOST },
        // With page tables of five levels.
        Oc { zonelist: 0xff11_0001_2000_0008, ..OF_HOST },
        Oc { chosen: LEADER, ..IN_POD },
        Oc { chosen_points: -17, ..IN_POD },
        Oc { chosen_points: i64::MIN, ..IN_POD },
        Oc { chosen_points: 0, ..OF_HOST },
        Oc { word: 3, anchor: Some(2), ..IN_POD },
        Oc { word: WORDS - layout().oc_size as usize / 8, ..IN_POD },
    ] {
        assert_eq!(found(&oc.alone()), Some(told(&oc)), "{oc:?}");
    }
}

/// The killer may choose another thread of the victim's process: the one that ran it.
#[test]
fn any_thread_of_the_victim_is_the_victim() {
    let oc = Oc { chosen: CURRENT, ..OF_HOST };
    let mut facts = oc.alone();
    assert_eq!(found(&facts), None, "it is of another process");
    facts.trigger.tgid = facts.victim.tgid;
    assert_eq!(found(&facts), Some(told(&oc)));
    facts.victim.tgid = None;
    facts.trigger.tgid = None;
    assert_eq!(found(&facts), None, "whose it is is not known");
}

#[test]
fn two_that_differ_are_none() {
    let with = |second: Oc| {
        let mut facts = IN_POD.alone();
        second.put(&layout(), &mut facts.stack.as_mut().unwrap().bytes);
        found(&facts)
    };
    let second = Oc { word: 60, anchor: Some(13), ..IN_POD };
    assert_eq!(with(second), Some(told(&IN_POD)), "the same twice");
    for differs in [
        Oc { memcg: MEMCGS[0], ..second },
        Oc { gfp_mask: 0xcc1, ..second },
        Oc { order: 1, ..second },
        Oc { totalpages: 2001, ..second },
        Oc { chosen: LEADER, ..second },
        Oc { chosen_points: 901, ..second },
        Oc { word: 60, anchor: Some(13), ..OF_HOST },
    ] {
        assert_eq!(with(differs), None, "{differs:?}");
    }
}

/// A task that exits and needs memory is marked before anything is worked out: a struct there is of an earlier run.
#[test]
fn one_that_marks_itself_without_a_kill_tells_nothing() {
    let kill = |signalled: Option<bool>, current: u64| {
        let mut facts = IN_POD.alone();
        facts.signalled = signalled;
        facts.stack.as_mut().unwrap().current = current;
        found(&facts).is_some()
    };
    assert!(kill(Some(true), TASK));
    assert!(!kill(Some(false), TASK));
    assert!(!kill(None, TASK));
    // One that the killer chose, and that was exiting already.
    assert!(kill(Some(false), CURRENT) && kill(None, CURRENT));
}

/// Finds one kill after the other: in which run each was, and whether it has the score.
fn runs(kills: &[OomKillFacts]) -> Vec<Option<(u64, bool)>> {
    let mut search = search();
    kills
        .iter()
        .map(|facts| search.find(facts).map(|found| (found.run, found.oom.present & 1 << 5 != 0)))
        .collect()
}

#[test]
fn the_others_of_a_group_die_in_the_run_of_the_first() {
    let first = IN_POD.alone();
    let next = |seq: u64, oc: Oc| {
        let mut facts = OomKillFacts { seq, ..oc.alone() };
        let stack = facts.stack.as_mut().unwrap();
        (stack.task, stack.leader) = (OTHER, OTHER);
        facts
    };
    let second = || next(4, IN_POD);
    // Nobody chose it, unless there was a first.
    assert_eq!(runs(&[second()]), [None]);
    assert_eq!(
        runs(&[first.clone(), second(), next(6, IN_POD)]),
        [Some((3, true)), Some((3, false)), Some((3, false))]
    );
    // Another run, another task, another place, another value: not its group.
    for differs in [
        Oc { word: 44, ..IN_POD },
        Oc { memcg: MEMCGS[0], ..IN_POD },
        Oc { totalpages: 2001, ..IN_POD },
        Oc { chosen: LEADER, ..IN_POD },
        Oc { gfp_mask: 0xcc1, ..IN_POD },
    ] {
        assert_eq!(runs(&[first.clone(), next(4, differs)]), [Some((3, true)), None], "{differs:?}");
    }
    let mut by_another = second();
    by_another.stack.as_mut().unwrap().current = NODES;
    assert_eq!(runs(&[first.clone(), by_another]), [Some((3, true)), None]);
    // A kill between them that a hook saw, or of which nothing was found, ends the run.
    let between = OomKillFacts { seq: 4, stack: None, ..first.clone() };
    assert_eq!(runs(&[first.clone(), between, next(5, IN_POD)]), [Some((3, true)), None, None]);
    // The same task runs the killer again.
    let later = OomKillFacts { seq: 4, ..Oc { totalpages: 2001, ..IN_POD }.alone() };
    assert_eq!(runs(&[first.clone(), later]), [Some((3, true)), Some((4, true))]);
    // The killer may mark the chosen one again, by another thread of it.
    let again = OomKillFacts { seq: 4, ..first.clone() };
    assert_eq!(runs(&[first, again]), [Some((3, true)), Some((3, true))]);
}

#[test]
fn without_all_of_the_layout_nothing_is_looked_for() {
    let whole = layout();
    assert!(OomControlLayout::of(&whole).is_some());
    let members: [fn(&mut KernelLayout) -> &mut u32; 10] = [
        |layout| &mut layout.oc_zonelist,
        |layout| &mut layout.oc_nodemask,
        |layout| &mut layout.oc_memcg,
        |layout| &mut layout.oc_gfp_mask,
        |layout| &mut layout.oc_order,
        |layout| &mut layout.oc_totalpages,
        |layout| &mut layout.oc_chosen,
        |layout| &mut layout.oc_chosen_points,
        |layout| &mut layout.oc_constraint,
        |layout| &mut layout.oc_size,
    ];
    for member in members {
        // Not there; beyond the end; across two words.
        for offset in [ABSENT, 4096, 2] {
            let mut lacking = whole;
            *member(&mut lacking) = offset;
            assert_eq!(OomControlLayout::of(&lacking), None, "{offset}");
        }
    }
    assert!(OomControlSearch::new(None).find(&IN_POD.alone()).is_none());
}

/// However little of the stack there is.
#[test]
fn any_length_is_searched() {
    for len in 0..=IN_POD.word * 8 + 200 {
        let mut facts = IN_POD.alone();
        facts.stack.as_mut().unwrap().bytes.truncate(len);
        let whole = len >= IN_POD.word * 8 + layout().oc_size as usize;
        assert_eq!(found(&facts).is_some(), whole, "{len}");
    }
    // Addresses at the end of all, and a victim that is not known.
    let mut facts = IN_POD.alone();
    facts.stack.as_mut().unwrap().at = u64::MAX - 100;
    assert_eq!(found(&facts), None);
    let mut facts = Oc { chosen: 0, ..IN_POD }.alone();
    facts.stack.as_mut().unwrap().task = 0;
    assert_eq!(found(&facts), None);
    // More addresses than levels.
    let mut facts = Oc { memcg: MEMCGS[2], ..IN_POD }.alone();
    facts.lineage.levels.pop();
    assert_eq!(found(&facts), None);
}
