//! Files, memory and logs with which a user makes readers hang: every kill is reported, and the run ends when
//! asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::fuse::{self, FILE, Fuse};
use oomtrace_tests::hog::Hog;
use oomtrace_tests::patience::until;
use oomtrace_tests::session::start_hog;
use oomtrace_tests::user::User;
use serde_json::Value;

use crate::slow::BusyProcessor;
use crate::world::{Dir, Run, World, all_told, comm, text};

/// Two seconds, and some more for a busy machine to start and reap a process.
const END: Duration = Duration::from_millis(2500);
const KILLS: usize = 4;
/// In this time a user's share of time comes back, of which a busy machine uses more for each kill.
const REFILL: Duration = Duration::from_secs(1);

/// The cgroup of one of the user's containers.
fn container(user: &User, number: usize) -> Result<Cgroup> {
    user.service().child(format!("docker-{number:064x}.scope").as_bytes())
}

/// Starts a tracer that has the user in its `/etc/passwd`.
fn run_that_knows(user: &User, world: &World) -> Result<Run> {
    world.try_run(&[], |command| user.shown_to(command))
}

/// Checks that the run ends normally and soon.
fn ends_soon(run: Run) -> Result<(Vec<Value>, String)> {
    let began = Instant::now();
    let ended = run.stop()?;
    let took = began.elapsed();
    ensure!(took < END, "SIGTERM took {took:?}");
    Ok(ended)
}

/// Makes kills in her containers while her home does not answer, with a pause after each. Returns the lines and the messages of the
/// tracer.
fn kills_at_home(
    world: &World,
    user: &User,
    mut run: Run,
    pause: Duration,
    look: impl FnOnce(u32) -> Result<()>,
) -> Result<(Vec<Value>, String)> {
    run.line()?;
    let mut names = Vec::new();
    for number in 1..=KILLS {
        let container = container(user, number)?;
        names.push(world.kill_another(&container, |_| Ok(()))?);
        std::thread::sleep(pause);
    }
    // A kill that is not hers.
    names.extend(world.kill(1)?);
    let mut lines = run.lines_until(names.last().context("a kill")?)?;
    look(run.child.id())?;
    let (rest, said) = ends_soon(run)?;
    lines.extend(rest);
    // Names that are not read in time are counted as lost, which is expected here. No kill may be lost.
    let kills_and_losses: Vec<Value> =
        lines.iter().filter(|line| text(line, "reason") != "name_not_read").cloned().collect();
    all_told(&kills_and_losses, &names)?;
    // The kernel may kill the other process of a container too, before the memory of the first one is released.
    lines.retain(|line| comm(line).is_none_or(|comm| names.iter().any(|name| name == comm)));
    Ok((lines, said))
}

/// The reasons why the containers have no names.
fn whys(lines: &[Value]) -> Vec<String> {
    let hers = lines
        .iter()
        .filter(|line| text(line, "type") == "oom_kill" && line.pointer("/container/id").is_some());
    hers.map(|line| line.get("missing").unwrap_or(&Value::Null).to_string()).collect()
}

/// A program serves her home and answers nothing. The tracer must not enter it.
pub fn home_that_never_answers(world: &World) -> Result<()> {
    let dir = Dir::make()?;
    let user = User::make(&dir.0)?;
    let home = Fuse::mount(user.home(), user.uid())?;
    home.be_silent();
    let run = run_that_knows(&user, world)?;
    let (lines, _) = kills_at_home(world, &user, run, REFILL, |_| Ok(()))?;
    let whys = whys(&lines);
    ensure!(whys.len() == KILLS && whys.iter().all(|why| why.contains("of type fuse")), "missing: {whys:?}");
    ensure!(home.waiting() == 0, "{} requests to its server", home.waiting());
    Ok(())
}

/// The killed children of this process that cannot end.
fn hanging_children(parent: u32) -> Result<Vec<PathBuf>> {
    let mut hanging = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let is = |line: &str| status.lines().any(|of| of.starts_with(line));
        if is(&format!("PPid:\t{parent}")) && is("State:\tD") && is("ShdPnd:\t0000000000000100") {
            hanging.push(process.path());
        }
    }
    Ok(hanging)
}

/// Checks that a killed child of this process cannot end, and that it has only its socket open.
fn hangs_and_holds_nothing(parent: u32) -> Result<()> {
    let stuck = until("a child that hangs", || Ok(hanging_children(parent)?.pop()))?;
    let mut open = Vec::new();
    for file in fs::read_dir(stuck.join("fd"))? {
        open.push(fs::read_link(file?.path())?.display().to_string());
    }
    // And the file that it was about to read.
    let own = |file: &str| file == "/dev/null" || file == "/" || file.starts_with("socket:");
    open.retain(|file| !own(file) && !file.ends_with("/mountinfo") && !file.contains("oomtrace-faults"));
    ensure!(open.is_empty(), "it has open: {open:?}");
    Ok(())
}

