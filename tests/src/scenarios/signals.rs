//! Processes that end by a signal which is not the OOM killer's: each way as what it is, and none for who is killed for memory.

mod beside;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub(super) use beside::{beside_kills, storm};

use super::{MIB, Outcome};
use crate::cgroup::{Cgroup, Version};
use crate::containers::expect;
use crate::counters::wall_clock_ns;
use crate::hog::Hog;
use crate::patience::until;
use crate::process::send_signal;
use crate::session::Session;
use crate::tracer::{Line, Tracer};

/// Room for hogs that never grow.
const ROOMY: u64 = 256 * MIB;

/// The stage: two cgroups that are named as Docker's containers are, one beside them, and a tracer that reports every way.
struct Stage {
    one: Cgroup,
    other: Cgroup,
    beside: Cgroup,
    _docker: Cgroup,
    all: Tracer,
    /// Process ids that `--signals auto` reports, and that it does not.
    auto: (Vec<u64>, Vec<u64>),
}

impl Stage {
    fn set(session: &Session) -> Result<Self> {
        let docker = session.cgroup(b"docker")?;
        docker.allow_children()?;
        let (one, other) =
            (docker.child("a".repeat(64).as_bytes())?, docker.child("b".repeat(64).as_bytes())?);
        one.limit(ROOMY)?;
        let beside = session.cgroup(b"beside")?;
        let (binary, hook) = session.program();
        let all = Tracer::start_with(binary, *hook, &["--signals", "all"])?;
        Ok(Self { one, other, beside, _docker: docker, all, auto: (Vec::new(), Vec::new()) })
    }

    /// Waits for the line of a process; `auto`: whether the other tracer must have it too.
    fn line(&mut self, pid: u32, auto: bool) -> Result<Line> {
        let pid = u64::from(pid);
        let (has, lacks) = &mut self.auto;
        if auto { has } else { lacks }.push(pid);
        self.all.wait_for(&format!("a line for the signal to {pid}"), |lines| signalled(lines, pid).cloned())
    }

    /// What the tracer with `--signals auto` has of all that.
    fn check_auto(&self, session: &mut Session) -> Result<()> {
        let (has, lacks) = &self.auto;
        for pid in has {
            session.claim(&format!("a line for the signal to {pid}"), |line| is_of(line, *pid))?;
        }
        let lines = session.tracer().lines();
        for pid in lacks {
            ensure!(signalled(&lines, *pid).is_none(), "--signals auto reports {pid}");
        }
        Ok(())
    }
}

fn is_of(line: &Line, pid: u64) -> bool {
    line.kind() == "signal_kill" && line.number("target.pid") == Some(pid)
}

fn signalled(lines: &[Line], pid: u64) -> Option<&Line> {
    lines.iter().find(|line| is_of(line, pid))
}

fn own_pid() -> u32 {
    std::process::id()
}

fn a_second() {
    // Lines of one cgroup are a second apart.
    std::thread::sleep(Duration::from_millis(1100));
}

pub(super) fn every_way(session: &mut Session) -> Result<Outcome> {
    let mut stage = Stage::set(session)?;
    from_outside(session, &mut stage)?;
    from_inside(session, &mut stage)?;
    from_another_container(session, &mut stage)?;
    to_a_thread(session, &mut stage)?;
    by_its_cgroup(session, &mut stage)?;
    by_a_timeout(&mut stage)?;
    with_its_namespace(session, &mut stage)?;
    by_its_own_limit(session, &mut stage)?;
    in_the_kernels_name(session, &mut stage)?;
    let ended = by_itself(session, &stage)?;
    after_a_sigterm(session, &mut stage)?;
    // The last one: what came before it was decided before.
    first_of_a_namespace(session, &mut stage)?;
    ensure!(signalled(&stage.all.lines(), ended).is_none(), "who ends with exit(137) got no signal");
    stage.check_auto(session)?;
    let lines = stage.all.stop()?;
    let left_out = lines.last().and_then(|stop| stop.number("signals_left_out"));
    ensure!(left_out.is_some(), "field signals_left_out: {:?}", lines.last().map(|stop| &stop.text));
    Ok(Outcome::Passed)
}

