//! Many containers at the same time.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use oomtrace_tests::cgroup::{Cgroup, Scratch};
use oomtrace_tests::containers::{EAT, IMAGE, expect};
use oomtrace_tests::process::status_kib;
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer::{self, Hook, Tracer};
use serde_json::json;

use crate::Case;
use crate::docker::told;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[("docker_storm", storm), ("thousand_short_lives", thousand_short_lives)];

const CONTAINERS: usize = 60;
const AT_ONCE: usize = 8;

/// 60 containers, 8 at a time, each above its 16 MB: all must be named. What Docker shows is only printed.
fn storm(world: &mut World) -> Result<()> {
    let next = AtomicUsize::new(0);
    let docker = &world.docker;
    let one_after_another = || -> Result<Vec<(String, String)>> {
        let mut started = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= CONTAINERS {
                return Ok(started);
            }
            let name = format!("storm-{number}");
            let id = docker.run(&name, &["-m", "16m"], &format!("exec {EAT}"))?;
            docker.cli(&["wait", &id])?;
            started.push((name, id));
        }
    };
    let containers = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one_after_another)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    let mut shown = 0;
    for (name, id) in &containers {
        let line = world.watch.kill_in(id)?;
        expect(&line, &[("container", told(id, name))])?;
        let state = world.docker.state(id)?;
        shown += usize::from(state.get("OOMKilled") == Some(&json!(true)));
        let verdict = world.watch.verdict_of(&line)?;
        expect(&verdict, &[("missed", json!(state.get("OOMKilled") != Some(&json!(true))))])?;
    }
    ensure!(containers.len() == CONTAINERS, "only {} containers ran", containers.len());
    let version = world.docker.cli(&["version", "-f", "{{.Server.Version}}"])?;
    let mut stderr = std::io::stderr().lock();
    let _ignored = writeln!(
        stderr,
        "| {CONTAINERS} containers, {AT_ONCE} at a time, 16 MB each | named by oomtrace: {CONTAINERS} | shown by docker inspect ({version}): {shown} |"
    );
    let ids: Vec<&str> = containers.iter().map(|(_, id)| id.as_str()).collect();
    world.docker.remove(&ids)
}

const LIVES: usize = 1000;
/// One of this many is killed.
const KILL_EVERY: usize = 50;
/// How much a thousand more names may add to the tracer's memory, removed ones included. They need half a
/// megabyte of heap.
const GROWTH_MAX_KIB: u64 = 8 << 10;

/// Cgroups that are made and removed as fast as possible, each with Docker's files, which are removed with
/// it.
fn thousand_short_lives(world: &mut World) -> Result<()> {
    let root = world.dir().join("short-lives");
    let option = format!("docker={}", root.display());
    let mut tracer = Tracer::start_with(&tracer::binary()?, Hook::Auto, &["--runtime-root", &option])?;
    let before_kib = status_kib(tracer.pid(), "VmRSS")?;
    let scratch = Scratch::make(&world.hierarchy)?;
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    let lives = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= LIVES {
                return Ok(());
            }
            life(&root, scratch.cgroup(), number)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(lives)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let elapsed = began.elapsed();
    for number in (0..LIVES).step_by(KILL_EVERY) {
        let id = id_of(number);
        let line = tracer.wait_for(&format!("a line for the kill in {id}"), |lines| {
            let is_it = |line: &&tracer::Line| line.get("container.id") == Some(&json!(id));
            lines.iter().find(is_it).cloned()
        })?;
        expect(&line, &[("container", told(&id, &format!("life-{number}")))])?;
    }
    let grown_kib = status_kib(tracer.pid(), "VmRSS")?.saturating_sub(before_kib);
    ensure!(grown_kib < GROWTH_MAX_KIB, "the tracer grew by {grown_kib} KiB");
    // This fails if a line reports a loss.
    tracer.stop()?;
    let mut stderr = std::io::stderr().lock();
    let _ignored = writeln!(
        stderr,
        "| {LIVES} cgroups made and removed in {:.1} s | {} kills, all named | the tracer grew by {grown_kib} KiB |",
        elapsed.as_secs_f64(),
        LIVES / KILL_EVERY
    );
    Ok(())
}

fn id_of(number: usize) -> String {
    format!("{number:064x}")
}

/// The cgroup and the files of one container, from start to end.
fn life(root: &Path, parent: &Cgroup, number: usize) -> Result<()> {
    let (id, dir) = (id_of(number), root.join("containers").join(id_of(number)));
    std::fs::create_dir_all(&dir)?;
    let config = json!({"Name": format!("/life-{number}"), "RestartCount": 0, "Config": {"Image": IMAGE}});
    std::fs::write(dir.join("config.v2.json"), config.to_string())?;
    let above = String::from_utf8_lossy(&parent.place().path).into_owned();
    std::fs::write(dir.join("hostconfig.json"), json!({"CgroupParent": above}).to_string())?;
    let cgroup = parent.child(id.as_bytes())?;
    if number.is_multiple_of(KILL_EVERY) {
        cgroup.limit(8 << 20)?;
        let mut hog = start_hog(false, b"short")?;
        hog.join(&cgroup.procs())?;
        hog.grow("anon")?;
        hog.killed()?;
    }
    cgroup.remove()?;
    std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}
