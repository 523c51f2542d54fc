//! A cgroup runs out of memory and the OOM killer ends without a victim.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LIMIT, Outcome, not_applicable};
use crate::cgroup::{Cgroup, Version};
use crate::counters::wall_clock_ns;
use crate::kernel_log::Reports;
use crate::patience::until;
use crate::session::Session;
use crate::tracer::{Line, Tracer};

/// Bytes.
const PAGE: u64 = 4096;

/// Only processes that must not be killed.
pub(super) fn no_killable_process(session: &mut Session) -> Result<Outcome> {
    let cgroup = session.cgroup(b"unkillable")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-unkillable")?;
    hog.ask("adj -1000")?;
    let facts = hog.facts()?;
    // With a system call, which fails. Touching pages would fault for ever.
    let answer = hog.ask(&format!("fill {}", 2 * LIMIT))?;
    let refused = answer.split(' ').next_back().unwrap_or_default();
    ensure!(refused == libc::ENOMEM.to_string(), "the hog could write: {answer}");
    let logged = session.wait_for_log("report without a victim", |reports| {
        reports.nobody.iter().find(|run| run.comm == facts.comm).cloned()
    })?;
    if !sees_runs(session)? {
        // v1 has no file that counts it.
        if session.hierarchy.version == Version::V2 {
            kill_another(session)?;
            let line = memcg_oom(session, &cgroup)?;
            check(&line, "origin", &Value::from("cgroupfs"))?;
            check(&line, "cgroup.limit_bytes", &Value::from(LIMIT))?;
            check(&line, "cgroup.events.oom_kill", &Value::from(0))?;
            ensure!(line.get("outcome").is_none(), "the outcome cannot be known: {}", line.text);
        }
        return Ok(Outcome::Passed);
    }
    let mut line = memcg_oom(session, &cgroup)?;
    // The kernel tries again while there is room, which charges of the processors may give back.
    while line.get("outcome") == Some(&"relieved".into()) {
        let usage = line.number("cgroup.usage_bytes").context("a usage")?;
        ensure!(usage + PAGE <= LIMIT, "nothing was free: {}", line.text);
        line = memcg_oom(session, &cgroup)?;
    }
    check(&line, "outcome", &Value::from("no_killable_process"))?;
    check(&line, "cgroup.limit_bytes", &Value::from(LIMIT))?;
    check(&line, "order", &Value::from(logged.order))?;
    check(&line, "gfp_mask_raw", &Value::from(logged.gfp_mask))?;
    check(&line, "gfp_mask", &Value::from(logged.gfp_names))?;
    check(&line, "trigger.pid", &Value::from(facts.pid))?;
    check(&line, "trigger.comm", &Value::from(String::from_utf8_lossy(&facts.comm)))?;
    Ok(Outcome::Passed)
}

