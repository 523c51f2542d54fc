//! The host runs out, and the one that dies is not the one that has the memory. Only in a guest.

use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{MIB, Outcome, not_applicable};
use crate::cgroup::Cgroup;
use crate::compare;
use crate::counters::{available_bytes, wall_clock_ns};
use crate::hog::{self, Hog};
use crate::session::{Session, is_guest};
use crate::tracer::Line;

/// What the one that dies has, and its limit.
const SMALL: u64 = 8 * MIB;
const SMALL_LIMIT: u64 = 64 * MIB;
/// How much the eater takes at once at the end.
const STEP: u64 = 2 * MIB;
/// What a removed cgroup holds.
const HELD: u64 = 64 * MIB;

/// A process without a limit eats the host's memory, and a small one with a high `oom_score_adj` dies.
pub(super) fn anon(session: &mut Session) -> Result<Outcome> {
    let Some(eaten) = eat(session, "anon")? else { return not_applicable("no memory cgroups") };
    let found = eaten.line.number("memory.lru.anon_bytes");
    ensure!(found >= Some(eaten.usage / 10 * 9), "field memory.lru.anon_bytes: {}", eaten.line.text);
    Ok(Outcome::Passed)
}

/// The same with shared memory.
pub(super) fn shmem(session: &mut Session) -> Result<Outcome> {
    let Some(eaten) = eat(session, "shmem")? else { return not_applicable("no memory cgroups") };
    let found = eaten.line.number("memory.shmem_bytes");
    ensure!(found >= Some(eaten.usage / 10 * 9), "field memory.shmem_bytes: {}", eaten.line.text);
    Ok(Outcome::Passed)
}

/// The same with locked memory.
pub(super) fn locked(session: &mut Session) -> Result<Outcome> {
    let Some(eaten) = eat(session, "mlock")? else { return not_applicable("no memory cgroups") };
    let found = eaten.line.number("memory.lru.unevictable_bytes");
    ensure!(found >= Some(eaten.usage / 10 * 8), "field memory.lru.unevictable_bytes: {}", eaten.line.text);
    Ok(Outcome::Passed)
}

/// Among hundreds of cgroups, a removed one still holds memory in a file. Newer kernels give it to the cgroup above.
pub(super) fn removed(session: &mut Session) -> Result<Outcome> {
    const CGROUPS: u64 = 300;
    if !session.hierarchy.memory {
        return not_applicable("no memory cgroups");
    }
    let file = hog::memory_file().context("a memory file")?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let cgroup = session.cgroup(b"removed")?;
    let id = cgroup.place().id.to_string();
    let mut holder = session.hog_in(&cgroup, b"hog-removed")?;
    holder.pour(path.as_ref(), HELD)?;
    holder.tell("quit")?;
    drop(holder);
    cgroup.remove()?;
    let mut others = Vec::new();
    for number in 0..CGROUPS {
        others.push(session.cgroup(format!("other-{number}").as_bytes())?);
    }
    let Some(eaten) = eat(session, "anon")? else { return not_applicable("no memory cgroups") };
    let line = &eaten.line;
    ensure!(line.number("charged.cgroups") > Some(CGROUPS), "field charged.cgroups: {}", line.text);
    ensure!(line.number("memory.shmem_bytes") >= Some(HELD), "field memory.shmem_bytes: {}", line.text);
    let above = session.scratch().place().id.to_string();
    let holds = |user: &Value, flag: &str, id: &str| {
        user.get("id") == Some(&id.into())
            && user.get(flag) == Some(&true.into())
            && user.get("usage_bytes").and_then(Value::as_u64) >= Some(HELD)
    };
    let top = compare::top(line);
    let removed = top.iter().any(|user| holds(user, "removed", &id));
    ensure!(
        removed || top.iter().any(|user| holds(user, "without_below", &above)),
        "who holds it: {}",
        line.text
    );
    let counted = line.number("charged.removed.usage_bytes");
    ensure!(!removed || counted >= Some(HELD), "field charged.removed: {}", line.text);
    drop(file);
    Ok(Outcome::Passed)
}

/// What was found.
pub(super) struct Eaten {
    pub(super) line: Line,
    /// What the cgroup of the eater used just before.
    usage: u64,
}

