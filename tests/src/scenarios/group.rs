//! `memory.oom.group`.

use anyhow::{Result, ensure};

use super::{LIMIT, MIB, Outcome, not_applicable};
use crate::cgroup::Version;
use crate::compare::ExpectedTrigger;
use crate::counters::{oom_kills, wall_clock_ns};
use crate::session::Session;

/// Three processes die together: three lines, one `oom.id`. The kernel logs the first victim twice, but it is
/// reported once.
pub(super) fn oom_group(session: &mut Session) -> Result<Outcome> {
    if session.hierarchy.version == Version::V1 {
        return not_applicable("cgroup v1 has no memory.oom.group");
    }
    let cgroup = session.cgroup(b"group")?;
    cgroup.limit(LIMIT)?;
    cgroup.write(&cgroup.file("memory.oom.group"), "1")?;
    let mut hogs = Vec::new();
    for name in ["hog-group-1", "hog-group-2", "hog-group-3"] {
        let mut hog = session.hog_in(&cgroup, name.as_bytes())?;
        hog.hold(MIB)?;
        hogs.push(hog);
    }
    let facts = hogs.iter().map(|hog| hog.facts()).collect::<Result<Vec<_>>>()?;
    let (kills_before, released) = (oom_kills()?, wall_clock_ns());
    if let Some(first) = hogs.first_mut() {
        first.grow("anon")?;
    }
    for hog in &mut hogs {
        hog.killed()?;
    }
    let mut expected = Vec::new();
    for victim in &facts {
        let mut one = session.killed_by_limit(victim.clone(), &cgroup, (&cgroup, LIMIT), released)?;
        one.kill = "group";
        if let Some(fired) = &mut one.fired {
            fired.events_of_this_kill_alone = false;
        }
        if let Some(grower) = facts.first().filter(|grower| grower.pid != victim.pid) {
            one.trigger = ExpectedTrigger::Other { facts: grower.clone(), cgroup: cgroup.place().clone() };
        }
        expected.push(one);
    }
    let lines = session.check(&expected)?;
    let ids: Vec<_> = lines.iter().map(|line| line.number("oom.id")).collect();
    ensure!(ids.iter().all(|id| id.is_some() && Some(id) == ids.first()), "field oom.id: not one: {ids:?}");
    // The kernel logs four kills, one of which must not be reported.
    let logged = session.logged_tids()?;
    ensure!(logged.len() == 4, "the kernel logged {} kills, not 4: {logged:?}", logged.len());
    if session.guest() {
        let grown = oom_kills()? - kills_before;
        ensure!(grown == 4, "the kernel counted {grown} kills, not 4");
    }
    let path = cgroup.place().path.clone();
    session.wait_for_log("group notice", |reports| reports.groups.contains(&path).then_some(()))?;
    Ok(Outcome::Passed)
}