/// The same again and again: a page that the process touches has no room, and it touches it again. A hook wakes the tracer early
/// each time, for nothing, until that is too much. A second tracer says how often it was woken.
pub(super) fn for_ever(session: &mut Session) -> Result<Outcome> {
    /// So often at a time, or the kernel's log is written faster than it is read.
    const RUNS: usize = 10;
    const TIMES: usize = 20;
    if session.hook() == "none" {
        return not_applicable("without a function hook nothing wakes the tracer early");
    }
    let cgroup = session.cgroup(b"unkillable-for-ever")?;
    session.may_run_out_unasked(&cgroup);
    cgroup.limit(LIMIT)?;
    let said = std::env::temp_dir().join(format!("oomtrace-woken-{}", std::process::id()));
    let (binary, hook) = session.program();
    let second = Tracer::start_prepared(binary, *hook, &["--debug"], |command| {
        command.stderr(fs::File::create(&said)?);
        Ok(())
    })?;
    let mut hog = session.hog_in(&cgroup, b"hog-for-ever")?;
    let facts = hog.facts()?;
    let adj = format!("/proc/{}/oom_score_adj", facts.pid);
    fs::write(&adj, "-1000")?;
    let (released, began) = (wall_clock_ns(), Instant::now());
    hog.grow("anon")?;
    let runs = |reports: &Reports| reports.nobody.iter().filter(|run| run.comm == facts.comm).count();
    let mut so_far = 0;
    for _ in 0..TIMES {
        let before = so_far;
        hog.freeze(false)?;
        session.wait_for_log("runs without a victim", |reports| {
            (runs(reports) >= before + RUNS).then_some(())
        })?;
        hog.freeze(true)?;
        so_far = session.wait_for_log("the log", |reports| Some(runs(reports)))?;
    }
    let lasted = began.elapsed();
    fs::write(&adj, facts.oom_score_adj.to_string())?;
    hog.freeze(false)?;
    hog.killed()?;
    second.stop()?;
    let text = fs::read_to_string(&said)?;
    fs::remove_file(&said)?;
    let woken = text.lines().filter(|line| line.ends_with("the reader is woken")).count();
    // It looks at its ring for up to 3 ms each time, and for 30 ms in a second at most.
    let most = 10 * (1 + usize::try_from(lasted.as_millis().div_ceil(1000))?);
    eprintln!("{so_far} runs without a victim in {lasted:?}: woken {woken} times");
    ensure!(
        (1..=most).contains(&woken),
        "of {so_far} runs in {lasted:?} {woken} woke it, not 1 to {most}: {text}"
    );

    let mut expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    if let Some(fired) = &mut expected.fired {
        fired.events_of_this_kill_alone = false;
    }
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// v1: the tasks hang until there is more room or kills are allowed.
pub(super) fn oom_kill_disable(session: &mut Session) -> Result<Outcome> {
    if session.hierarchy.version == Version::V2 {
        return not_applicable("cgroup v2 has no oom_kill_disable");
    }
    let cgroup = session.cgroup(b"disabled")?;
    cgroup.limit(LIMIT)?;
    let control = cgroup.file("memory.oom_control");
    let mut limit = LIMIT;
    cgroup.write(&control, "1")?;
    let mut hog = session.hog_in(&cgroup, b"hog-hanging")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    if sees_runs(session)? {
        let line = memcg_oom(session, &cgroup)?;
        check(&line, "cgroup.limit_bytes", &Value::from(LIMIT))?;
        check(&line, "outcome", &Value::from("kill_disabled"))?;
        check(&line, "trigger.pid", &Value::from(facts.pid))?;
        // After it is woken it finds too little room and waits again: the same hang, which is not reported
        // again.
        for _ in 0..3 {
            limit += PAGE;
            cgroup.limit(limit)?;
            wait_until_it_hangs(&control)?;
        }
    } else {
        wait_until_it_hangs(&control)?;
        kill_another(session)?;
        let line = memcg_oom(session, &cgroup)?;
        check(&line, "origin", &Value::from("cgroupfs"))?;
        check(&line, "outcome", &Value::from("kill_disabled"))?;
    }
    ensure!(hog.is_alive()?, "the hog was killed");
    cgroup.write(&control, "0")?;
    hog.killed()?;
    let mut expected = session.killed_by_limit(facts, &cgroup, (&cgroup, limit), released)?;
    if let Some(fired) = &mut expected.fired {
        fired.events_of_this_kill_alone = false;
    }
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

fn wait_until_it_hangs(control: &Path) -> Result<()> {
    until("a hog that hangs", || Ok(fs::read_to_string(control)?.contains("under_oom 1").then_some(())))
}

/// An event after which oomtrace reads the files, because no hook reported anything.
fn kill_another(session: &mut Session) -> Result<()> {
    let cgroup = session.cgroup(b"another")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-another")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    session.check(&[expected]).map(drop)
}

/// Without a function hook oomtrace cannot see runs without a victim, and its start line must say so.
fn sees_runs(session: &mut Session) -> Result<bool> {
    if session.hook() != "none" {
        return Ok(true);
    }
    if session.hooks_went_silent() {
        // A separate line says it. The session checks that at its end.
        return Ok(false);
    }
    let line = session.tracer().start_line();
    let limits = line.get("limits").and_then(Value::as_array).context("no limits in the start line")?;
    ensure!(!limits.is_empty(), "field limits: expected a sentence on what cannot be seen: {}", line.text);
    Ok(false)
}

fn memcg_oom(session: &mut Session, cgroup: &Cgroup) -> Result<Line> {
    let id = cgroup.place().id.to_string();
    let line = session.claim("a memcg_oom line", |line| {
        line.kind() == "memcg_oom" && line.get("cgroup.id").and_then(Value::as_str) == Some(&*id)
    })?;
    check(&line, "cgroup.path", &Value::from(String::from_utf8_lossy(&cgroup.place().path)))?;
    Ok(line)
}

fn check(line: &Line, field: &str, truth: &Value) -> Result<()> {
    let told = line.get(field);
    ensure!(
        told == Some(truth),
        "memcg_oom field {field}: expected {truth}, oomtrace {told:?}: {}",
        line.text
    );
    Ok(())
}