/// Eats all memory with this act of a hog, until a small process dies. `None` if there are no cgroups.
pub(super) fn eat(session: &mut Session, act: &str) -> Result<Option<Eaten>> {
    ensure!(is_guest(), "only in a guest");
    if !session.hierarchy.memory {
        return Ok(None);
    }
    session.wait_for_report_room()?;
    let (small, mut victim) = small(session)?;
    let eater = session.cgroup(b"eater")?;
    let mut hog = session.hog_in(&eater, b"hog-eater")?;
    // Without swap that is what ends it: all is dirty or anon. What is available is an estimate, so the first step stays far below it.
    let since = wall_clock_ns();
    let mut asked = available_bytes()? / 10 * 6;
    hog.ask(&format!("{act} {asked}"))?;
    let mut usage = eater.usage()?;
    while victim.is_alive()? {
        // Before the step that may fill the host: after that, the eater can be the next victim.
        usage = eater.usage()?;
        hog.tell(&format!("{act} {STEP}"))?;
        asked += STEP;
        std::thread::sleep(Duration::from_millis(100));
    }
    let eater_pid = hog.pid();
    let (kill, line) = told(session, &victim, hog, since)?;
    // If it was the next victim, some of its memory may have been free when the cgroups were read.
    let least = if session.logged_tids()?.contains(&eater_pid) { 0 } else { usage };
    // In a slow guest it may be some steps behind what it was asked for.
    names_the_eater(&line, (&eater, least..=asked + 16 * MIB), &small)?;
    let incident = session.incident_of(&kill)?;
    ensure!(!is_found(&incident, "host_not_full"), "the host was full: {}", incident.text);
    Ok(Some(Eaten { line, usage }))
}

/// The cgroup of the one that dies first, and its process.
pub(super) fn small(session: &mut Session) -> Result<(Cgroup, Hog)> {
    let small = session.cgroup(b"small")?;
    small.limit(SMALL_LIMIT)?;
    let mut victim = session.hog_in(&small, b"hog-small")?;
    victim.hold(SMALL)?;
    victim.ask("adj 1000")?;
    Ok((small, victim))
}

/// The line of its kill, and the line of whose memory it was, compared with the kernel's report. The eater ends as soon as that is told.
pub(super) fn told(session: &mut Session, victim: &Hog, eater: Hog, since: i128) -> Result<(Line, Line)> {
    let kill = session.line_of(victim.pid(), since)?;
    let line = session.host_memory_of(&kill)?;
    drop(eater);
    let logged = session.logged_kill(victim.pid())?;
    compare::host_memory(&line, &logged, session.host().page_bytes, true)?;
    Ok((kill, line))
}

fn names_the_eater(
    line: &Line,
    (eater, usage): (&Cgroup, RangeInclusive<u64>),
    small: &Cgroup,
) -> Result<()> {
    let top = compare::top(line);
    let holds = |user: &&Value| ["removed", "without_below"].iter().any(|flag| user.get(flag).is_some());
    let removed = top.iter().take_while(holds).count();
    let text = |user: &Value, key: &str| user.get(key).and_then(Value::as_str).map(str::to_owned);
    let path = String::from_utf8_lossy(&eater.place().path).into_owned();
    let at = top.iter().position(|user| text(user, "path").as_ref() == Some(&path));
    // What a removed cgroup held can be more.
    ensure!(at <= Some(removed), "the eater is not the first: {}", line.text);
    let first = at.and_then(|at| top.get(at)).context("the eater is not in top")?;
    ensure!(first.get("unlimited") == Some(&true.into()), "it has no limit: {}", line.text);
    let bytes = first.get("usage_bytes").and_then(Value::as_u64).context("no size")?;
    ensure!(bytes >= usage.start() / 10 * 9 && bytes <= *usage.end(), "it uses {usage:?}: {}", line.text);
    ensure!(line.get("killed_largest") == Some(&false.into()), "the small one died: {}", line.text);
    ensure!(line.number("victim.usage_bytes") >= Some(SMALL), "at the kill: {}", line.text);
    ensure!(line.get("victim.oom_score_adj") == Some(&1000.into()), "by its adj: {}", line.text);
    let id = small.place().id.to_string();
    let victim =
        top.iter().find(|user| text(user, "id").as_ref() == Some(&id)).context("no victim in top")?;
    ensure!(
        victim.get("killed") == Some(&true.into())
            && victim.get("limit_bytes") == Some(&SMALL_LIMIT.into())
            && victim.get("usage_bytes") == line.get("victim.usage_bytes"),
        "the one that died: {}",
        line.text
    );
    Ok(())
}

/// Whether an incident has this finding.
pub(super) fn is_found(incident: &Line, id: &str) -> bool {
    let findings = incident.get("findings").and_then(Value::as_array);
    findings.into_iter().flatten().any(|finding| finding.get("id") == Some(&id.into()))
}
