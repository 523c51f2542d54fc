//! How memory went before a kill, at a hundred times the usual pace (`--history-interval 100ms`): the cause of each kill is
//! known. Real kills in their own cgroups.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::hog::Hog;
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer::at;
use serde_json::Value;

use crate::world::{Run, World, is, wait_for};

pub const MIB: u64 = 1 << 20;
pub const LIMIT: u64 = 32 * MIB;
pub const FAST: [&str; 4] = ["--history-interval", "100ms", "--signals", "off"];
/// A minute, at this pace.
pub const MINUTE: Duration = Duration::from_millis(600);

/// A hog that uses a part of its limit.
pub fn hog_in(cgroup: &Cgroup, bytes: u64) -> Result<Hog> {
    hog_with(cgroup, bytes, LIMIT)
}

pub fn hog_with(cgroup: &Cgroup, bytes: u64, limit: u64) -> Result<Hog> {
    cgroup.limit(limit)?;
    let mut hog = start_hog(false, b"hog")?;
    hog.join(&cgroup.procs())?;
    hog.hold(bytes)?;
    Ok(hog)
}

/// Uses more and more until it is killed.
fn rise(mut hog: Hog) -> Result<()> {
    sleep(2 * MINUTE);
    while hog.hold(MIB / 8).is_ok() {
        sleep(Duration::from_millis(60));
    }
    hog.killed()
}

/// Keeps a little of what it makes, and frees the rest each time there is much of it.
fn sawtooth(cgroup: &Cgroup) -> Result<()> {
    let mut kept = hog_in(cgroup, 2 * MIB)?;
    sleep(2 * MINUTE);
    'alive: loop {
        let mut made = start_hog(false, b"hog-made")?;
        made.join(&cgroup.procs())?;
        for _ in 0..6 {
            // The other one is larger: if the limit is reached here, it is killed.
            if made.hold(MIB).is_err() || kept.hold(MIB / 8).is_err() {
                break 'alive;
            }
            sleep(Duration::from_millis(60));
        }
    }
    kept.killed()
}

/// Needs more than its limit before it does anything.
fn start_too_large(cgroup: &Cgroup) -> Result<()> {
    let mut hog = hog_in(cgroup, MIB)?;
    while hog.hold(4 * MIB).is_ok() {
        sleep(Duration::from_millis(10));
    }
    hog.killed()
}

/// Fills the rest.
fn end(hog: &mut Hog) -> Result<()> {
    hog.grow("anon")?;
    hog.killed()
}

/// The incidents of a cgroup.
fn incidents(world: &World, cgroup: &Cgroup) -> Vec<Value> {
    let id = cgroup.place().id.to_string();
    let of = |line: &Value| {
        is(line, "type") == "incident" && at(line, "cgroup.id").and_then(Value::as_str) == Some(&*id)
    };
    world.lines().unwrap_or_default().into_iter().filter(of).collect()
}

fn incident(world: &World, cgroup: &Cgroup) -> Result<Value> {
    wait_for("its incident", || !incidents(world, cgroup).is_empty())?;
    incidents(world, cgroup).pop().context("no incident")
}

fn has_shape(incident: &Value, shapes: &[&str]) -> Result<()> {
    let shape = at(incident, "before.shape").and_then(Value::as_str).unwrap_or_default();
    ensure!(shapes.contains(&shape), "{shapes:?} expected: {incident}");
    let points = at(incident, "before.points").and_then(Value::as_array).context("no points")?;
    ensure!((2..=24).contains(&points.len()), "{} points: {incident}", points.len());
    Ok(())
}

