//! What the memory was: each split is compared with the kernel's own report of the same run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{LIMIT, MIB, Outcome, filled::with_each_lru, host_memory::is_found};
use crate::cgroup::{Cgroup, Version};
use crate::compare::{Expected, ExpectedTrigger};
use crate::counters::wall_clock_ns;
use crate::hog::Hog;
use crate::session::Session;
use crate::tracer::Line;

/// A file whose pages are page cache. It is removed at the end.
struct CacheFile(PathBuf);

impl CacheFile {
    /// A guest has no disk: of its memory file systems only ramfs has page cache, and tmpfs has shared memory.
    fn new(session: &Session) -> Self {
        let dir = if session.guest() { PathBuf::from("/var/cache") } else { std::env::temp_dir() };
        Self(dir.join(format!("oomtrace-test-{}-cache", std::process::id())))
    }
}

impl Drop for CacheFile {
    fn drop(&mut self) {
        // If the hog could not write it, it is not there.
        let _ignored = std::fs::remove_file(&self.0);
    }
}

/// What others than the victim hold in a mix, and its threads.
const SHARED: u64 = 12 * MIB;
const THREADS: u64 = 500;
const CACHE: u64 = 8 * MIB;

/// A mix of all kinds, with the limit on the parent.
pub(super) fn mix(session: &mut Session) -> Result<Outcome> {
    with_each_lru(session, kill_a_mix)
}

fn kill_a_mix(session: &mut Session, name: &[u8]) -> Result<()> {
    const SENT: u64 = 2 * MIB;
    const BIG: u64 = 96 * MIB;
    session.wait_for_report_room()?;
    let parent = session.cgroup(name)?;
    parent.limit(BIG)?;
    parent.allow_children()?;
    let cgroup = parent.child(b"child")?;
    let mut other = session.hog_in(&cgroup, b"hog-other")?;
    let sent: u64 =
        other.ask(&format!("sockets {SENT}")).ok().and_then(|sent| sent.parse().ok()).unwrap_or(0);
    other.ask(&format!("shmem {SHARED}"))?;
    let mut hog = session.hog_in(&cgroup, b"hog-mix")?;
    hog.ask("adj 1000")?;
    // Its threads must not end while it is in the OOM killer.
    hog.ask("one-processor")?;
    let file = CacheFile::new(session);
    hog.cache(&file.0, CACHE)?;
    hog.ask(&format!("threads {THREADS}"))?;
    hog.ask("descriptors 5000")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    drop(file);
    let mut expected = session.killed_by_limit(facts, &cgroup, (&parent, BIG), released)?;
    many(&mut expected);
    let (incident, reported) = incident_of(session, expected)?;
    if !reported && !session.guest() {
        // Others on this host took the reports.
        return Ok(());
    }
    // Memory on cgroup v1 does not have sockets.
    let sockets = if session.hierarchy.version == Version::V2 { sent / 2 } else { 0 };
    // A disk's page cache is reclaimed first.
    let cache = if session.guest() { CACHE } else { 0 };
    known_mix(&incident, sockets, cache, BIG)
}

/// Of each kind there is what was taken of it.
fn known_mix(incident: &Line, sockets: u64, cache: u64, limit: u64) -> Result<()> {
    // Each of two processors holds back up to 32 pages of a counter.
    const BEHIND: u64 = 2 * 32 * 4096;
    let least = [
        ("shmem_bytes", Some(SHARED - BEHIND)),
        ("file_bytes", Some(SHARED + cache - BEHIND)),
        ("anon_bytes", Some(8 * MIB)),
        ("kernel_bytes", Some(THREADS * 8192)),
        ("kernel_stack_bytes", Some(THREADS * 8192)),
        ("slab_unreclaimable_bytes", Some(MIB)),
        ("sock_bytes", Some(sockets)),
    ];
    for (key, least) in least {
        let found = incident.number(&format!("cgroup.memory.{key}"));
        let unknown = ["missing.cgroup.memory", &format!("missing.cgroup.memory.{key}")]
            .iter()
            .any(|key| incident.get(key).is_some());
        ensure!(
            unknown || found >= least,
            "field {key}: at least {least:?}, oomtrace {found:?}: {}",
            incident.text
        );
    }
    ensure!(incident.number("process_table.count") == Some(2), "two processes: {}", incident.text);
    let ids: Vec<&str> = incident
        .get("findings")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|finding| finding.get("id")?.as_str())
        .collect();
    ensure!(!ids.contains(&"shmem_large") && !ids.contains(&"memory_stays"), "{ids:?}: {}", incident.text);
    let left = incident.number("released.usage_bytes");
    let is_still_there = incident.get("missing.released.usage_bytes") == Some(&"still_there".into());
    ensure!(
        is_still_there || left.is_some_and(|left| (SHARED..limit / 2).contains(&left)),
        "what is left is the other's shared memory: {}",
        incident.text
    );
    Ok(())
}

