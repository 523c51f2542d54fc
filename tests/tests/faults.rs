//! What must hold when the world around the tracer fails: a full disk, a reader that does not read, a late start,
//! few privileges. Real kills, each with a name of its own; kills of others on this machine are passed over.

#![allow(clippy::print_stderr, reason = "a test")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use oomtrace_tests::cgroup::{Hierarchy, Scratch};
use oomtrace_tests::hog::{self, PATIENCE};
use oomtrace_tests::session::start_hog;
use oomtrace_tests::tracer;
use serde_json::Value;

/// How long an output stays blocked.
const FAULT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    hog::serve_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let world: Arc<Mutex<Option<World>>> = Arc::default();
    let tests: [(&str, Test); 9] = [
        ("full_disk", full_disk),
        ("blocked_pipe", blocked_pipe),
        ("blocked_pipe_and_a_small_ring", blocked_pipe_and_a_small_ring),
        ("ended_while_blocked", ended_while_blocked),
        ("logrotate", logrotate),
        ("since_boot", since_boot),
        ("since_boot_amid_kills", since_boot_amid_kills),
        ("service_manager", service_manager),
        ("least_privilege", least_privilege),
    ];
    let trials = tests.map(|(name, test)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
            if world.is_none() {
                *world = Some(World::make().map_err(|error| format!("{error:#}"))?);
            }
            let world = world.as_ref().ok_or("no world")?;
            test(world).map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    drop(world);
    conclusion.exit_code()
}

type Test = fn(&World) -> Result<()>;

struct World {
    scratch: Scratch,
    binary: PathBuf,
    number: Mutex<u32>,
}

impl World {
    fn make() -> Result<Self> {
        let scratch = Scratch::make(&Hierarchy::find()?)?;
        Ok(Self { scratch, binary: tracer::binary()?, number: Mutex::new(0) })
    }

    /// Kills as many processes, one after another; their names.
    fn kill(&self, count: usize) -> Result<Vec<String>> {
        (0..count).map(|_| self.kill_one()).collect()
    }

    fn kill_one(&self) -> Result<String> {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let name = format!("f{}-{number}", std::process::id() % 1_000_000);
        let cgroup = self.scratch.cgroup().child(name.as_bytes())?;
        cgroup.limit(8 << 20)?;
        let mut hog = start_hog(false, name.as_bytes())?;
        hog.join(&cgroup.procs())?;
        hog.grow("anon")?;
        hog.killed()?;
        cgroup.remove()?;
        Ok(name)
    }

    fn run(&self, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Result<Run> {
        let mut command = Command::new(&self.binary);
        command.args(["run", "-o", "json"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: one system call, which is all that may be done between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        prepare(&mut command);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Run { child, stdout })
    }
}

/// The tracer.
struct Run {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Run {
    fn signal(&self, signal: libc::c_int) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: a child of ours that has not been waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, "signal {signal}: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// The next line; it must be whole.
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stdout.as_mut().ok_or_else(|| anyhow!("no stdout"))?.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "a torn line: {line:?}");
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Lines until one of this name's kill.
    fn lines_until(&mut self, name: &str) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let last = comm(&line) == Some(name);
            lines.push(line);
            if last {
                return Ok(lines);
            }
        }
    }

