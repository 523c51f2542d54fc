//! What a run counts, and whose `/proc` it reads.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::session::start_hog;

use crate::world::{World, text};

/// `--count` counts kills: not those that die with a victim because they share its memory.
pub fn count_counts_kills(world: &World) -> Result<()> {
    let mut run = world.run(&["--count", "2"], |_| {})?;
    ensure!(text(&run.line()?, "type") == "start", "no start line");
    let cgroup = world.scratch.cgroup().child(b"shared")?;
    cgroup.limit(16 << 20)?;
    let mut hog = start_hog(false, b"hog-shared")?;
    hog.join(&cgroup.procs())?;
    hog.share_memory()?;
    hog.grow("anon")?;
    hog.killed()?;
    // The first kill is one of two: the run goes on, and takes this one for the second.
    let name = world.kill_one()?;
    let lines = run.lines_until(&name)?;
    let of = |kind: &str| lines.iter().filter(|line| text(line, "type") == kind).count();
    ensure!(of("shared_mm_kill") > 0, "no shared_mm_kill: nothing was tested: {lines:?}");
    ensure!(of("oom_kill") == 2, "{} kills were printed, not 2: {lines:?}", of("oom_kill"));
    let mut last = run.line()?;
    while text(&last, "type") != "stop" {
        ensure!(text(&last, "type") != "oom_kill", "a third kill: {last}");
        last = run.line()?;
    }
    ensure!(text(&last, "reason") == "count", "{last}");
    let status = run.child.wait().context("wait for the run")?;
    ensure!(status.success(), "{status}");
    Ok(())
}
