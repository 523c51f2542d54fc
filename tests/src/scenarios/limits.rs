//! The limit of a cgroup fires.

use anyhow::{Result, ensure};

use super::{LIMIT, MIB, Outcome, not_applicable};
use crate::cgroup::Version;
use crate::compare::ExpectedTrigger;
use crate::counters::wall_clock_ns;
use crate::session::Session;

/// The simplest kill.
pub(super) fn plain(session: &mut Session) -> Result<Outcome> {
    kill_in_own_cgroup(session, "plain", "anon")
}

/// Memory that can be shared.
pub(super) fn shmem(session: &mut Session) -> Result<Outcome> {
    kill_in_own_cgroup(session, "shmem", "shmem")
}

fn kill_in_own_cgroup(session: &mut Session, name: &str, kind: &str) -> Result<Outcome> {
    let cgroup = session.cgroup(name.as_bytes())?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, format!("hog-{name}").as_bytes())?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow(kind)?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// Part of the victim is swapped out.
pub(super) fn swap(session: &mut Session) -> Result<Outcome> {
    if session.host().memory_and_swap.1 == 0 {
        return not_applicable("this machine has no swap");
    }
    let cgroup = session.cgroup(b"swap")?;
    cgroup.limit(LIMIT)?;
    if !cgroup.limit_swap(LIMIT, LIMIT / 2)? {
        return not_applicable("this kernel does not account for swap");
    }
    let mut hog = session.hog_in(&cgroup, b"hog-swap")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let mut expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    if let Some(fired) = &mut expected.fired {
        let version = session.hierarchy.version;
        fired.swap_limit_bytes = Some(if version == Version::V1 { LIMIT + LIMIT / 2 } else { LIMIT / 2 });
    }
    let lines = session.check(&[expected])?;
    let swapped = lines.iter().find_map(|line| line.number("victim.memory.swap_bytes"));
    ensure!(swapped > Some(0), "the scenario failed to swap: {swapped:?}");
    Ok(Outcome::Passed)
}

/// The parent's limit fires; the victim is below it.
pub(super) fn limit_on_parent(session: &mut Session) -> Result<Outcome> {
    let parent = session.cgroup(b"parent")?;
    parent.limit(LIMIT)?;
    parent.allow_children()?;
    let cgroup = parent.child(b"child")?;
    let mut hog = session.hog_in(&cgroup, b"hog-child")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&parent, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// A process below the parent allocates, and its larger sibling dies: the OOM killer runs in another cgroup
/// than the victim's.
pub(super) fn sibling_triggers(session: &mut Session) -> Result<Outcome> {
    let parent = session.cgroup(b"siblings")?;
    parent.limit(LIMIT)?;
    parent.allow_children()?;
    let (large, small) = (parent.child(b"large")?, parent.child(b"small")?);
    let mut victim = session.hog_in(&large, b"hog-large")?;
    victim.hold(LIMIT * 3 / 4)?;
    let mut other = session.hog_in(&small, b"hog-small")?;
    let (facts, trigger, released) = (victim.facts()?, other.facts()?, wall_clock_ns());
    let survived = other.hold(LIMIT / 2);
    victim.killed()?;
    let mut first = session.killed_by_limit(facts, &large, (&parent, LIMIT), released)?;
    first.trigger = ExpectedTrigger::Other { facts: trigger.clone(), cgroup: small.place().clone() };
    let mut kills = vec![first];
    if survived.is_err() {
        // The kernel regards a victim as done (MMF_OOM_SKIP) a moment before its pages are uncharged. Another
        // allocation in between kills the next process. Then two lines are right.
        other.killed()?;
        kills.push(session.killed_by_limit(trigger, &small, (&parent, LIMIT), released)?);
    }
    for fired in kills.iter_mut().filter_map(|kill| kill.fired.as_mut()) {
        // The sibling asks again until the victim has released its memory.
        fired.events_of_this_kill_alone = false;
        fired.another_dies = true;
    }
    session.check(&kills)?;
    Ok(Outcome::Passed)
}

/// Another process lowers the limit while the victim sleeps. Then the victim continues.
pub(super) fn limit_lowered_by_another(session: &mut Session) -> Result<Outcome> {
    const HELD: u64 = 12 * MIB;
    let cgroup = session.cgroup(b"lowered")?;
    cgroup.limit(4 * LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-lowered")?;
    hog.hold(HELD)?;
    let other_cgroup = session.cgroup(b"lowering")?;
    let mut other = session.hog_in(&other_cgroup, b"lowering")?;
    if session.hierarchy.version == Version::V1 {
        // v2 kills here (see `max_below_usage_from_other_cgroup`); v1 refuses.
        let answer = other.write(&cgroup.limit_file(), &(HELD / 2).to_string())?;
        ensure!(answer == libc::EBUSY.to_string(), "a limit below usage: errno {answer}, not EBUSY");
    }
    let answer = other.write(&cgroup.limit_file(), &LIMIT.to_string())?;
    ensure!(answer == "0", "lower the limit: errno {answer}");
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// The OOM killer runs in the context of the process that writes the limit, in another cgroup.
pub(super) fn max_below_usage_from_other_cgroup(session: &mut Session) -> Result<Outcome> {
    if session.hierarchy.version == Version::V1 {
        return not_applicable("cgroup v1 refuses a limit below usage (EBUSY) and kills no process");
    }
    const LOWERED: u64 = LIMIT / 4;
    let cgroup = session.cgroup(b"max-below")?;
    cgroup.limit(4 * LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-max-below")?;
    hog.hold(LIMIT)?;
    let other_cgroup = session.cgroup(b"writer")?;
    let mut other = session.hog_in(&other_cgroup, b"limit-writer")?;
    let (facts, writer, released) = (hog.facts()?, other.facts()?, wall_clock_ns());
    let answer = other.write(&cgroup.limit_file(), &LOWERED.to_string())?;
    ensure!(answer == "0", "lower the limit: errno {answer}");
    hog.killed()?;
    let mut expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LOWERED), released)?;
    expected.trigger = ExpectedTrigger::Other { facts: writer, cgroup: other_cgroup.place().clone() };
    if let Some(fired) = &mut expected.fired {
        fired.lowered_from = Some(4 * LIMIT);
        // The writer asks again until the victim is gone.
        fired.events_of_this_kill_alone = false;
    }
    session.check(&[expected])?;
    // Until the victim has released its memory the writer may find no process to kill.
    session.may_run_out_unasked(&cgroup);
    Ok(Outcome::Passed)
}