/// Checks this one kill. Returns its incident, and whether the kernel's report of it is in the incident.
fn incident_of(session: &mut Session, expected: Expected) -> Result<(Line, bool)> {
    let kill = session.check(&[expected])?.pop().context("no line")?;
    let counts = session.check_incidents()?;
    Ok((session.incident_of(&kill)?, counts.reported > 0))
}

/// Open files hold more of the limit than a quarter: the kernel's memory stands out. In all other scenarios it does not.
pub(super) fn kernel(session: &mut Session) -> Result<Outcome> {
    const BIG: u64 = 48 * MIB;
    let cgroup = session.cgroup(b"kernel")?;
    cgroup.limit(BIG)?;
    let mut hog = session.hog_in(&cgroup, b"hog-files")?;
    hog.ask("descriptors 15000")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, BIG), released)?;
    let (incident, reported) = incident_of(session, expected)?;
    // Before 5.18 the kernel does not say how much it is on cgroup v2.
    if reported && incident.number("cgroup.memory.kernel_bytes").is_some() {
        ensure!(is_found(&incident, "kernel_large"), "15,000 open files: {}", incident.text);
    }
    Ok(Outcome::Passed)
}

/// Page cache that cannot be reclaimed, because its pages are locked. Of no other scenario is there so much.
pub(super) fn cache(session: &mut Session) -> Result<Outcome> {
    const KEPT: u64 = 6 * MIB;
    let cgroup = session.cgroup(b"cache")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-cache")?;
    let file = CacheFile::new(session);
    hog.cache(&file.0, KEPT)?;
    hog.lock_file(&file.0)?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    let (incident, reported) = incident_of(session, expected)?;
    if reported {
        ensure!(is_found(&incident, "cache_present"), "6 of 16 MiB are page cache: {}", incident.text);
        ensure!(!is_found(&incident, "shmem_large"), "it is a file's: {}", incident.text);
    }
    Ok(Outcome::Passed)
}

/// The smaller one dies because of its `oom_score_adj`, and shared memory of the larger one stays.
pub(super) fn stands_out(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"stands-out")?;
    cgroup.limit(2 * LIMIT)?;
    let mut larger = session.hog_in(&cgroup, b"hog-larger")?;
    larger.ask(&format!("shmem {}", LIMIT + LIMIT / 4))?;
    // To lower it needs a privilege that a host may not give.
    let protected = session.guest();
    if protected {
        larger.ask("adj -900")?;
    }
    let mut victim = session.hog_in(&cgroup, b"hog-smaller")?;
    victim.ask("adj 1000")?;
    let (facts, released) = (victim.facts()?, wall_clock_ns());
    victim.grow("anon")?;
    victim.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, 2 * LIMIT), released)?;
    let (incident, reported) = incident_of(session, expected)?;
    let has = |id: &str| is_found(&incident, id);
    ensure!(has("memory_stays"), "20 of 32 MiB stay: {}", incident.text);
    if reported {
        ensure!(has("bystander") && has("shmem_large"), "the larger one, and its memory: {}", incident.text);
        ensure!(
            has("protected_largest") == protected,
            "the largest has adj -900: {protected}: {}",
            incident.text
        );
        ensure!(!has("anon_fills_limit"), "it is shared memory: {}", incident.text);
    }
    Ok(Outcome::Passed)
}

