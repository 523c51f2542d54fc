//! The metrics file: its counters go on when the tracer is killed, and a file that cannot be written stops nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::world::{Run, World, wait_for};

/// The value of a series in the file; `None` if there is none yet.
fn value(file: &Path, series: &str) -> Option<u64> {
    let page = fs::read_to_string(file).ok()?;
    page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Kills before, between and after two runs that are killed: each is counted once.
pub fn counters_go_on_after_a_sigkill() -> Result<()> {
    const KILLS: &str = "oomtrace_kills_total{scope=\"memcg\"}";
    const NOWHERE: &str = "oomtrace_container_kills_total{container=\"_none\"}";
    let world = World::make("metrics")?;
    let file = world.dir.join("oomtrace.prom");
    let options = ["--metrics-file", file.to_str().context("not UTF-8")?];
    let mut run = Run::start(&world.run(&options))?;
    world.started()?;
    wait_for("the first page", || value(&file, KILLS) == Some(0))?;
    let mode = fs::metadata(&file)?.permissions().mode();
    ensure!(mode & 0o7777 == 0o644, "node_exporter may not read it: mode {mode:o}");
    for (runs, more, kills) in [(2, 3, 3), (3, 4, 7), (4, 5, 12)] {
        world.kills(more)?;
        wait_for("its kills", || value(&file, KILLS) >= Some(kills))?;
        run.kill(libc::SIGKILL)?;
        // The page of this run would do as well.
        fs::remove_file(&file)?;
        run = Run::start(&world.run(&options))?;
        world.started_times(runs)?;
        wait_for("the page of the next run", || value(&file, KILLS) >= Some(kills))?;
        for series in [KILLS, NOWHERE] {
            let count = value(&file, series).context("no such series")?;
            ensure!(world.is_count(count, kills)?, "{series}: {count}, not {kills}");
        }
    }
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let left: Vec<_> = fs::read_dir(&world.dir)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    ensure!(left.len() == 2, "beside the lines and the metrics: {left:?}");
    world.detach()
}

/// Its directory is gone for a while.
pub fn metrics_file_that_fails_stops_nothing() -> Result<()> {
    const KILLS: &str = "oomtrace_kills_total{scope=\"memcg\"}";
    let world = World::make("no-metrics")?;
    let dir = world.dir.join("collected");
    fs::create_dir(&dir)?;
    let file = dir.join("oomtrace.prom");
    let mut run = Run::start(&world.run_unpinned(&["--metrics-file", file.to_str().context("not UTF-8")?]))?;
    world.started()?;
    wait_for("the first page", || value(&file, KILLS) == Some(0))?;
    fs::remove_dir_all(&dir)?;
    let victims = world.kills(3)?;
    wait_for("the lines of three kills", || {
        world.lines().is_ok_and(|lines| victims.is_subset(&world.own_victims_of(&lines)))
    })?;
    fs::create_dir(&dir)?;
    world.kills(1)?;
    wait_for("a page again", || value(&file, KILLS) >= Some(4))?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}
