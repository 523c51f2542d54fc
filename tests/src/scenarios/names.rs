//! Names that containers choose, and cgroups with difficult names.

use anyhow::{Context, Result, ensure};

use super::{LIMIT, Outcome};
use crate::cgroup::Cgroup;
use crate::counters::wall_clock_ns;
use crate::session::Session;

/// No name can break a line or look like another cgroup, process or key. A cgroup's name may contain anything
/// but `/` and newline.
pub(super) fn hostile_comm_and_path(session: &mut Session) -> Result<Outcome> {
    let long = [b'n'; 200];
    let names: &[(&[u8], &[u8])] = &[
        (b"quote\"back\\slash", b"\"},\"x\":{\"y\":\""),
        (b"\x1b[31mred\x07\t\r", b"a\nb\tc\r\x1b[2J"),
        (b"\xff\xfe\xc3(\xed\xa0\x80", b"\xf0\x9f\x92\xff\xc3("),
        (b"x,task_memcg=/evil,task=evil,pid=1,uid=0", b"x,pid=1,uid=0"),
        (b"{\"type\":\"stop\"}", b") total-vm:1kB"),
        (&long, b"fifteen bytes \xe2\x82\xac"),
        (b"oom_memcg=/evil,oom_memcg=/", b" \\x41\\ "),
    ];
    for (path, comm) in names {
        session.wait_for_report_room()?;
        // A slash makes one more level, as in any container's path.
        let mut levels: Vec<Cgroup> = Vec::new();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let parent = levels.last().unwrap_or(session.scratch());
            parent.allow_children()?;
            let level = parent.child(name)?;
            levels.push(level);
        }
        let cgroup = levels.last().context("no levels")?;
        cgroup.limit(LIMIT)?;
        let mut hog = session.hog_in(cgroup, comm)?;
        let (facts, released) = (hog.facts()?, wall_clock_ns());
        ensure!(Some(&*facts.comm) == comm.get(..comm.len().min(15)), "the hog's name: {:?}", facts.comm);
        hog.grow("anon")?;
        hog.killed()?;
        let expected = session.killed_by_limit(facts, cgroup, (cgroup, LIMIT), released)?;
        session.check(&[expected])?;
    }
    Ok(Outcome::Passed)
}

/// A deep cgroup: more levels than the kernel side reads, with names that leave the line in the kernel log
/// complete.
pub(super) fn deep_path(session: &mut Session) -> Result<Outcome> {
    const LEVELS: usize = 42;
    let mut cgroups: Vec<Cgroup> = Vec::new();
    for level in 2..=LEVELS {
        let parent = cgroups.last().unwrap_or(session.scratch());
        parent.allow_children()?;
        let cgroup = parent.child(format!("l-{level}").as_bytes())?;
        cgroups.push(cgroup);
    }
    let cgroup = cgroups.last().context("no levels")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(cgroup, b"hog-deep")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, cgroup, (cgroup, LIMIT), released)?;
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// The process and its cgroup are gone before the tracer reads them.
pub(super) fn cgroup_removed_before_line(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"removed")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-removed")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    session.tracer().freeze(true)?;
    hog.grow("anon")?;
    let killed = hog.killed();
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released);
    let removed = cgroup.remove();
    session.tracer().freeze(false)?;
    killed.and(removed)?;
    session.check(&[expected?])?;
    // This line is late on purpose.
    session.latencies_ns.pop();
    Ok(Outcome::Passed)
}
