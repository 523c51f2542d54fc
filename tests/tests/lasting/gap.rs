//! Kills that no program saw. The kernel's own counter shows them.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use oomtrace_tests::cgroup::{Cgroup, Hierarchy, Version};
use oomtrace_tests::session::start_hog;
use serde_json::Value;

use crate::world::{Run, World, is, kill_in, next_number};

/// The hook is removed. The kernel's own counter shows the kills, and the cgroup's counter shows where.
pub fn detached_hook_is_a_gap() -> Result<()> {
    let world = World::make("gap")?;
    let mut run = Run::start(&world.run(&[]))?;
    world.started()?;
    world.kills(2)?;
    let cgroup = world.scratch.cgroup().child(b"gap")?;
    kill_in(&cgroup)?;
    let gaps = three_unseen(&world, &mut run, &cgroup)?;
    // On v2 the counter of the topmost cgroup is used, which has all kills of this test.
    let (of, told) = match Hierarchy::find()?.version {
        Version::V1 => (&cgroup, 1),
        Version::V2 => (world.scratch.cgroup(), 3),
    };
    let path = String::from_utf8_lossy(&of.place().path).into_owned();
    let named = gaps.iter().filter_map(|gap| gap.get("cgroups")?.as_array()).flatten();
    let named: Vec<_> = named.filter(|cgroup| is(cgroup, "path") == path).collect();
    let [named] = named.as_slice() else { bail!("{path} is not named once: {gaps:?}") };
    let counts = (number(named, "kernel_kills"), number(named, "reported"));
    ensure!(counts == (told + 3, told), "{named}");
    world.detach()
}

/// A victim that reaches its own time limit while the OOM killer works gets a second SIGKILL of the kernel.
/// That is no second pass of the OOM killer, and it must not hide a kill that no program saw.
pub fn own_limit_hides_no_gap() -> Result<()> {
    let world = World::make("own-limit")?;
    let mut run = Run::start(&world.run(&[]))?;
    world.started()?;
    let mut victims = 0;
    for _ in 0..24 {
        let cgroup = world.scratch.cgroup().child(format!("own-limit-{}", next_number()).as_bytes())?;
        cgroup.limit(64 << 20)?;
        let mut hog = start_hog(false, b"hog")?;
        hog.join(&cgroup.procs())?;
        hog.tell("own-limit 1073741824")?;
        hog.killed()?;
        victims += cgroup.events()?.get("oom_kill").copied().unwrap_or(0);
        cgroup.remove()?;
        if victims == 6 {
            break;
        }
    }
    ensure!(victims > 0, "each hog was killed by its own limit before it had run out of memory");
    let cgroup = world.scratch.cgroup().child(b"gap")?;
    three_unseen(&world, &mut run, &cgroup)?;
    let seen = world.own_victims_of(&world.lines()?).len() as u64;
    ensure!(seen == victims, "{victims} OOM kills, {seen} lines");
    world.detach()
}

/// Makes three kills after the hook was removed, then ends the run. Its `gap` lines must report them.
fn three_unseen(world: &World, run: &mut Run, cgroup: &Cgroup) -> Result<Vec<Value>> {
    fs::remove_file(world.generation()?.join("link-raw_tracepoint-mark_victim"))?;
    // The kernel removes the link a little later.
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        kill_in(cgroup)?;
    }
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let gaps: Vec<_> = world.lines()?.into_iter().filter(|line| is(line, "type") == "gap").collect();
    let missing: u64 = gaps.iter().map(|gap| number(gap, "kernel_kills") - number(gap, "reported")).sum();
    ensure!(world.is_count(missing, 3)?, "3 kills went unseen, the gaps say {missing}: {gaps:?}");
    Ok(gaps)
}

fn number(line: &Value, key: &str) -> u64 {
    line.get(key).and_then(Value::as_u64).unwrap_or(0)
}
