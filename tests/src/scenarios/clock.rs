//! The clock is set while a kill waits to be reported. Only in a guest.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LIMIT, Outcome};
use crate::compare::moment;
use crate::counters::wall_clock_ns;
use crate::process::send_signal;
use crate::session::{Session, is_guest};
use crate::tracer::at;

/// The size of the step, in seconds.
const STEP: i64 = 3600;

/// A step of the clock. A drop reverses it.
struct Stepped(i64);

impl Stepped {
    fn by(seconds: i64) -> Result<Self> {
        ensure!(is_guest(), "only in a guest");
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a timespec that is alive through both calls.
        let set = unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
            time.tv_sec += seconds;
            libc::clock_settime(libc::CLOCK_REALTIME, &raw const time)
        };
        ensure!(set == 0, "set the clock: {}", std::io::Error::last_os_error());
        Ok(Self(seconds))
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // The guest ends soon anyway.
        let _ignored = Self::by(-self.0).map(std::mem::forget);
    }
}

/// The victim's thread, and the clock's times between which it was killed.
type Killed = (u32, [i128; 2]);

fn kill(session: &mut Session, name: &str) -> Result<Killed> {
    let cgroup = session.cgroup(name.as_bytes())?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-clock")?;
    let before = wall_clock_ns();
    hog.grow("anon")?;
    hog.killed()?;
    let after = wall_clock_ns();
    let tid = hog.pid();
    session.claim("a line of the kill", |line| {
        line.kind() == "oom_kill" && line.number("victim.tid") == Some(tid.into())
    })?;
    Ok((tid, [before, after]))
}

/// The output of a second tracer is not read, so kills from before and after the step wait in its ring.
pub(super) fn set_while_a_kill_waits(session: &mut Session) -> Result<Outcome> {
    let (binary, hook) = session.program();
    let mut command = Command::new(binary);
    command.args(["run", "-o", "json", "--hook", hook.word()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tracer = command.spawn().context("start a second tracer")?;
    let stdout = tracer.stdout.take().context("no stdout")?;
    // Room for a line or two. SAFETY: takes a descriptor of ours and a number.
    unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    let mut lines = BufReader::new(stdout);
    let mut next = || -> Result<Value> {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("a line: {line:?}"))
    };
    let start = next()?;
    ensure!(start.get("type") == Some(&"start".into()), "no start line: {start}");

    let mut kills = Vec::new();
    for number in 0..8 {
        kills.push(kill(session, &format!("clock-before-{number}"))?);
    }
    // The tracer samples the clock when it is woken, not when it writes.
    std::thread::sleep(Duration::from_secs(1));
    let step = Stepped::by(STEP)?;
    std::thread::sleep(Duration::from_secs(1));
    for number in 0..2 {
        kills.push(kill(session, &format!("clock-after-{number}"))?);
    }
    for (tid, [before, after]) in kills {
        let line = loop {
            let line = next()?;
            if at(&line, "victim.tid").and_then(Value::as_u64) == Some(tid.into()) {
                break line;
            }
        };
        let time = line.get("time").and_then(Value::as_str).and_then(moment).context("no time")?;
        ensure!(
            (before..=after).contains(&time),
            "field time: killed in {before}..{after}, not {time}: {line}"
        );
        let missing = line.get("missing").map(Value::to_string).unwrap_or_default();
        ensure!(!missing.contains("clock_set"), "the clock at that time is not known: {line}");
    }
    drop(step);
    send_signal(tracer.id(), libc::SIGTERM)?;
    drop(lines);
    tracer.wait()?;
    Ok(Outcome::Passed)
}