/// The type of her home's file system answers, but the one below does not. Its reader hangs for ever, so it
/// must be another process.
pub fn home_that_hangs_its_reader(world: &World) -> Result<()> {
    let dir = Dir::make()?;
    let user = User::make(&dir.0)?;
    let home = HangingHome::make(&user, &dir.0)?;
    let run = run_that_knows(&user, world)?;
    let tracer = run.child.id();
    let (lines, said) = kills_at_home(world, &user, run, Duration::ZERO, hangs_and_holds_nothing)?;
    ensure!(home.server.waiting() > 0, "nobody asked its server");
    ensure!(said.contains("a reader given up (1 so far"), "stderr: {said}");
    let whys = whys(&lines);
    // Waiting for the answer used up the time for users' files.
    let why = |why: &String| why.contains("did not answer in time") || why.contains("share_used_up");
    ensure!(whys.len() == KILLS && whys.iter().all(why), "missing: {whys:?}");
    ensure!(!Path::new(&format!("/proc/{tracer}")).exists(), "the tracer is still there");
    Ok(())
}

/// A home whose server answers nothing, below an overlay that hides this. Its reader hangs for ever.
struct HangingHome<'a> {
    home: &'a Path,
    server: Fuse,
}

impl<'a> HangingHome<'a> {
    /// `dir` is a directory for this home alone.
    fn make(user: &'a User, dir: &Path) -> Result<Self> {
        let lower = dir.join("lower");
        fs::create_dir(&lower)?;
        let server = Fuse::mount(&lower, user.uid())?;
        fuse::overlay(&lower, dir, user.home())?;
        server.be_silent();
        Ok(Self { home: user.home(), server })
    }
}

impl Drop for HangingHome<'_> {
    fn drop(&mut self) {
        fuse::unmount(self.home);
    }
}

/// The homes of more users hang than readers may: 8 for names and 8 for verdicts.
pub fn homes_that_hang_all_readers(world: &World) -> Result<()> {
    const READERS: std::ops::RangeInclusive<usize> = 8..=16;
    let dir = Dir::make()?;
    let users = User::make_several(&dir.0, 20)?;
    let mut homes = Vec::new();
    for user in &users {
        let dir = dir.0.join(user.uid().to_string());
        fs::create_dir(&dir)?;
        homes.push(HangingHome::make(user, &dir)?);
    }
    let mut run = run_that_knows(users.first().context("a user")?, world)?;
    run.line()?;
    let mut names = Vec::new();
    for user in &users {
        names.push(world.kill_another(&container(user, 1)?, |_| Ok(()))?);
    }
    let (mut told, mut verdicts) = (0, 0);
    while told < names.len() || verdicts < names.len() {
        let line = run.line()?;
        let is_one = comm(&line).is_some_and(|comm| names.iter().any(|name| name == comm));
        match text(&line, "type") {
            "oom_kill" if is_one => told += 1,
            "verdict" => verdicts += 1,
            _ => {}
        }
    }
    let hanging = hanging_children(run.child.id())?.len();
    ensure!(READERS.contains(&hanging), "{hanging} readers hang");
    ends_soon(run).map(drop)
}

/// A victim that holds the lock of its own memory. Fields are dropped in order: it cannot die before its
/// server is gone.
struct Locker {
    server: Fuse,
    hog: Hog,
    cgroup: Cgroup,
}

impl Locker {
    /// A process with this name that is killed because of another's memory, and does not die.
    fn killed(world: &World, dir: &Dir, name: &str) -> Result<Self> {
        let mount = dir.0.join(name);
        fs::create_dir(&mount)?;
        let cgroup = world.scratch.cgroup().child(name.as_bytes())?;
        cgroup.limit(16 << 20)?;
        let hog = start_hog(false, name.as_bytes())?;
        let mut locker = Self { server: Fuse::mount(&mount, 0)?, hog, cgroup };
        locker.hog.join(&locker.cgroup.procs())?;
        locker.hog.hold(11 << 20)?;
        locker.hog.lock_memory(&mount.join(FILE))?;
        until("a write that its server does not answer", || Ok((locker.server.waiting() > 0).then_some(())))?;
        let mut other = start_hog(false, b"other")?;
        other.join(&locker.cgroup.procs())?;
        other.tell(&format!("anon {}", 8 << 20))?;
        // The first victim releases nothing, so the other one is next.
        other.killed()?;
        Ok(locker)
    }
}