    /// Asks it to end; the lines that nobody has read yet, and what it said to stderr.
    fn stop(mut self) -> Result<(Vec<Value>, String)> {
        self.signal(libc::SIGTERM)?;
        let mut text = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_to_string(&mut text)?;
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {said}");
        Ok((lines_of(&text)?, said))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Every line, whole.
fn lines_of(text: &str) -> Result<Vec<Value>> {
    ensure!(text.is_empty() || text.ends_with('\n'), "a torn end: {:?}", text.lines().last());
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn comm(line: &Value) -> Option<&str> {
    line.pointer("/victim/comm")?.as_str()
}

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Each of these was told, once and in this order; `seq` has no hole and nothing is lost.
fn all_told(lines: &[Value], names: &[String]) -> Result<()> {
    let told: Vec<&str> =
        lines.iter().filter_map(comm).filter(|comm| names.iter().any(|name| name == comm)).collect();
    ensure!(told == names, "told {told:?}, not {names:?}");
    let lost: Vec<&Value> =
        lines.iter().filter(|line| matches!(text(line, "type"), "lost" | "gap")).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    let seqs: Vec<u64> = lines.iter().filter_map(|line| line.get("seq")?.as_u64()).collect();
    ensure!(seqs.iter().zip(1..).all(|(seq, at)| *seq == at), "seq: {seqs:?}");
    Ok(())
}

/// A directory of its own, gone afterwards.
struct Dir(PathBuf);

impl Dir {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("oomtrace-faults-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn mount_tmpfs(&self, options: &str) -> Result<()> {
        let (path, options) = (c_string(self.0.as_os_str().as_bytes())?, c_string(options.as_bytes())?);
        // SAFETY: strings that live through the call.
        let mounted = unsafe {
            libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast())
        };
        ensure!(mounted == 0, "mount a tmpfs: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Ok(path) = c_string(self.0.as_os_str().as_bytes()) {
            // SAFETY: a string that lives through the call. Where nothing is mounted, nothing happens.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn c_string(bytes: &[u8]) -> Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(bytes)?)
}

fn wait_for<T>(what: &str, mut find: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what} did not come");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until the file, whose lines are whole at each moment, tells of this kill.
fn file_tells(file: &Path, name: &str) -> Result<Vec<Value>> {
    wait_for(name, || {
        let lines = lines_of(&fs::read_to_string(file).unwrap_or_default())?;
        Ok(lines.iter().any(|line| comm(line) == Some(name)).then_some(lines))
    })
}

/// Waits until it is attached.
fn started(file: &Path) -> Result<()> {
    wait_for("the start line", || Ok(fs::metadata(file).is_ok_and(|file| file.size() > 0).then_some(())))
}

/// No room for three seconds: nothing is torn, and nothing lost.
fn full_disk(world: &World) -> Result<()> {
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
        // What is there is whole at every moment.
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

/// Nobody reads for three seconds: all kills are told afterwards, in order.
fn blocked_pipe(world: &World) -> Result<()> {
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

/// And where the ring is too small for that: told and counted are all there were.
fn blocked_pipe_and_a_small_ring(world: &World) -> Result<()> {
    let mut run = world.run(&["--ring-size", "8KiB"], small_pipe)?;
    run.line()?;
    let mut names = world.kill(60)?;
    // Whoever reads again makes room; the next kill shows that all went on.
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
    // The last number is how many events there were, of others too.
    let last = told.last().copied().unwrap_or_default();
    ensure!(told.len() as u64 + lost == last, "{} told, {lost} lost, {last} events", told.len());
    ensure!(last >= names.len() as u64, "{last} events, {} kills", names.len());
    Ok(())
}

/// A run that is asked to end ends, reader or not, and says what was left.
fn ended_while_blocked(world: &World) -> Result<()> {
    let mut run = world.run(&[], small_pipe)?;
    run.line()?;
    world.kill(20)?;
    run.signal(libc::SIGTERM)?;
    let status = wait_for("the end", || Ok(run.child.try_wait()?))?;
    let mut said = String::new();
    if let Some(mut stderr) = run.child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    ensure!(status.success() && said.contains("did not take the last"), "{status}: {said}");
    let mut rest = String::new();
    if let Some(mut stdout) = run.stdout.take() {
        stdout.read_to_string(&mut rest)?;
    }
    lines_of(&rest).map(drop)
}

/// A pipe of one page: a kill or two.
fn small_pipe(command: &mut Command) {
    // SAFETY: system calls only. The new program's standard output is a pipe.
    unsafe {
        command.pre_exec(|| match libc::fcntl(1, libc::F_SETPIPE_SZ, 4096) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Both ways of logrotate, and a removed file.
fn logrotate(world: &World) -> Result<()> {
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

/// Kills from before the start, then live ones, none twice.
fn since_boot(world: &World) -> Result<()> {
    let mut names = world.kill(20)?;
    let mut run = world.run(&["--since", "boot"], |_| {})?;
    let mut lines = run.lines_until(names.last().context("a kill")?)?;
    let live = world.kill(5)?;
    lines.extend(run.lines_until(live.last().context("a kill")?)?);
    lines.extend(run.stop()?.0);
    names.extend(live.clone());
    let ours: Vec<&Value> = lines
        .iter()
        .filter(|line| comm(line).is_some_and(|comm| names.iter().any(|name| name == comm)))
        .collect();
    let told: Vec<&str> = ours.iter().filter_map(|line| comm(line)).collect();
    ensure!(told == names, "told {told:?}, not {names:?}");
    for (line, name) in ours.iter().zip(&names) {
        let source = if live.contains(name) { "ebpf" } else { "kmsg" };
        ensure!(text(line, "source") == source, "not from {source}: {line}");
        if source == "ebpf" {
            continue;
        }
        ensure!(line.get("seq").is_none(), "a number from before oomtrace counted: {line}");
        let anon = line.pointer("/victim/memory/anon_rss_bytes").and_then(Value::as_u64);
        ensure!(anon.is_some_and(|anon| (1 << 20..=9 << 20).contains(&anon)), "memory: {line}");
        ensure!(line.pointer("/oom/scope") == Some(&"memcg".into()), "scope: {line}");
        // Where the kernel was over its rate limit, it did not say which cgroup.
        let whole = format!("{}/{name}", String::from_utf8_lossy(&world.scratch.cgroup().place().path));
        match line.pointer("/victim/cgroup/path").and_then(Value::as_str) {
            Some(path) => {
                ensure!(path == whole, "cgroup: {line}");
                ensure!(line.pointer("/oom/cgroup/limit_bytes") == Some(&(8 << 20).into()), "limit: {line}");
                ensure!(line.pointer("/victim/pid") == line.pointer("/victim/tid"), "pid: {line}");
            }
            None => ensure!(
                line.pointer("/missing/victim.cgroup.path")
                    .is_some_and(|why| why.to_string().contains("left out")),
                "no cgroup: {line}"
            ),
        }
    }
    Ok(())
}

/// A start in the middle of a storm: each kill is told once, by the log or live, in order.
fn since_boot_amid_kills(world: &World) -> Result<()> {
    for _ in 0..2 {
        let mut names = world.kill(2)?;
        let (rest, mut run) = std::thread::scope(|scope| {
            let kills = scope.spawn(|| world.kill(40));
            let run = world.run(&["--since", "10m"], |_| {});
            (kills.join(), run)
        });
        names.extend(rest.map_err(|_| anyhow!("the killing panicked"))??);
        names.extend(world.kill(1)?);
        let mut lines = run
            .as_mut()
            .map_err(|error| anyhow!("{error:#}"))?
            .lines_until(names.last().context("a kill")?)?;
        lines.extend(run?.stop()?.0);
        let told: Vec<&str> =
            lines.iter().filter_map(comm).filter(|comm| names.iter().any(|name| name == comm)).collect();
        ensure!(told == names, "told {told:?}, not {names:?}");
        let sources: Vec<&str> = lines
            .iter()
            .filter(|line| text(line, "type") == "oom_kill")
            .map(|line| text(line, "source"))
            .collect();
        let live = sources.iter().position(|source| *source == "ebpf").unwrap_or(sources.len());
        ensure!(sources.iter().skip(live).all(|source| *source == "ebpf"), "mixed: {sources:?}");
    }
    Ok(())
}

/// What a service manager hears, at a path and at an abstract address.
fn service_manager(world: &World) -> Result<()> {
    for abstract_name in [false, true] {
        let dir = Dir::make()?;
        let (address, name) = if abstract_name {
            let name = format!("oomtrace-faults-{}", std::process::id());
            (SocketAddr::from_abstract_name(&name)?, format!("@{name}"))
        } else {
            let path = dir.0.join("notify");
            (SocketAddr::from_pathname(&path)?, path.to_string_lossy().into_owned())
        };
        let socket = UnixDatagram::bind_addr(&address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let hear = || {
            let mut buffer = [0; 512];
            let len = socket.recv(&mut buffer).context("nothing was said")?;
            Ok::<_, anyhow::Error>(
                String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned(),
            )
        };
        let mut run = world.run(&[], |command| {
            command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
        })?;
        let ready = hear()?;
        ensure!(ready.starts_with("READY=1\n"), "{ready:?}");
        let names = world.kill(1)?;
        run.lines_until(names.last().context("a kill")?)?;
        let mut heard = BTreeSet::new();
        wait_for("status and watchdog", || {
            heard.insert(hear()?);
            let told = heard.iter().any(|said| said.starts_with("STATUS=") && said.ends_with("told, 0 lost"));
            Ok((told && heard.contains("WATCHDOG=1")).then_some(()))
        })?;
        // One that is stuck feeds no watchdog.
        run.signal(libc::SIGSTOP)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        while hear().is_ok() {}
        run.signal(libc::SIGCONT)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        ensure!(hear()? == "WATCHDOG=1", "no sign of life after SIGCONT");
        run.stop()?;
        let mut last = hear()?;
        while last == "WATCHDOG=1" {
            last = hear()?;
        }
        ensure!(last == "STOPPING=1", "{last:?}");
    }
    Ok(())
}

/// include/uapi/linux/capability.h
const DAC_READ_SEARCH: u32 = 2;
const SYS_PTRACE: u32 = 19;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Five capabilities are enough, two of them already tell of each kill; what is missing is said in the first line.
fn least_privilege(world: &World) -> Result<()> {
    for keep in [vec![BPF, PERFMON, SYSLOG, DAC_READ_SEARCH, SYS_PTRACE], vec![BPF, PERFMON]] {
        let kept = keep.clone();
        let mut run = world.run(&[], move |command| {
            // SAFETY: system calls only. Root's new program gets what is left in the bounding set.
            unsafe {
                command.pre_exec(move || {
                    for capability in 0..64 {
                        if !kept.contains(&capability) {
                            // Past the kernel's last one this fails, and nothing is left to drop.
                            libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0);
                        }
                    }
                    Ok(())
                });
            }
        })?;
        let status = fs::read_to_string(format!("/proc/{}/status", run.child.id()))?;
        let wanted: u64 = keep.iter().map(|capability| 1u64 << capability).sum();
        let start = match run.line() {
            Ok(start) => start,
            Err(error) => {
                let mut said = String::new();
                run.child.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
                bail!("{error:#}: {said}");
            }
        };
        ensure!(
            status.contains(&format!("CapBnd:\t{wanted:016x}")),
            "capabilities were not dropped: {status}"
        );
        eprintln!("with {keep:?}: {}", start.get("limits").unwrap_or(&Value::Null));
        let names = world.kill(1)?;
        let lines = run.lines_until(names.last().context("a kill")?)?;
        let kill = lines.last().context("no line")?;
        for key in ["/victim/pid", "/victim/memory/anon_rss_bytes", "/victim/cgroup/path", "/oom/scope"] {
            ensure!(kill.pointer(key).is_some(), "no {key}: {kill}");
        }
        let limits = start.get("limits").map(ToString::to_string).unwrap_or_default();
        for (capability, sentence) in
            [(DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"), (SYS_PTRACE, "CAP_SYS_PTRACE")]
        {
            ensure!(
                limits.contains(sentence) != keep.contains(&capability),
                "{sentence} in the start line's limits: {limits}"
            );
        }
        run.stop()?;
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
