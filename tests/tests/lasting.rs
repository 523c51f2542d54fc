//! What happens while the tracer does not run: killed, stopped, replaced. Every victim must be
//! told of, or counted. Real kills, in cgroups of their own; as root.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use oomtrace_tests::cgroup::{Cgroup, Hierarchy, Scratch, Version};
use oomtrace_tests::hog::{self, PATIENCE};
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer::{at, binary};
use serde_json::Value;

const AT_A_TIME: usize = 16;
const LIMIT: u64 = 4 << 20;

fn main() -> ExitCode {
    hog::serve_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trial = |name: &str, test: fn() -> Result<()>| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let trials = vec![
        trial("killed_every_half_second", killed_every_half_second),
        trial("stopped_for_five_seconds", stopped_for_five_seconds),
        trial("nothing_stays_without_pin", nothing_stays_without_pin),
        trial("second_run_is_refused", second_run_is_refused),
        trial("other_programs_are_drained_and_replaced", other_programs_are_drained_and_replaced),
        trial("unread_version_is_counted_never_read", unread_version_is_counted_never_read),
        trial("detached_hook_is_a_gap", detached_hook_is_a_gap),
        trial("detached_before_they_were_told", detached_before_they_were_told),
        trial("memory_stays_in_a_storm", memory_stays_in_a_storm),
        trial("file_that_fails", file_that_fails),
        trial("what_is_refused_is_said", what_is_refused_is_said),
        trial("rotated_while_it_starts", rotated_while_it_starts),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// 400 kills while the tracer is SIGKILLed every half second.
fn killed_every_half_second() -> Result<()> {
    let world = World::make("killed")?;
    let done = AtomicBool::new(false);
    // The first must be attached before there is something to be seen.
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let (victims, runs) = std::thread::scope(|scope| {
        let tracer = scope.spawn(|| -> Result<usize> {
            let mut runs = 0;
            while !done.load(Ordering::Relaxed) {
                let mut run = Run::start(&world.run(&[]))?;
                std::thread::sleep(Duration::from_millis(500));
                run.kill(libc::SIGKILL)?;
                runs += 1;
            }
            Ok(runs)
        });
        let victims = world.kills(400);
        done.store(true, Ordering::Relaxed);
        let runs = tracer.join().map_err(|_| anyhow::anyhow!("the tracer's thread panicked"))?;
        anyhow::Ok((victims?, runs?))
    })?;
    // The last one tells the rest.
    let mut run = Run::start(&world.run(&["--timeout", "2s"]))?;
    run.ended()?;
    let lines = world.lines()?;
    let told = victims_of(&lines);
    let untold: Vec<_> = victims.difference(&told).collect();
    ensure!(untold.is_empty(), "{} of {} victims were not told of: {untold:?}", untold.len(), victims.len());
    ensure!(runs > 2, "the tracer was killed {runs} times only");
    no_hole(&lines)?;
    for kind in ["lost", "gap"] {
        ensure!(lines.iter().all(|line| is(line, "type") != kind), "a {kind} line: {lines:?}");
    }
    let resumed = lines.iter().filter(|line| line.get("resumed") == Some(&true.into())).count();
    ensure!(resumed > 2, "{resumed} runs took over");
    world.detach()
}

/// 3,000 kills with a small ring, and a tracer that stands still for five seconds of them.
fn stopped_for_five_seconds() -> Result<()> {
    let world = World::make("stopped")?;
    let mut run = Run::start(&world.run_unpinned(&["--ring-size", "16KiB"]))?;
    world.started()?;
    std::thread::scope(|scope| {
        let kills = scope.spawn(|| world.kills(3000));
        std::thread::sleep(Duration::from_secs(1));
        run.kill_only(libc::SIGSTOP)?;
        std::thread::sleep(Duration::from_secs(5));
        run.kill_only(libc::SIGCONT)?;
        let victims = kills.join().map_err(|_| anyhow::anyhow!("the kills' thread panicked"))??;
        ensure!(victims.len() == 3000, "{} kills", victims.len());
        anyhow::Ok(())
    })?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    let told = lines.iter().filter(|line| is(line, "type") == "oom_kill").count() as u64;
    let full = |line: &&Value| is(line, "type") == "lost" && is(line, "reason") == "ring_full";
    let lost: u64 = lines.iter().filter(full).filter_map(|line| line.get("count")?.as_u64()).sum();
    ensure!(lost > 0, "nothing was lost: the ring was not full, so nothing was tested");
    ensure!(told + lost == 3000, "told {told} + lost {lost} = {}, not 3000", told + lost);
    for line in &lines {
        ensure!(is(line, "type") != "gap", "lost and counted is no gap: {line}");
        ensure!(is(line, "type") != "lost" || is(line, "reason") == "ring_full", "{line}");
    }
    Ok(())
}

fn nothing_stays_without_pin() -> Result<()> {
    let world = World::make("unpinned")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    world.started()?;
    let links = links_of(run.child.id())?;
    ensure!(links.len() >= 5, "a running tracer has the links {links:?} only: nothing can be said");
    for link in &links {
        ensure!(is_attached(*link)?, "link {link} of a running tracer is not there: nothing can be said");
    }
    run.kill(libc::SIGKILL)?;
    wait_for("end of its links", || links.iter().all(|link| is_attached(*link).is_ok_and(|there| !there)))
}

fn second_run_is_refused() -> Result<()> {
    let world = World::make("second")?;
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    let pin = format!("--pin={}", world.pins());
    // A run that is not refused must end too.
    let pins = world.pins();
    let (run, detach) = (["run", "--timeout", "1s", &pin], ["detach", &pins]);
    for arguments in [&run as &[&str], &detach] {
        let second = world.oomtrace(arguments)?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        ensure!(!second.status.success(), "{arguments:?} did not fail");
        ensure!(said.contains(&format!("in use by process {}", first.child.id())), "{arguments:?}: {said}");
    }
    first.kill(libc::SIGKILL)?;
    world.detach()
}

/// Programs of another ring size are other programs.
fn other_programs_are_drained_and_replaced() -> Result<()> {
    let world = World::make("replaced")?;
    let mut first = Run::start(&world.run(&["--ring-size", "256KiB"]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(5)?;
    let mut second = Run::start(&world.run(&["--ring-size", "128KiB"]))?;
    world.started_times(3)?;
    ensure!(world.generations()? == 1, "the replaced programs are still pinned");
    let later = world.kills(3)?;
    second.kill(libc::SIGTERM)?;
    let lines = world.lines()?;
    let told = victims_of(&lines);
    ensure!(told == &victims | &later, "told {told:?}, killed {victims:?} {later:?}");
    let starts: Vec<_> = lines.iter().filter(|line| is(line, "type") == "start").collect();
    let resumed: Vec<_> = starts.iter().map(|line| line.get("resumed") == Some(&true.into())).collect();
    ensure!(resumed == [false, true, false], "{resumed:?}");
    no_hole(&lines)?;
    world.detach()
}

fn unread_version_is_counted_never_read() -> Result<()> {
    let world = World::make("version")?;
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(5)?;
    let own = world.generation()?;
    let name = own.file_name().and_then(|name| name.to_str()).context("a name")?;
    let (_, hash) = name.split_once('-').context("a name with a hash")?;
    fs::rename(&own, own.with_file_name(format!("v999-{hash}"))).context("rename a generation")?;
    let mut second = Run::start(&world.run(&[]))?;
    world.started_times(2)?;
    second.kill(libc::SIGTERM)?;
    ensure!(world.generations()? == 1, "the other version's programs are still pinned");
    let lines = world.lines()?;
    ensure!(victims_of(&lines).is_disjoint(&victims), "a record of another version was read");
    let lost = |line: &&Value| is(line, "type") == "lost" && is(line, "reason") == "unreadable_record";
    let lost: u64 = lines.iter().filter(lost).filter_map(|line| line.get("count")?.as_u64()).sum();
    ensure!(lost == 5, "{lost} records were counted as unreadable, not 5");
    world.detach()
}

/// Whoever takes the hook away: the kernel's own counter shows it, and the cgroup's where.
fn detached_hook_is_a_gap() -> Result<()> {
    let world = World::make("gap")?;
    let mut run = Run::start(&world.run(&[]))?;
    world.started()?;
    world.kills(2)?;
    let cgroup = world.scratch.cgroup().child(b"gap")?;
    kill_in(&cgroup)?;
    fs::remove_file(world.generation()?.join("link-raw_tracepoint-mark_victim"))?;
    // The link goes once the kernel gets to it.
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        kill_in(&cgroup)?;
    }
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    let gaps: Vec<_> = lines.iter().filter(|line| is(line, "type") == "gap").collect();
    let number = |line: &Value, key: &str| line.get(key).and_then(Value::as_u64).unwrap_or(0);
    let missing: u64 = gaps.iter().map(|gap| number(gap, "kernel_kills") - number(gap, "reported")).sum();
    ensure!(missing == 3, "3 kills went unseen, the gaps say {missing}: {gaps:?}");
    // On v2 the topmost cgroup is looked at, which has all kills of this test.
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

/// A run that replaces programs has detached them, and ends before it has told what they recorded: whoever has the
/// same programs next must not take them for a start that was cut short.
fn detached_before_they_were_told() -> Result<()> {
    let world = World::make("detached")?;
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(5)?;
    for entry in fs::read_dir(world.generation()?)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"link-") {
            fs::remove_file(entry.path())?;
        }
    }
    let mut second = Run::start(&world.run(&[]))?;
    world.started_times(3)?;
    ensure!(world.generations()? == 1, "the detached programs are still pinned");
    second.kill(libc::SIGTERM)?;
    let told = victims_of(&world.lines()?);
    ensure!(told.is_superset(&victims), "told {told:?}, killed {victims:?}");
    world.detach()
}

/// What a storm takes is what a first few kills took.
fn memory_stays_in_a_storm() -> Result<()> {
    let world = World::make("memory")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    world.started()?;
    let resident = || -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", run.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    world.kills(50)?;
    let before = resident()?;
    world.kills(500)?;
    let after = resident()?;
    ensure!(after < before + 1024, "{before} KiB after 50 kills, {after} KiB after 550");
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}

/// A file that takes no line for a while, as nobody may write to it: nothing is lost, nothing torn.
fn file_that_fails() -> Result<()> {
    let world = World::make("fails")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    world.started()?;
    let mut victims = world.kills(2)?;
    if !immutable(&world.output(), true)? {
        // A file system without such a flag: `cargo xtask soak` has another way.
        return Ok(());
    }
    let sealed = (|| {
        let before = fs::read(world.output())?;
        victims.extend(world.kills(20)?);
        std::thread::sleep(Duration::from_millis(500));
        ensure!(fs::read(world.output())? == before, "the file could be written all the time");
        ensure!(run.child.try_wait()?.is_none(), "the run ended");
        Ok(())
    })();
    immutable(&world.output(), false)?;
    sealed?;
    victims.extend(world.kills(1)?);
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    ensure!(victims_of(&lines).is_superset(&victims), "not all were told of");
    no_hole(&lines)
}

/// Without what would let it lock memory, run first and not be a victim, it runs all the same.
fn what_is_refused_is_said() -> Result<()> {
    // include/uapi/linux/capability.h
    const DROPPED: [libc::c_ulong; 3] = [14, 23, 24];
    let world = World::make("refused")?;
    let mut command = world.run_unpinned(&[]);
    // SAFETY: system calls only; the limit is alive through the call.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            for resource in [libc::RLIMIT_MEMLOCK, libc::RLIMIT_RTPRIO] {
                if libc::setrlimit(resource, &raw const none) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for capability in DROPPED {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let mut run = Run { child: command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()? };
    world.started()?;
    let victims = world.kills(2)?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    ensure!(victims_of(&lines).is_superset(&victims), "not all were told of");
    let limits =
        lines.first().and_then(|start| start.get("limits")).map(Value::to_string).unwrap_or_default();
    for refused in ["memory is not locked", "no real-time scheduling", "oom_score_adj is not lowered"] {
        ensure!(limits.contains(refused), "{refused:?} is not said: {limits}");
    }
    Ok(())
}

/// logrotate's SIGHUP, when the file is open already and nothing attached yet.
fn rotated_while_it_starts() -> Result<()> {
    let world = World::make("rotated")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    wait_for("a file", || world.output().exists())?;
    let deadline = Instant::now() + PATIENCE;
    while world.started_now() == 0 {
        ensure!(run.child.try_wait()?.is_none(), "it ended");
        ensure!(Instant::now() < deadline, "no start line in {PATIENCE:?}");
        run.kill_only(libc::SIGHUP)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}

/// Whether the file system has such a flag.
fn immutable(file: &Path, immutable: bool) -> Result<bool> {
    const GET: libc::Ioctl = 0x8008_6601_u32 as libc::Ioctl;
    const SET: libc::Ioctl = 0x4008_6602;
    const IMMUTABLE: libc::c_long = 0x10;
    let file = fs::File::open(file)?;
    let mut flags: libc::c_long = 0;
    // SAFETY: a descriptor of ours; the flags are alive through the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), GET, &raw mut flags) } != 0 {
        return Ok(false);
    }
    flags = if immutable { flags | IMMUTABLE } else { flags & !IMMUTABLE };
    // SAFETY: as above.
    Ok(unsafe { libc::ioctl(file.as_raw_fd(), SET, &raw const flags) } == 0)
}

/// A scratch cgroup, a directory of pins and an output of a test's own.
struct World {
    scratch: Scratch,
    binary: PathBuf,
    name: String,
    dir: PathBuf,
}

impl World {
    fn make(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("oomtrace-test-{}-{name}", std::process::id()));
        fs::create_dir(&dir)?;
        let scratch = Scratch::make(&Hierarchy::find()?)?;
        let name = format!("oomtrace-test-{}-{name}", std::process::id());
        Ok(Self { scratch, binary: binary()?, name, dir })
    }

    fn pins(&self) -> String {
        format!("/sys/fs/bpf/{}", self.name)
    }

    fn output(&self) -> PathBuf {
        self.dir.join("lines")
    }

    fn run_unpinned(&self, more: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["run", "-o", "json", "--file"]).arg(self.output()).args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Command {
        let mut command = self.run_unpinned(more);
        command.arg(format!("--pin={}", self.pins()));
        command
    }

    fn oomtrace(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(&self.binary).args(arguments).stdin(Stdio::null()).output()?)
    }

    /// Every victim's thread id.
    fn kills(&self, count: usize) -> Result<BTreeSet<u64>> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Result<BTreeSet<u64>>> = Mutex::new(Ok(BTreeSet::new()));
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME.min(count) {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        let kill = kill(self.scratch.cgroup(), next_number());
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        match (kill, done.as_mut()) {
                            (Ok(pid), Ok(pids)) => _ = pids.insert(pid),
                            (Err(error), Ok(_)) => *done = Err(error),
                            _ => return,
                        }
                    }
                });
            }
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn generations(&self) -> Result<usize> {
        Ok(fs::read_dir(self.pins())?.count())
    }

    fn generation(&self) -> Result<PathBuf> {
        let first = fs::read_dir(self.pins())?.next().context("nothing is pinned")?;
        Ok(first?.path())
    }

    fn started(&self) -> Result<()> {
        self.started_times(1)
    }

    fn started_times(&self, times: usize) -> Result<()> {
        wait_for("a start line", || self.started_now() >= times)
    }

    fn started_now(&self) -> usize {
        fs::read_to_string(self.output()).map_or(0, |text| text.matches("\"type\":\"start\"").count())
    }

    /// Every line is whole and JSON.
    fn lines(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.output())?;
        ensure!(text.ends_with('\n'), "the last line is torn");
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    /// Nothing is left.
    fn detach(&self) -> Result<()> {
        let detached = self.oomtrace(&["detach", &self.pins()])?;
        ensure!(detached.status.success(), "detach: {}", String::from_utf8_lossy(&detached.stderr));
        ensure!(!Path::new(&self.pins()).exists(), "{} is still there", self.pins());
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed test left behind.
        let _gone_already = self.oomtrace(&["detach", &self.pins()]);
        if !std::thread::panicking() {
            let _left_to_look_at = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A tracer. It ends with the test.
struct Run {
    child: Child,
}

impl Run {
    fn start(command: &Command) -> Result<Self> {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
        // Its limits are not the test's matter; its errors are.
        Ok(Self { child: again.stderr(Stdio::inherit()).spawn()? })
    }

    fn kill_only(&mut self, signal: libc::c_int) -> Result<()> {
        // SAFETY: a child that has not been waited for, so the id is still its own.
        let sent = unsafe { libc::kill(libc::pid_t::try_from(self.child.id())?, signal) };
        ensure!(sent == 0, "signal {signal}: {}", std::io::Error::last_os_error());
        Ok(())
    }

    fn kill(&mut self, signal: libc::c_int) -> Result<()> {
        self.kill_only(signal)?;
        self.child.wait()?;
        Ok(())
    }

    /// By itself, in order.
    fn ended(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("oomtrace: {status}"),
                None if Instant::now() > deadline => bail!("oomtrace did not end in {PATIENCE:?}"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended already, most likely.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn next_number() -> usize {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn kill(scratch: &Cgroup, number: usize) -> Result<u64> {
    let cgroup = scratch.child(format!("lasting-{number}").as_bytes())?;
    let pid = kill_in(&cgroup)?;
    cgroup.remove()?;
    Ok(pid)
}

fn kill_in(cgroup: &Cgroup) -> Result<u64> {
    cgroup.limit(LIMIT)?;
    let mut hog = start_hog(false, b"hog")?;
    hog.join(&cgroup.procs())?;
    let pid = hog.pid();
    hog.grow("anon")?;
    hog.killed()?;
    Ok(pid.into())
}

fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        ensure!(Instant::now() < deadline, "no {what} in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn is<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn victims_of(lines: &[Value]) -> BTreeSet<u64> {
    let kills = lines.iter().filter(|line| is(line, "type") == "oom_kill");
    kills.filter_map(|line| at(line, "victim.tid")?.as_u64()).collect()
}

/// From one start of the programs to the next, each number follows the last, or repeats it.
fn no_hole(lines: &[Value]) -> Result<()> {
    let mut last = 0;
    for line in lines {
        if is(line, "type") == "start" && line.get("resumed") == Some(&false.into()) {
            last = 0;
        }
        if let Some(seq) = line.get("seq").and_then(Value::as_u64) {
            ensure!(seq == last || seq == last + 1, "after seq {last}: {line}");
            last = seq;
        }
    }
    Ok(())
}

/// The ids of the links that a process holds.
fn links_of(pid: u32) -> Result<Vec<u32>> {
    let mut links = Vec::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
        links.extend(text.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse::<u32>().ok()));
    }
    Ok(links)
}

/// Whether the kernel still has a link.
fn is_attached(link: u32) -> Result<bool> {
    const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
    let attributes = [link, 0, 0, 0];
    // SAFETY: the attributes are alive through the call, which only reads them.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_GET_FD_BY_ID, &raw const attributes, size_of_val(&attributes))
    };
    if fd >= 0 {
        // SAFETY: made by the call above, and nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) });
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    ensure!(error.raw_os_error() == Some(libc::ENOENT), "look for a link: {error}");
    Ok(false)
}