fn from_outside(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut hog = session.hog_in(&stage.one, b"hog-outside")?;
    let facts = hog.facts()?;
    send_signal(hog.pid(), libc::SIGKILL)?;
    hog.killed()?;
    let line = stage.line(facts.pid, true)?;
    let place = stage.one.place();
    let executable = std::fs::read_link("/proc/self/exe")?;
    expect(
        &line,
        &[
            ("signal", json!("SIGKILL")),
            ("how", json!("kill")),
            ("processes", json!(1)),
            ("severity", json!("info")),
            ("target.namespace_pid", json!(facts.namespace_pid)),
            ("target.comm", json!("hog-outside")),
            ("target.uid", json!(facts.uid)),
            ("target.cgroup.id", json!(place.id.to_string())),
            ("target.cgroup.path", json!(String::from_utf8_lossy(&place.path))),
            ("sender.pid", json!(own_pid())),
            ("sender.executable", json!(executable)),
            ("sender.container", Value::Null),
            ("killer", json!("other")),
            ("sigterm_before_ns", Value::Null),
            ("cgroup.id", json!(place.id.to_string())),
            ("cgroup.limit_bytes", json!(ROOMY)),
            ("cgroup.events.oom_kill", json!(0)),
            ("container.id", json!("a".repeat(64))),
        ],
    )?;
    let message = line.get("message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains("NOT out of memory"), "field message: {}", line.text);
    a_second();
    Ok(())
}

/// A hog of the cgroup sends it.
fn sent_by(mut sender: Hog, target: &mut Hog) -> Result<u32> {
    sender.ask(&format!("signal send {} {}", target.pid(), libc::SIGKILL))?;
    target.killed()?;
    Ok(sender.pid())
}

fn from_inside(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut target = session.hog_in(&stage.one, b"hog-target")?;
    // It calls itself as a killer of the host does.
    let sender = sent_by(session.hog_in(&stage.one, b"earlyoom")?, &mut target)?;
    let line = stage.line(target.pid(), false)?;
    expect(
        &line,
        &[
            ("killer", json!("inside")),
            ("sender.pid", json!(sender)),
            ("sender.comm", json!("earlyoom")),
            ("sender.container.id", json!("a".repeat(64))),
        ],
    )?;
    a_second();
    Ok(())
}

fn from_another_container(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut target = session.hog_in(&stage.one, b"hog-target")?;
    let sender = sent_by(session.hog_in(&stage.other, b"systemd-oomd")?, &mut target)?;
    let line = stage.line(target.pid(), true)?;
    expect(
        &line,
        &[
            ("how", json!("kill")),
            ("killer", json!("other")),
            ("severity", json!("info")),
            ("sender.pid", json!(sender)),
            ("sender.container.id", json!("b".repeat(64))),
            ("sender.cgroup.id", json!(stage.other.place().id.to_string())),
        ],
    )?;
    a_second();
    Ok(())
}

fn to_a_thread(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut hog = session.hog_in(&stage.one, b"hog-threads")?;
    let thread = hog.go_on_in_thread(false)?;
    // SAFETY: numbers only; the process has not been waited for.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, hog.pid(), thread, libc::SIGKILL) };
    ensure!(sent == 0, "tgkill: {}", std::io::Error::last_os_error());
    hog.killed()?;
    let line = stage.line(hog.pid(), true)?;
    expect(&line, &[("how", json!("tgkill")), ("processes", json!(1)), ("sender.pid", json!(own_pid()))])?;
    a_second();
    Ok(())
}

/// Three processes at once, where the kernel can (v2, from 5.14 on).
fn by_its_cgroup(session: &Session, stage: &mut Stage) -> Result<()> {
    let file = stage.other.file("cgroup.kill");
    if session.hierarchy.version != Version::V2 || !file.exists() {
        return Ok(());
    }
    let hogs: Result<Vec<Hog>> = (0..3).map(|_| session.hog_in(&stage.other, b"hog-together")).collect();
    let mut hogs = hogs?;
    stage.other.write(&file, "1")?;
    for hog in &mut hogs {
        hog.killed()?;
    }
    let id = stage.other.place().id.to_string();
    let line = stage.all.wait_for("a line for cgroup.kill", |lines| {
        let is_it = |line: &&Line| {
            line.get("how") == Some(&json!("cgroup.kill")) && line.get("target.cgroup.id") == Some(&json!(id))
        };
        lines.iter().find(is_it).cloned()
    })?;
    expect(
        &line,
        &[("processes", json!(3)), ("sender.pid", json!(own_pid())), ("container.id", json!("b".repeat(64)))],
    )?;
    let named = line.number("target.pid").unwrap_or_default();
    ensure!(hogs.iter().any(|hog| u64::from(hog.pid()) == named), "none of these: {}", line.text);
    stage.auto.0.push(named);
    Ok(())
}

/// `timeout -s KILL`, in the cgroup of its child.
fn by_a_timeout(stage: &mut Stage) -> Result<()> {
    let procs = stage.beside.procs();
    let script = format!("echo $$ > {}; exec timeout -s KILL 0.3 sleep 60", procs.display());
    let script = match Command::new("timeout").arg("--help").output() {
        Ok(help) if help.stderr.starts_with(b"BusyBox") => script.replace("0.3", "1"),
        _ => script,
    };
    let mut child = Command::new("sh").args(["-c", &script]).spawn().context("start sh")?;
    let id = stage.beside.place().id.to_string();
    let line = stage.all.wait_for("a line for the end of the timeout", |lines| {
        let of =
            |line: &&Line| line.kind() == "signal_kill" && line.get("target.cgroup.id") == Some(&json!(id));
        lines.iter().find(of).cloned()
    })?;
    child.wait()?;
    // Here they are in no container: one cgroup is all that they have in common.
    expect(&line, &[("how", json!("kill")), ("killer", json!("inside")), ("target.comm", json!("sleep"))])?;
    stage.auto.1.extend(line.number("target.pid"));
    a_second();
    Ok(())
}

fn with_its_namespace(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut hog = session.hog_in(&stage.one, b"hog-namespace")?;
    hog.ask("signal namespace-of 3")?;
    let id = stage.one.place().id.to_string();
    let line = stage.all.wait_for("a line for the end of a pid namespace", |lines| {
        let is_it = |line: &&Line| {
            line.get("how") == Some(&json!("pid_namespace_ended"))
                && line.get("target.cgroup.id") == Some(&json!(id))
        };
        lines.iter().find(is_it).cloned()
    })?;
    expect(
        &line,
        &[("processes", json!(3)), ("killer", json!("inside")), ("sender.comm", json!("hog-namespace"))],
    )?;
    stage.auto.1.extend(line.number("target.pid"));
    a_second();
    Ok(())
}

fn by_its_own_limit(session: &Session, stage: &mut Stage) -> Result<()> {
    // There the kernel's own signals cannot be told from the OOM killer's.
    if std::fs::read_to_string("/proc/version")?.contains("PREEMPT_RT") {
        a_second();
        return Ok(());
    }
    let mut hog = session.hog_in(&stage.one, b"hog-busy")?;
    hog.tell("signal processor-time")?;
    hog.killed()?;
    let line = stage.line(hog.pid(), false)?;
    expect(&line, &[("how", json!("kernel")), ("sender", Value::Null), ("killer", Value::Null)])?;
    a_second();
    Ok(())
}

/// A process may say of its own signal that the kernel sent it.
fn in_the_kernels_name(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut hog = session.hog_in(&stage.one, b"hog-forger")?;
    hog.tell("signal as-kernel")?;
    hog.killed()?;
    let line = stage.line(hog.pid(), false)?;
    expect(
        &line,
        &[
            ("how", Value::Null),
            ("missing.how", json!("unknown_value")),
            ("killer", json!("inside")),
            ("sender.pid", json!(hog.pid())),
        ],
    )?;
    a_second();
    Ok(())
}

/// A process that ends as if it were killed.
fn by_itself(session: &Session, stage: &Stage) -> Result<u64> {
    let mut hog = session.hog_in(&stage.one, b"hog-137")?;
    hog.tell("signal exit 137")?;
    until("the end of a hog", || Ok((!hog.is_alive()?).then_some(())))?;
    Ok(hog.pid().into())
}

fn after_a_sigterm(session: &Session, stage: &mut Stage) -> Result<()> {
    const GRACE: Duration = Duration::from_millis(300);
    let mut hog = session.hog_in(&stage.one, b"hog-deaf")?;
    hog.ask("signal ignore-term")?;
    let began = wall_clock_ns();
    send_signal(hog.pid(), libc::SIGTERM)?;
    std::thread::sleep(GRACE);
    send_signal(hog.pid(), libc::SIGKILL)?;
    let most = wall_clock_ns() - began;
    hog.killed()?;
    let line = stage.line(hog.pid(), true)?;
    let before = line.number("sigterm_before_ns").map_or(0, i128::from);
    ensure!(
        (i128::try_from(GRACE.as_nanos())?..=most).contains(&before),
        "field sigterm_before_ns: at most {most}, oomtrace {before}: {}",
        line.text
    );
    expect(&line, &[("sigterm_sender.pid", json!(own_pid())), ("sigterm_sender.uid", json!(0))])?;
    a_second();
    Ok(())
}

/// As a container's own process is ended.
fn first_of_a_namespace(session: &Session, stage: &mut Stage) -> Result<()> {
    let mut hog = session.hog_in(&stage.beside, b"hog-parent")?;
    let child = hog.child(true)?;
    send_signal(child, libc::SIGKILL)?;
    let signal = hog.child_ended_by()?;
    ensure!(signal == libc::SIGKILL, "the child ended by signal {signal}");
    let line = stage.line(child, true)?;
    expect(&line, &[("target.namespace_pid", json!(1)), ("how", json!("kill")), ("container", Value::Null)])?;
    Ok(())
}