/// Six at once: each in its own cgroup, and each with its word.
pub fn each_cause_has_its_word() -> Result<()> {
    let world = World::make("history")?;
    let mut run = Run::start(&world.run_unpinned(&FAST))?;
    world.started()?;
    // The first walks look up 512 cgroups each, and there may be thousands of others.
    sleep(10 * MINUTE);
    let child = |name: &[u8]| world.scratch.cgroup().child(name);
    let (leak, burst, steps, cache) = (child(b"leak")?, child(b"burst")?, child(b"steps")?, child(b"cache")?);
    let (saw, start) = (child(b"saw")?, child(b"start")?);
    let ten_minutes = 10 * MINUTE;
    std::thread::scope(|scope| -> Result<()> {
        let work = [
            scope.spawn(|| rise(hog_in(&leak, 2 * MIB)?)),
            scope.spawn(|| sawtooth(&saw)),
            scope.spawn(|| start_too_large(&start)),
            scope.spawn(|| -> Result<()> {
                let mut hog = hog_in(&burst, 4 * MIB)?;
                sleep(ten_minutes);
                end(&mut hog)
            }),
            scope.spawn(|| -> Result<()> {
                let mut hog = hog_in(&steps, 3 * MIB)?;
                for _ in 0..3 {
                    sleep(4 * MINUTE);
                    hog.hold(7 * MIB)?;
                }
                sleep(4 * MINUTE);
                end(&mut hog)
            }),
            scope.spawn(|| -> Result<()> {
                // The kernel reclaims a MiB at a time, which must be little of the limit.
                let mut hog = hog_with(&cache, 2 * MIB, 4 * LIMIT)?;
                sleep(2 * MINUTE);
                let file = world.dir.join("cached");
                hog.cache(&file, 8 * LIMIT)?;
                sleep(ten_minutes);
                end(&mut hog)
            }),
        ];
        work.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    has_shape(&incident(&world, &leak)?, &["growth"])?;
    // Floors rise where a collector frees memory; the growth of what it frees may hide that.
    has_shape(&incident(&world, &saw)?, &["growth", "irregular"])?;
    let started = incident(&world, &start)?;
    ensure!(at(&started, "before.shape") == Some(&"short".into()), "it had just begun: {started}");
    has_shape(&incident(&world, &burst)?, &["burst"])?;
    has_shape(&incident(&world, &steps)?, &["steps"])?;
    has_shape(&incident(&world, &cache)?, &["at_limit"])?;
    let lines = world.lines()?;
    let near = |cgroup: &Cgroup| {
        let id = cgroup.place().id.to_string();
        let of = |line: &&Value| {
            is(line, "type") == "limit_near" && at(line, "cgroup.id").and_then(Value::as_str) == Some(&*id)
        };
        lines.iter().filter(of).count()
    };
    ensure!(near(&cache) == 0, "page cache is no danger");
    ensure!(near(&burst) == 0, "a burst cannot be foreseen");
    ensure!(near(&start) == 0, "a start cannot be foreseen");
    ensure!(near(&saw) <= 1 && near(&leak) <= 1 && near(&steps) <= 1, "told once");
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}

/// A service that is killed as soon as it begins, five times: each kill is counted under one name.
pub fn a_restart_loop_has_one_key() -> Result<()> {
    let world = World::make("loop")?;
    let mut run = Run::start(&world.run_unpinned(&FAST))?;
    world.started()?;
    // The first walks look up 512 cgroups each, and there may be thousands of others.
    sleep(10 * MINUTE);
    for number in 1..=5 {
        let cgroup = world.scratch.cgroup().child(b"loop")?;
        let mut hog = hog_in(&cgroup, MIB)?;
        end(&mut hog)?;
        let incident = incident(&world, &cgroup)?;
        ensure!(at(&incident, "before.shape") == Some(&"short".into()), "it had just begun: {incident}");
        let path = String::from_utf8_lossy(&cgroup.place().path).into_owned();
        let key = at(&incident, "recurrence.key").and_then(Value::as_str);
        ensure!(key == Some(&*format!("cgroup:{path}")), "{incident}");
        ensure!(at(&incident, "recurrence.kills") == Some(&number.into()), "kill {number}: {incident}");
        ensure!(at(&incident, "recurrence.lifetime_ns.max").is_some(), "{incident}");
        cgroup.remove()?;
    }
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}

/// The tracer is killed in the middle: the next run knows what was before, and how often.
pub fn history_goes_on_after_a_sigkill() -> Result<()> {
    let world = World::make("history-pin")?;
    let mut run = Run::start(&world.run(&FAST))?;
    world.started()?;
    sleep(MINUTE);
    let cgroup = world.scratch.cgroup().child(b"goes-on")?;
    let mut hog = hog_in(&cgroup, 4 * MIB)?;
    sleep(4 * MINUTE);
    let mut first = start_hog(false, b"hog-first")?;
    first.join(&cgroup.procs())?;
    first.ask("adj 1000")?;
    end(&mut first)?;
    incident(&world, &cgroup)?;
    sleep(10 * MINUTE);
    run.kill(libc::SIGKILL)?;
    let mut run = Run::start(&world.run(&FAST))?;
    world.started_times(2)?;
    sleep(2 * MINUTE);
    end(&mut hog)?;
    wait_for("its second incident", || incidents(&world, &cgroup).len() == 2)?;
    let incident = incidents(&world, &cgroup).pop().context("no incident")?;
    let age = at(&incident, "before.age_ns").and_then(Value::as_u64).unwrap_or(0);
    let least = u64::try_from((14 * MINUTE).as_nanos())?;
    ensure!(age >= least, "what the first run saw is gone: {incident}");
    has_shape(&incident, &["burst"])?;
    ensure!(at(&incident, "recurrence.kills") == Some(&2.into()), "{incident}");
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    world.detach()
}
