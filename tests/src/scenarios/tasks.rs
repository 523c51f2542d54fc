//! Victims that are more than one simple process, or something else.

use anyhow::{Context, Result, ensure};

use super::{LIMIT, Outcome};
use crate::compare::ExpectedTrigger;
use crate::counters::wall_clock_ns;
use crate::process::ProcessFacts;
use crate::session::Session;

/// A victim of another user, with a raised score.
pub(super) fn raised_adj(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"raised-adj")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-adj")?;
    hog.ask("adj 517")?;
    hog.ask("uid 4242")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    ensure!((facts.oom_score_adj, facts.uid) == (517, 4242), "the hog did not change: {facts:?}");
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// A thread allocates while the process's first thread sleeps. The OOM killer names the first thread.
pub(super) fn thread_victim(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"thread")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-leader")?;
    let tid = hog.go_on_in_thread(false)?;
    hog.name(b"hog-worker")?;
    ensure!(tid != hog.pid(), "a thread with the process's id");
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let mut expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    expected.trigger = ExpectedTrigger::Victim(b"hog-worker".to_vec());
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// The first thread has ended. The OOM killer names another thread, whose id is not the process's.
pub(super) fn exited_leader(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"exited-leader")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-leader")?;
    let tid = hog.go_on_in_thread(true)?;
    hog.name(b"hog-survivor")?;
    let (facts, released) = (ProcessFacts::of(hog.pid(), tid)?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// A container's first process can survive the kill of its child.
pub(super) fn child_with_living_parent(session: &mut Session) -> Result<Outcome> {
    kill_child(session, "child-of-living", false)
}

/// Process 1 of a pid namespace.
pub(super) fn pid_namespace(session: &mut Session) -> Result<Outcome> {
    kill_child(session, "pid-namespace", true)
}

/// The first process of a pid namespace runs the OOM killer, and later kills the others by ending. That is
/// not an OOM kill, even if one of them has its memory where the victim's was.
pub(super) fn namespace_ends(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"namespace")?;
    cgroup.limit(16 * LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-namespace")?;
    let released = wall_clock_ns();
    hog.end_a_namespace()?;
    let tids = session.logged_tids()?;
    // On a busy host more than one: the killer may run again before the first victim's memory is free.
    ensure!(!tids.is_empty(), "the kernel killed nobody");
    for tid in tids {
        session.line_of(tid, released)?;
    }
    Ok(Outcome::Passed)
}

fn kill_child(session: &mut Session, name: &str, apart: bool) -> Result<Outcome> {
    let cgroup = session.cgroup(name.as_bytes())?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-parent")?;
    let child = hog.child(apart)?;
    hog.name(b"hog-child")?;
    let (facts, released) = (ProcessFacts::of(child, child)?, wall_clock_ns());
    ensure!(facts.parent_pid == hog.pid(), "the child has another parent: {facts:?}");
    ensure!((facts.namespace_pid == 1) == apart, "the child is in the wrong namespace: {facts:?}");
    hog.grow("anon")?;
    let signal = hog.child_ended_by()?;
    ensure!(signal == libc::SIGKILL, "the child ended by signal {signal}");
    ensure!(hog.is_alive()?, "the parent is dead too");
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// Two processes share one memory: the kernel kills both, but counts and logs only one.
pub(super) fn shared_mm(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"shared-mm")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-shared")?;
    let other = hog.share_memory()?;
    let grower = hog.facts()?;
    let sleeper = ProcessFacts::of(other, other)?;
    let released = wall_clock_ns();
    hog.grow("anon")?;
    hog.killed()?;
    // Both have the same score, so the OOM killer takes the one that it checks last.
    let tids = session.wait_for_log("kill of either process", |reports| {
        let tids = reports.kills.iter().rev().map(|kill| kill.killed.tid);
        tids.clone().find(|tid| [grower.tid, sleeper.tid].contains(tid))
    })?;
    let (victim, with_it) = if tids == grower.tid { (&grower, &sleeper) } else { (&sleeper, &grower) };
    let mut expected = session.killed_by_limit(victim.clone(), &cgroup, (&cgroup, LIMIT), released)?;
    if victim.pid != grower.pid {
        expected.trigger = ExpectedTrigger::Other { facts: grower.clone(), cgroup: cgroup.place().clone() };
    }
    let lines = session.check(&[expected])?;
    let seq = lines.first().and_then(|line| line.number("seq")).context("a line without seq")?;

    let line = session.claim("a shared_mm_kill line", |line| {
        line.kind() == "shared_mm_kill" && line.number("victim.pid") == Some(with_it.pid.into())
    })?;
    let place = cgroup.place();
    for (field, truth) in [
        ("of", format!("[{seq}]")),
        ("victim.namespace_pid", with_it.namespace_pid.to_string()),
        ("victim.parent_pid", with_it.parent_pid.to_string()),
        ("victim.comm", format!("{:?}", String::from_utf8_lossy(&with_it.comm))),
        ("victim.uid", with_it.uid.to_string()),
        ("victim.oom_score_adj", with_it.oom_score_adj.to_string()),
        ("victim.cgroup.path", format!("{:?}", String::from_utf8_lossy(&place.path))),
        ("victim.cgroup.id", format!("\"{}\"", place.id)),
    ] {
        let told = line.get(field).map(ToString::to_string);
        ensure!(
            told.as_ref() == Some(&truth),
            "shared_mm_kill field {field}: expected {truth}, oomtrace {told:?}: {}",
            line.text
        );
    }
    Ok(Outcome::Passed)
}
