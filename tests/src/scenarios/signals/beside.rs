//! Signals beside kills by the OOM killer: neither hides the other.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::signalled;
use crate::counters::wall_clock_ns;
use crate::process::send_signal;
use crate::scenarios::{LIMIT, Outcome};
use crate::session::Session;
use crate::tracer::{Line, Tracer};

/// Kills by the OOM killer, which are never told as those of somebody else.
pub(in crate::scenarios) fn beside_kills(session: &mut Session) -> Result<Outcome> {
    let kills = if session.guest() { 20 } else { 100 };
    let cgroup = session.cgroup(b"for-memory")?;
    cgroup.limit(LIMIT)?;
    let (binary, hook) = session.program();
    let mut all = Tracer::start_with(binary, *hook, &["--signals", "all"])?;
    let released = wall_clock_ns();
    let mut victims = Vec::new();
    for _ in 0..kills {
        let mut hog = session.hog_in(&cgroup, b"hog-for-memory")?;
        hog.grow("anon")?;
        hog.killed()?;
        victims.push(hog.pid());
    }
    // The last one: what came before it was decided before.
    let mut hog = session.hog_in(&cgroup, b"hog-after")?;
    send_signal(hog.pid(), libc::SIGKILL)?;
    hog.killed()?;
    let pid = u64::from(hog.pid());
    let after = all.wait_for("a line for the last one", |lines| signalled(lines, pid).cloned())?;
    let message = after.get("message").and_then(Value::as_str).unwrap_or_default();
    ensure!(!message.contains("NOT out of memory"), "this cgroup was full: {}", after.text);
    for victim in victims {
        session.line_of(victim, released)?;
        let told = signalled(&all.lines(), victim.into()).map(|line| line.text.clone());
        ensure!(told.is_none(), "a victim of the OOM killer: {told:?}");
        let killed =
            |line: &&Line| line.kind() == "oom_kill" && line.number("victim.pid") == Some(victim.into());
        ensure!(all.lines().iter().filter(killed).count() == 1, "no kill of {victim}, or more than one");
    }
    all.stop()?;
    Ok(Outcome::Passed)
}

/// A storm of signals while nobody reads: it fills its own ring, and what is lost of it is told. The kill beside it is not lost.
pub(in crate::scenarios) fn storm(session: &mut Session) -> Result<Outcome> {
    /// More than the ring has room for.
    const SIGNALS: usize = 500;
    let cgroup = session.cgroup(b"storm")?;
    cgroup.limit(LIMIT)?;
    let (binary, hook) = session.program();
    let mut all = Tracer::start_with(binary, *hook, &["--signals", "all"])?;
    let auto = Tracer::start_with(binary, *hook, &["--signals", "auto"])?;
    let mut sender = session.hog(b"hog-storm")?;
    all.freeze(true)?;
    auto.freeze(true)?;
    sender.ask(&format!("signal storm {SIGNALS}"))?;
    let released = wall_clock_ns();
    let mut hog = session.hog_in(&cgroup, b"hog-for-memory")?;
    hog.grow("anon")?;
    hog.killed()?;
    all.freeze(false)?;
    let pid = u64::from(hog.pid());
    let is_kill = |line: &&Line| line.kind() == "oom_kill" && line.number("victim.pid") == Some(pid);
    all.wait_for("the kill beside the storm", |lines| lines.iter().find(is_kill).cloned())?;
    let lost =
        all.wait_for("a lost line", |lines| lines.iter().find(|line| line.kind() == "lost").cloned())?;
    let count = lost.number("count").unwrap_or_default();
    ensure!(
        lost.get("reason") == Some(&json!("signal_ring_full")) && (1..SIGNALS as u64).contains(&count),
        "of {SIGNALS} signals: {}",
        lost.text
    );
    session.line_of(hog.pid(), released)?;
    // All of them within one cgroup: where nobody wants these, they take no room either, and are counted.
    auto.freeze(false)?;
    let lines = auto.stop()?;
    let left_out = lines.last().and_then(|stop| stop.number("signals_left_out")).unwrap_or_default();
    ensure!(left_out >= SIGNALS as u64, "field signals_left_out: of {SIGNALS} signals {left_out}");
    Ok(Outcome::Passed)
}
