//! An output that does not take all lines.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oomtrace_tests::patience::until;
use serde_json::Value;

use crate::world::{Dir, World, all_told, comm, file_tells, lines_of, path, started, text};

/// How long an output stays blocked.
const FAULT: Duration = Duration::from_secs(3);
/// How long a run may take to end: two seconds, and one more for a busy machine.
const END: Duration = Duration::from_secs(3);

/// The disk is full for three seconds: no line is torn or lost.
pub fn full_disk(world: &World) -> Result<()> {
    let dir = Dir::make()?;
    dir.mount_tmpfs("size=2m")?;
    let file = dir.0.join("kills");
    let run = world.run(&["--file", path(&file)?], |_| {})?;
    started(&file)?;
    let mut names = world.kill(5)?;
    file_tells(&file, names.last().context("a kill")?)?;

    let filler = dir.0.join("filler");
    ensure!(fs::write(&filler, vec![0; 4 << 20]).is_err(), "the disk is not full");
    let began = Instant::now();
    while began.elapsed() < FAULT {
        names.extend(world.kill(1)?);
        sleep(Duration::from_millis(20));
        // The file has only complete lines at any time.
        lines_of(&fs::read_to_string(&file)?)?;
    }
    ensure!(fs::metadata(&filler)?.size() > 0, "nothing filled the disk");
    let told = lines_of(&fs::read_to_string(&file)?)?.iter().filter(|line| comm(line).is_some()).count();
    ensure!(told < names.len(), "the disk was never full");

    fs::remove_file(&filler)?;
    names.extend(world.kill(2)?);
    file_tells(&file, names.last().context("a kill")?)?;
    let (_, said) = run.stop()?;
    let lines = lines_of(&fs::read_to_string(&file)?)?;
    all_told(&lines, &names)?;
    ensure!(said.contains("No space left") && said.contains("takes lines again"), "stderr: {said}");
    ensure!(lines.last().is_some_and(|line| text(line, "type") == "stop"), "no stop");
    Ok(())
}

/// The pipe is not read for three seconds. Afterwards all kills are reported, in order.
pub fn blocked_pipe(world: &World) -> Result<()> {
    let mut run = world.run(&[], small_pipe)?;
    let first = run.line()?;
    ensure!(text(&first, "type") == "start", "{first}");
    let began = Instant::now();
    let mut names = Vec::new();
    while began.elapsed() < FAULT || names.len() < 30 {
        names.extend(world.kill(1)?);
        sleep(Duration::from_millis(20));
    }
    let mut lines = run.lines_until(names.last().context("a kill")?)?;
    let (rest, said) = run.stop()?;
    lines.extend(rest);
    all_told(&lines, &names)?;
    ensure!(said.contains("does not keep up") && said.contains("takes lines again"), "stderr: {said}");
    Ok(())
}

/// The same with a ring that is too small: reported and lost kills add up to all kills.
pub fn blocked_pipe_and_a_small_ring(world: &World) -> Result<()> {
    let mut run = world.run(&["--ring-size", "8KiB"], small_pipe)?;
    run.line()?;
    let mut names = world.kill(60)?;
    // Reading makes room. The next kill shows that everything continues.
    let mut lines = Vec::new();
    while lines.iter().all(|line| text(line, "type") != "lost") {
        lines.push(run.line()?);
    }
    names.extend(world.kill(1)?);
    lines.extend(run.lines_until(names.last().context("a kill")?)?);
    let (rest, _) = run.stop()?;
    lines.extend(rest);
    let told: Vec<u64> = lines.iter().filter_map(|line| line.get("seq")?.as_u64()).collect();
    ensure!(told.is_sorted(), "out of order: {told:?}");
    let count = |line: &Value| line.get("count").and_then(Value::as_u64).unwrap_or_default();
    let lost: u64 = lines.iter().filter(|line| text(line, "type") == "lost").map(count).sum();
    let reasons: BTreeSet<&str> =
        lines.iter().filter(|line| text(line, "type") == "lost").map(|line| text(line, "reason")).collect();
    ensure!(reasons == BTreeSet::from(["ring_full"]), "reasons: {reasons:?}");
    // The last number is the number of events, including those of others.
    let last = told.last().copied().unwrap_or_default();
    ensure!(told.len() as u64 + lost == last, "{} reported, {lost} lost, {last} events", told.len());
    ensure!(last >= names.len() as u64, "{last} events, {} kills", names.len());
    Ok(())
}

/// A run that is asked to end must end soon, with or without a reader, and report what is left.
pub fn ended_while_blocked(world: &World) -> Result<()> {
    let mut run = world.run(&[], small_pipe)?;
    run.line()?;
    world.kill(20)?;
    let began = Instant::now();
    run.signal(libc::SIGTERM)?;
    let status = until("the end", || Ok(run.child.try_wait()?))?;
    let took = began.elapsed();
    ensure!(took < END, "SIGTERM took {took:?}");
    let mut said = String::new();
    if let Some(mut stderr) = run.child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    ensure!(status.code() == Some(1) && said.contains("did not take the last"), "{status}: {said}");
    let mut rest = String::new();
    if let Some(mut stdout) = run.stdout.take() {
        stdout.read_to_string(&mut rest)?;
    }
    lines_of(&rest).map(drop)
}

/// `oomtrace run | head -1`: the reader is gone, so the run ends, without waiting for a kill.
pub fn reader_gone(world: &World) -> Result<()> {
    let mut run = world.run(&[], |_| {})?;
    run.line()?;
    drop(run.stdout.take());
    let status = until("the end", || Ok(run.child.try_wait()?))?;
    let mut said = String::new();
    if let Some(mut stderr) = run.child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    ensure!(status.success() && !said.contains("error"), "{status}: {said}");
    Ok(())
}

/// A pipe of one page, with room for one or two kills.
pub fn small_pipe(command: &mut Command) {
    // SAFETY: system calls only. The new program's standard output is a pipe.
    unsafe {
        command.pre_exec(|| match libc::fcntl(1, libc::F_SETPIPE_SZ, 4096) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Both ways of logrotate, and a removed file.
pub fn logrotate(world: &World) -> Result<()> {
    let dir = Dir::make()?;
    let (file, old) = (dir.0.join("kills"), dir.0.join("kills.1"));
    let run = world.run(&["--file", path(&file)?], |_| {})?;
    started(&file)?;
    let mut names = world.kill(1)?;
    let mut lines = Vec::new();
    let told = |file: &Path, names: &[String]| file_tells(file, names.last().map_or("", String::as_str));
    told(&file, &names)?;

    // create
    fs::rename(&file, &old)?;
    names.extend(world.kill(1)?);
    told(&old, &names)?;
    File::create(&file)?;
    run.signal(libc::SIGHUP)?;
    names.extend(world.kill(1)?);
    told(&file, &names)?;
    lines.extend(lines_of(&fs::read_to_string(&old)?)?);

    // copytruncate
    lines.extend(lines_of(&fs::read_to_string(&file)?)?);
    File::options().write(true).truncate(true).open(&file)?;
    names.extend(world.kill(1)?);
    told(&file, &names)?;

    // removed
    lines.extend(lines_of(&fs::read_to_string(&file)?)?);
    fs::remove_file(&file)?;
    names.extend(world.kill(1)?);
    told(&file, &names)?;
    ensure!(fs::metadata(&file)?.mode() & 0o777 == 0o600, "not private");
    run.stop()?;
    lines.extend(lines_of(&fs::read_to_string(&file)?)?);
    all_told(&lines, &names)
}
