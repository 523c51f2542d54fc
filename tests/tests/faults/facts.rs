//! What a run counts, and which `/proc` it reads.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use oomtrace_tests::patience::until;
use oomtrace_tests::process::send_signal;
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer::at;
use serde_json::Value;

use crate::world::{Dir, World, comm, path, text};

/// `--count` counts kills, but not processes that die with a victim because they share its memory.
pub fn count_counts_kills(world: &World) -> Result<()> {
    // Somebody else's kills are not counted.
    let own = format!("hog-shared,{}*", World::names());
    let mut run = world.run(&["--count", "2", "--comm", &own], |_| {})?;
    ensure!(text(&run.line()?, "type") == "start", "no start line");
    let cgroup = world.scratch.cgroup().child(b"shared")?;
    cgroup.limit(16 << 20)?;
    let mut hog = start_hog(false, b"hog-shared")?;
    hog.join(&cgroup.procs())?;
    hog.share_memory()?;
    hog.grow("anon")?;
    hog.killed()?;
    // The first kill is one of two, so the run goes on. This is the second.
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

/// `simulate` compares an event with the kernel's log, so it must not have the event's facts from there.
pub fn simulate_takes_nothing_from_the_log(world: &World) -> Result<()> {
    let output = Command::new(&world.binary).args(["simulate", "-o", "json"]).output()?;
    let compared = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {compared}", output.status);
    let line: Value = serde_json::from_slice(&output.stdout)?;
    let evidence = at(&line, "oom.evidence").context("no evidence")?;
    ensure!(evidence != "kernel_log", "from the log that it is compared with: {line}");
    for field in ["oom.constraint", "oom.cgroup.path", "oom.order", "oom.gfp_mask_raw"] {
        ensure!(compared.contains(&format!("equal   {field} ")), "{field} was not compared: {compared}");
    }
    Ok(())
}

/// Another program gets each victim's id a moment later. It must never be reported as the victim.
pub fn pids_used_again(world: &World) -> Result<()> {
    // After ten reports in five seconds the kernel suppresses more. Then a kill is so fast that ids can be
    // confused.
    const TIMES: usize = 60;
    let mut run = world.run(&[], |_| {})?;
    ensure!(text(&run.line()?, "type") == "start", "no start line");
    let cgroup = world.scratch.cgroup().child(b"reuse")?;
    cgroup.limit(8 << 20)?;
    let mut hog = start_hog(false, b"hog-reuse")?;
    let ids = hog.reuse_ids(&cgroup.procs(), TIMES, run.child.id())?;
    let last = world.kill_one()?;
    let lines = run.lines_until(&last)?;
    run.stop()?;
    let own = std::env::current_exe()?;
    let mut told = 0;
    for line in lines.iter().filter(|line| text(line, "type") == "oom_kill") {
        if !at(line, "victim.pid").and_then(Value::as_u64).is_some_and(|pid| ids.contains(&pid)) {
            continue;
        }
        told += 1;
        if let Some(executable) = at(line, "victim.executable").and_then(Value::as_str) {
            ensure!(Path::new(executable) == own, "the next program with its id: {line}");
        }
        if let Some(command) = at(line, "victim.command_line").and_then(Value::as_str) {
            ensure!(!command.contains("sleep"), "the next program with its id: {line}");
        }
    }
    ensure!(told == TIMES, "{told} of {TIMES} kills were reported");
    Ok(())
}

/// A process in a pid namespace. A drop kills it.
struct Inside(Child);

impl Inside {
    /// Starts `/bin/sleep` with this id in the namespace of `process`, with that namespace's `/proc`.
    fn sleep(process: u32, id: u32) -> Result<Self> {
        let script = format!("echo {} >/proc/sys/kernel/ns_last_pid; /bin/sleep 1000 & wait", id - 1);
        let mut command = Command::new("nsenter");
        command.args(["-t", &process.to_string(), "-p", "-m", "sh", "-c", &script]);
        Ok(Self(command.stdin(Stdio::null()).spawn().context("start nsenter")?))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // The other processes end with the namespace.
        let _ignored = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// The tracer runs in a pid namespace in which another program has the victim's id. The tracer must report
/// the namespace, and read nothing about that program.
pub fn pids_of_another_namespace(world: &World) -> Result<()> {
    let above = ["unshare", "-pf", "--kill-child", "--mount-proc"];
    let mut run = world.run_below(&above, &["--no-realtime"], |_| {})?;
    let start = run.line()?;
    let limits = start.get("limits").map(Value::to_string).unwrap_or_default();
    ensure!(limits.contains("pid namespace"), "the start line does not say it: {start}");
    let tracer = run.child.id();
    let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"))?;
    let tracer: u32 = children.trim().parse().context("unshare has no child")?;

    let cgroup = world.scratch.cgroup().child(b"apart")?;
    cgroup.limit(8 << 20)?;
    let mut hog = start_hog(false, b"hog-apart")?;
    hog.join(&cgroup.procs())?;
    let _inside = Inside::sleep(tracer, hog.pid())?;
    let other = format!("/proc/{tracer}/root/proc/{}/exe", hog.pid());
    until("the other program with the id", || {
        Ok(fs::read_link(&other).is_ok_and(|exe| exe.ends_with("sleep")).then_some(()))
    })?;
    hog.grow("anon")?;
    hog.killed()?;
    let lines = run.lines_until("hog-apart")?;
    let line = lines.last().filter(|line| comm(line) == Some("hog-apart")).context("no line")?;
    ensure!(at(line, "victim.executable").is_none(), "of a process of the namespace: {line}");
    let why = line.get("missing").map(Value::to_string).unwrap_or_default();
    ensure!(why.contains("namespace"), "the reason is another: {line}");
    // What the kernel side read belongs to the victim, wherever the tracer runs.
    let command = at(line, "victim.command_line").and_then(Value::as_str);
    ensure!(command.is_none_or(|command| !command.contains("sleep")), "{line}");
    // A child of a child that has not been waited for.
    send_signal(tracer, libc::SIGTERM)?;
    until("the end of unshare", || Ok(run.child.try_wait()?)).map(drop)
}

/// With `--command-line none`, the victim's command line does not even get into the ring: nothing of it is in
/// the recording.
pub fn an_unwanted_command_line_is_not_copied(world: &World) -> Result<()> {
    let own = std::env::current_exe()?;
    let own = path(&own)?.as_bytes();
    for (choice, copied) in [("full", true), ("none", false)] {
        let dir = Dir::make()?;
        let record = dir.0.join("record");
        let mut run = world.run(&["--command-line", choice, "--record", path(&record)?], |_| {})?;
        ensure!(text(&run.line()?, "type") == "start", "no start line");
        let name = world.kill_one()?;
        run.lines_until(&name)?;
        run.stop()?;
        let record = fs::read(&record)?;
        let has = |what: &[u8]| record.windows(what.len()).any(|bytes| bytes == what);
        ensure!(has(name.as_bytes()), "{choice}: the kill is not in the recording");
        ensure!(has(own) == copied, "{choice}: the victim's command line was copied: {}", has(own));
    }
    Ok(())
}

/// The tracer must leave no core file, because its memory contains command lines of others. The files in
/// `/proc` of a process that could leave one belong to its group, otherwise to root's.
pub fn leaves_no_core(world: &World) -> Result<()> {
    const GROUP: u32 = 4242;
    let mut run = world.run(&[], |command| {
        command.gid(GROUP);
    })?;
    ensure!(text(&run.line()?, "type") == "start", "no start line");
    let mut control = Command::new("sleep").arg("1000").gid(GROUP).spawn()?;
    let group_of = |process: u32| {
        let file = format!("/proc/{process}/environ");
        fs::metadata(&file).map(|meta| meta.gid()).with_context(|| file)
    };
    let (control_group, group) = (group_of(control.id()), group_of(run.child.id())?);
    control.kill()?;
    control.wait()?;
    ensure!(control_group? == GROUP, "an ordinary process does not show this either, so nothing was tested");
    ensure!(group == 0, "it can leave a core file");
    run.stop().map(drop)
}