/// Another process allocates and the sleeping one dies on another processor: when the cgroup's file is read, it
/// has released memory already. What was read of it must not be told.
pub(super) fn triggered_by_another(session: &mut Session) -> Result<Outcome> {
    let kills = if session.guest() { 20 } else { 100 };
    let mut expected = Vec::new();
    for number in 0..kills {
        let cgroup = session.cgroup(format!("another-{number}").as_bytes())?;
        cgroup.limit(2 * LIMIT)?;
        let mut victim = session.hog_in(&cgroup, format!("hog-{number}").as_bytes())?;
        let mut other = session.hog_in(&cgroup, b"hog-another")?;
        victim.ask("adj 1000")?;
        victim.hold(3 * LIMIT / 2)?;
        let (facts, trigger, released) = (victim.facts()?, other.facts()?, wall_clock_ns());
        let survived = other.hold(LIMIT);
        victim.killed()?;
        let mut one = session.killed_by_limit(facts, &cgroup, (&cgroup, 2 * LIMIT), released)?;
        one.trigger = ExpectedTrigger::Other { facts: trigger.clone(), cgroup: cgroup.place().clone() };
        many(&mut one);
        expected.push(one);
        if survived.is_err() {
            // As in `sibling_triggers`: the kernel may choose again before the victim's pages are given back.
            other.killed()?;
            let mut next = session.killed_by_limit(trigger, &cgroup, (&cgroup, 2 * LIMIT), released)?;
            many(&mut next);
            expected.push(next);
        }
    }
    true_or_none(session, &expected, 2 * LIMIT)
}

/// Kills at once: the kernel reports ten of them.
pub(super) fn at_once(session: &mut Session) -> Result<Outcome> {
    // All together must not fill a guest.
    let kills = if session.guest() { 12 } else { 100 };
    let mut hogs = Vec::new();
    for number in 0..kills {
        let cgroup = session.cgroup(format!("at-once-{number}").as_bytes())?;
        cgroup.limit(LIMIT / 2)?;
        let mut hog = session.hog_in(&cgroup, format!("hog-{number}").as_bytes())?;
        hog.hold(2 * MIB)?;
        hogs.push((hog, cgroup));
    }
    let facts = hogs.iter().map(|(hog, _)| hog.facts()).collect::<Result<Vec<_>>>()?;
    let released = wall_clock_ns();
    hogs.iter_mut().try_for_each(|(hog, _)| hog.grow("anon"))?;
    let mut expected = Vec::new();
    for ((hog, cgroup), facts) in hogs.iter_mut().zip(facts) {
        hog.killed()?;
        let mut one = session.killed_by_limit(facts, cgroup, (cgroup, LIMIT / 2), released)?;
        many(&mut one);
        expected.push(one);
    }
    true_or_none(session, &expected, LIMIT / 2)
}

/// Kills so far apart that the kernel reports each.
pub(super) fn apart(session: &mut Session) -> Result<Outcome> {
    const KILLS: usize = 100;
    let mut expected = Vec::new();
    for number in 0..KILLS {
        let cgroup = session.cgroup(format!("apart-{number}").as_bytes())?;
        let mut hog = grows(session, &cgroup, number)?;
        let (facts, released) = (hog.facts()?, wall_clock_ns());
        hog.grow(if number % 2 == 0 { "anon" } else { "shmem" })?;
        hog.killed()?;
        expected.push(session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?);
        std::thread::sleep(Duration::from_millis(600));
    }
    true_or_none(session, &expected, LIMIT)
}

fn grows(session: &Session, cgroup: &Cgroup, number: usize) -> Result<Hog> {
    cgroup.limit(LIMIT)?;
    session.hog_in(cgroup, format!("hog-{number}").as_bytes())
}

/// Many processes may ask for the killer for one kill.
fn many(expected: &mut Expected) {
    if let Some(fired) = &mut expected.fired {
        fired.events_of_this_kill_alone = false;
        fired.another_dies = true;
    }
}

/// Each split is the kernel's, or adds up to what had run out, or is absent.
fn true_or_none(session: &mut Session, expected: &[Expected], limit: u64) -> Result<Outcome> {
    let kills = session.check(expected)?;
    let counts = session.check_incidents()?;
    for kill in &kills {
        let incident = session.incident_of(kill)?;
        if incident.get("cgroup.memory.evidence") != Some(&"cgroupfs".into()) {
            continue;
        }
        let part = |key: &str| incident.number(&format!("cgroup.memory.{key}_bytes")).unwrap_or(0);
        let sum = part("anon") + part("file") + part("kernel");
        let usage = incident.number("cgroup.usage_bytes").unwrap_or(limit);
        ensure!(sum >= usage * 85 / 100, "{sum} of {usage} bytes are not what it was: {}", incident.text);
    }
    writeln!(std::io::stderr(), "{} kills: {counts:?}", kills.len())?;
    Ok(Outcome::Passed)
}