/// A victim that holds the lock of its own memory: its executable is reported, and later victims lose
/// nothing.
///
/// On a busy machine any victim may be gone before it is read, so one of a few is enough.
pub fn victim_that_locks_its_memory(world: &World) -> Result<()> {
    const TRIES: usize = 6;
    const LATER: usize = 10;
    let dir = Dir::make()?;
    let mut run = world.run(&["--no-verdict"], |_| {})?;
    run.line()?;
    let fact = |line: &Value, key: &str| line.pointer(key).and_then(Value::as_str).map(str::to_owned);
    let mut lockers = Vec::new();
    let mut executable = None;
    while executable.is_none() {
        ensure!(lockers.len() < TRIES, "no victim had its executable reported");
        let name = format!("locker{}", lockers.len());
        lockers.push(Locker::killed(world, &dir, &name)?);
        let lines = run.lines_until(&name)?;
        let kill = lines.last().context("a kill")?;
        ensure!(fact(kill, "/victim/command_line").is_none(), "its memory was not locked: {kill}");
        executable = fact(kill, "/victim/executable");
    }
    // These die slowly, so each of them still exists when it is read.
    let busy = BusyProcessor::start()?;
    let (mut whole, mut missing) = (0, Vec::new());
    for number in 0..LATER {
        let cgroup = world.scratch.cgroup().child(format!("later-{number}").as_bytes())?;
        let name = world.kill_another(&cgroup, |hog| busy.takes(hog.pid()))?;
        let lines = run.lines_until(&name)?;
        let kill = lines.last().context("a kill")?;
        let command_line = fact(kill, "/victim/command_line");
        whole += usize::from(
            fact(kill, "/victim/executable") == executable
                && command_line.is_some_and(|line| line.ends_with(" hog")),
        );
        missing.push(kill.get("missing").cloned());
    }
    drop(busy);
    ensure!(whole > 0, "no later victim had its executable and its command line reported: {missing:?}");
    for locker in &mut lockers {
        ensure!(locker.hog.is_alive()?, "a locker has gone: nothing was locked any more");
    }
    ends_soon(run).map(drop)
}

/// A victim that waits for a server of files, which does not answer: what its threads wait for is reported. Of the other victim, which
/// has ended, nothing is.
pub fn victim_that_does_not_end(world: &World) -> Result<()> {
    const FIRST_NS: u64 = 5_000_000_000;
    let dir = Dir::make()?;
    let mut run = world.run(&["--no-verdict"], |_| {})?;
    run.line()?;
    let mut locker = Locker::killed(world, &dir, "stays")?;
    let pid = Value::from(locker.hog.pid());
    let is_its = |line: &Value| line.pointer("/victim/pid") == Some(&pid);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| text(line, "type") != "stuck") {
        lines.push(run.line()?);
    }
    let stuck = lines.last().context("a line")?;
    ensure!(is_its(stuck) && text(&stuck["victim"], "comm") == "stays", "another victim: {stuck}");
    ensure!(stuck.get("still_there") == Some(&1.into()), "one process: {stuck}");
    ensure!(stuck.get("after_ns").and_then(Value::as_u64) >= Some(FIRST_NS), "too early: {stuck}");
    // Its leader, and the one that waits.
    ensure!(stuck.get("thread_count") == Some(&2.into()), "two threads: {stuck}");
    let threads = stuck.get("threads").and_then(Value::as_array).context("no threads")?;
    let waits = threads.first().context("no thread")?;
    ensure!(text(waits, "state") == "D", "it waits, and no signal ends that: {stuck}");
    ensure!(!text(waits, "wchan").is_empty(), "the kernel says where: {stuck}");
    let kill =
        lines.iter().find(|line| text(line, "type") == "oom_kill" && is_its(line)).context("its kill")?;
    let of = |line: &Value| line.pointer("/of/0").cloned();
    ensure!(of(stuck) == kill.get("seq").cloned(), "of another kill: {stuck}");
    let incident = lines.iter().find(|line| text(line, "type") == "incident" && of(line) == of(stuck));
    let incident = incident.context("its incident")?;
    ensure!(incident.pointer("/released/after_ns").is_none(), "it was not released: {incident}");
    ensure!(locker.hog.is_alive()?, "it has gone: nothing waited any more");
    let (rest, _) = ends_soon(run)?;
    let others = lines.iter().chain(&rest).filter(|line| text(line, "type") == "stuck" && !is_its(line));
    ensure!(others.count() == 0, "a victim that has ended");
    Ok(())
}
