//! Many kills at the same time. Each cgroup is removed at once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};

use super::{MIB, Outcome};
use crate::cgroup::{Cgroup, Place};
use crate::compare::FiredLimit;
use crate::counters::wall_clock_ns;
use crate::process::ProcessFacts;
use crate::session::{Session, fired_limit, start_hog};

const AT_A_TIME: usize = 16;
const SMALL: u64 = 4 * MIB;

pub(super) fn two_hundred(session: &mut Session) -> Result<Outcome> {
    burst(session, 200)
}

pub(super) fn three_hundred(session: &mut Session) -> Result<Outcome> {
    burst(session, 300)
}

struct Kill {
    victim: ProcessFacts,
    cgroup: Place,
    fired: FiredLimit,
    released_ns: i128,
}

fn burst(session: &mut Session, kills: usize) -> Result<Outcome> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Result<Kill>>> = Mutex::default();
    let (scratch, guest) = (session.scratch(), session.guest());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= kills {
                        return;
                    }
                    let kill = one(scratch, guest, number);
                    let failed = kill.is_err();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(kill);
                    if failed {
                        return;
                    }
                }
            });
        }
    });
    let mut expected = Vec::new();
    for kill in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let kill = kill?;
        let mut one = session.killed_by_host(kill.victim, &kill.cgroup, kill.released_ns);
        one.scope = "memcg";
        // If the OOM killer's lock is contended, a cgroup may ask for it more than once for its one kill.
        one.fired = Some(FiredLimit { events_of_this_kill_alone: false, ..kill.fired });
        expected.push(one);
    }
    ensure!(expected.len() == kills, "{} kills were made, not {kills}", expected.len());
    session.check(&expected)?;
    Ok(Outcome::Passed)
}

fn one(scratch: &Cgroup, guest: bool, number: usize) -> Result<Kill> {
    let cgroup = scratch.child(format!("burst-{number}").as_bytes())?;
    cgroup.limit(SMALL)?;
    let mut hog = start_hog(guest, format!("hog-{number}").as_bytes())?;
    hog.join(&cgroup.procs())?;
    let (victim, released_ns) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let kill =
        Kill { victim, cgroup: cgroup.place().clone(), fired: fired_limit(&cgroup, SMALL)?, released_ns };
    cgroup.remove()?;
    Ok(kill)
}
