//! Warnings before a kill, at a hundred times the usual pace: a leak has one, and the kill comes when it says; page cache has none, and a
//! program that warms up has at most one.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::tracer::at;
use serde_json::Value;

use crate::history::{FAST, LIMIT, MIB, MINUTE, hog_in, hog_with};
use crate::world::{Run, World, is};

const LEAKS: u32 = 5;
/// One sample, and what a busy machine adds to it.
const SLACK_NS: i128 = 200_000_000;

/// All at once, each in its own cgroup.
pub fn a_limit_that_comes_near_is_told_once() -> Result<()> {
    let world = World::make("near")?;
    let mut run = Run::start(&world.run_unpinned(&FAST))?;
    world.started()?;
    // The first walks look up 512 cgroups each, and there may be thousands of others.
    sleep(10 * MINUTE);
    let child = |name: &str| world.scratch.cgroup().child(name.as_bytes());
    let (cache, warm) = (child("cache")?, child("warm")?);
    let leaks = (0..LEAKS).map(|number| child(&format!("leak-{number}"))).collect::<Result<Vec<_>>>()?;
    let file = world.dir.join("cached");
    std::thread::scope(|scope| -> Result<()> {
        let mut work = vec![scope.spawn(|| page_cache(&cache, &file)), scope.spawn(|| warm_up(&warm))];
        work.extend(leaks.iter().zip(1..).map(|(leak, number)| scope.spawn(move || rise(leak, number))));
        work.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    ensure!(near(&lines, &cache).is_empty(), "page cache is no danger: {:?}", near(&lines, &cache));
    ensure!(near(&lines, &warm).len() <= 1, "told once: {:?}", near(&lines, &warm));
    let mut inside = 0;
    for leak in &leaks {
        let told = near(&lines, leak);
        let [told] = told.as_slice() else { anyhow::bail!("a leak is told once: {told:?}") };
        inside += u32::from(comes_when_told(told, &lines, leak)?);
    }
    ensure!(inside * 10 >= LEAKS * 8, "only {inside} of {LEAKS} kills came when it was told");
    Ok(())
}

/// At its limit for half an hour, with page cache.
fn page_cache(cgroup: &Cgroup, file: &std::path::Path) -> Result<()> {
    let mut hog = hog_with(cgroup, 2 * MIB, 2 * LIMIT)?;
    hog.cache(file, 3 * LIMIT)?;
    sleep(30 * MINUTE);
    drop(hog);
    Ok(())
}

/// Slower and slower up to 92 % of its limit, and no further for half an hour.
fn warm_up(cgroup: &Cgroup) -> Result<()> {
    let mut hog = hog_in(cgroup, 2 * MIB)?;
    let mut left = LIMIT * 92 / 100 - 2 * MIB;
    while left > MIB / 4 {
        hog.hold(left / 12)?;
        left -= left / 12;
        sleep(Duration::from_millis(200));
    }
    sleep(30 * MINUTE);
    drop(hog);
    Ok(())
}

/// Uses more and more, each at its own pace, until it is killed.
fn rise(cgroup: &Cgroup, number: u64) -> Result<()> {
    let mut hog = hog_in(cgroup, 2 * MIB)?;
    sleep(MINUTE);
    while hog.hold(MIB / 8).is_ok() {
        sleep(Duration::from_millis(40 + 15 * number));
    }
    hog.killed()
}

fn of<'a>(lines: &'a [Value], kind: &str, path: &str, cgroup: &Cgroup) -> Vec<&'a Value> {
    let id = cgroup.place().id.to_string();
    let of = |line: &&Value| is(line, "type") == kind && at(line, path).and_then(Value::as_str) == Some(&*id);
    lines.iter().filter(of).collect()
}

fn near<'a>(lines: &'a [Value], cgroup: &Cgroup) -> Vec<&'a Value> {
    of(lines, "limit_near", "cgroup.id", cgroup)
}

/// Whether the kill is not before and not after the times of the warning.
fn comes_when_told(told: &Value, lines: &[Value], cgroup: &Cgroup) -> Result<bool> {
    let kill = of(lines, "oom_kill", "oom.cgroup.id", cgroup);
    let kill = kill.first().context("it was not killed")?;
    let time =
        |line: &Value| -> Result<i128> { Ok(is(line, "time").parse::<jiff::Timestamp>()?.as_nanosecond()) };
    let after = time(kill)? - time(told)?;
    let bound = |key: &str| at(told, key).and_then(Value::as_u64).map(i128::from);
    // A limit that is full already has no times.
    let (Some(min), Some(max)) = (bound("to_limit_ns.min"), bound("to_limit_ns.max")) else {
        return Ok(false);
    };
    Ok(after > 0 && (min - SLACK_NS..=max + SLACK_NS).contains(&after))
}
