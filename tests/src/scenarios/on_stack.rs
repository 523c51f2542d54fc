//! What is found in the kernel stack, against what a function hook reads of the same kills.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::{LIMIT, MIB, Outcome, not_applicable};
use crate::cgroup::{Cgroup, Version};
use crate::session::{Session, start_hog};
use crate::tracer::{Hook, Line, Tracer};

/// How many kills, if nothing else is asked for by [`KILLS`].
const FEW: usize = 40;
/// More of them: `TEST_OOMTRACE_KILLS=1000 oomtrace-scenarios --scenario stack_as_hook`.
const KILLS: &str = "TEST_OOMTRACE_KILLS";
const AT_A_TIME: usize = 8;
const SMALL: u64 = 4 * MIB;

/// What only the killer's own state has.
const OF_THE_KILLER: [&str; 11] = [
    "oom.scope",
    "oom.constraint",
    "oom.kill",
    "oom.order",
    "oom.gfp_mask",
    "oom.gfp_mask_raw",
    "oom.domain_bytes",
    "oom.cgroup.path",
    "oom.cgroup.id",
    "oom.cgroup.limit_bytes",
    "victim.oom_score_bytes",
];

/// Two tracers see the same kills, by a cgroup's own limit, by its parent's, of a group, of threads: one has a function hook,
/// and the other finds in the kernel stack what that one reads.
pub(super) fn as_hook(session: &mut Session) -> Result<Outcome> {
    if session.hook() == "none" {
        return not_applicable("no function hook to compare with");
    }
    let kills = match std::env::var(KILLS) {
        Ok(number) => number.parse().with_context(|| format!("{KILLS}={number}"))?,
        Err(_) => FEW,
    };
    let binary = session.program().0.clone();
    let mut on_stack = Tracer::start(&binary, Hook::None)?;
    let victims = kill(session, kills)?;
    let (mut compared, mut without) = (0, Vec::new());
    for tid in victims {
        let hooked = session.line_of(tid, 0)?;
        let found = on_stack.wait_for("the other tracer's line", |lines| {
            lines.iter().rev().find(|line| line.number("victim.tid") == Some(tid.into())).cloned()
        })?;
        compared += 1;
        if found.get("oom.evidence") == Some(&"stack".into()) {
            same(&hooked, &found)?;
        } else {
            without.push(found.text);
        }
    }
    on_stack.stop()?;
    ensure!(compared >= kills, "{compared} kills were compared, not {kills}");
    let first = without.first().cloned().unwrap_or_default();
    ensure!(without.is_empty(), "{} of {compared} kills were not found in the stack: {first}", without.len());
    Ok(Outcome::Passed)
}

/// Each fact of the killer's is the same, or the same is missing.
fn same(hooked: &Line, found: &Line) -> Result<()> {
    for key in OF_THE_KILLER {
        ensure!(
            hooked.get(key) == found.get(key),
            "field {key}: {:?} by a hook, {:?} from the stack: {}",
            hooked.get(key),
            found.get(key),
            found.text
        );
    }
    let first = |line: &Line| (line.number("oom.id") == line.number("seq")).then_some(());
    ensure!(
        first(hooked) == first(found),
        "field oom.id: the first of its run? {} {}",
        hooked.text,
        found.text
    );
    Ok(())
}

/// Makes so many kills or a few more. Gives the threads that the killer names.
fn kill(session: &Session, kills: usize) -> Result<BTreeSet<u32>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Ok(BTreeSet::new())));
    let (scratch, guest, group) =
        (session.scratch(), session.guest(), session.hierarchy.version == Version::V2);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = done.lock().unwrap_or_else(PoisonError::into_inner).is_err();
                    if number >= kills || over {
                        return;
                    }
                    let killed = match number % 4 {
                        0 => below_limit(scratch, guest, number),
                        1 if group => of_group(scratch, guest, number),
                        2 => in_thread(scratch, guest, number),
                        _ => alone(scratch, guest, number),
                    };
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match (killed, &mut *done) {
                        (Ok(tids), Ok(all)) => all.extend(tids),
                        (Err(error), all) => *all = Err(error),
                        (Ok(_), Err(_)) => {}
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A process grows in the cgroup until it is killed. Removes the cgroup.
fn die_in(cgroup: Cgroup, guest: bool) -> Result<u32> {
    let mut hog = start_hog(guest, b"hog-stack")?;
    hog.join(&cgroup.procs())?;
    hog.grow("anon")?;
    hog.killed()?;
    cgroup.remove()?;
    Ok(hog.pid())
}

/// By the cgroup's own limit.
fn alone(scratch: &Cgroup, guest: bool, number: usize) -> Result<Vec<u32>> {
    let cgroup = scratch.child(format!("stack-{number}").as_bytes())?;
    cgroup.limit(SMALL)?;
    Ok(vec![die_in(cgroup, guest)?])
}

/// By the limit of the one above.
fn below_limit(scratch: &Cgroup, guest: bool, number: usize) -> Result<Vec<u32>> {
    let above = scratch.child(format!("stack-{number}").as_bytes())?;
    above.limit(SMALL)?;
    above.allow_children()?;
    let cgroup = above.child(b"leaf")?;
    let pid = die_in(cgroup, guest)?;
    above.remove()?;
    Ok(vec![pid])
}

/// By a thread that is not the first.
fn in_thread(scratch: &Cgroup, guest: bool, number: usize) -> Result<Vec<u32>> {
    let cgroup = scratch.child(format!("stack-{number}").as_bytes())?;
    cgroup.limit(LIMIT)?;
    let mut hog = start_hog(guest, b"hog-leader")?;
    hog.join(&cgroup.procs())?;
    hog.go_on_in_thread(false)?;
    hog.name(b"hog-worker")?;
    hog.grow("anon")?;
    hog.killed()?;
    cgroup.remove()?;
    // The killer names the first.
    Ok(vec![hog.pid()])
}

/// With two others.
fn of_group(scratch: &Cgroup, guest: bool, number: usize) -> Result<Vec<u32>> {
    let cgroup = scratch.child(format!("stack-{number}").as_bytes())?;
    cgroup.limit(LIMIT)?;
    cgroup.write(&cgroup.file("memory.oom.group"), "1")?;
    let mut hogs = Vec::new();
    for _ in 0..3 {
        let mut hog = start_hog(guest, b"hog-group")?;
        hog.join(&cgroup.procs())?;
        hogs.push(hog);
    }
    if let Some(first) = hogs.first_mut() {
        first.grow("anon")?;
    }
    for hog in &mut hogs {
        hog.killed()?;
    }
    let tids = hogs.iter().map(|hog| hog.pid()).collect();
    drop(hogs);
    cgroup.remove()?;
    Ok(tids)
}
