//! How late kills are reported in a guest whose kernel accepts function hooks, also kills because the whole
//! machine ran out.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::counters::available_bytes;
use oomtrace_tests::hog::Hog;
use oomtrace_tests::session::is_guest;

use crate::figures::{Figures, Measured, Turn};
use crate::kills::Kills;
use crate::marks::Marks;
use crate::subject::{self, Running, Subject};
use crate::turns::order;
use crate::{Arguments, cost, progress};

/// Memory that a victim can use before the machine runs out: a larger part would only take longer.
const LEFT_BYTES: u64 = 64 << 20;
/// How long the line of a kill may take before another kill is tried: a tracer may not be attached yet.
const LATE: Duration = Duration::from_secs(3);
/// How many kills are tried.
const TRIES: usize = 40;

/// Measures every tracer.
pub fn measure(arguments: &Arguments, subjects: &[Subject], parent: &Cgroup) -> Result<Figures> {
    ensure!(is_guest(), "--guest: only a guest may run out of memory as a whole");
    let marks = Marks::follow()?;
    let mut kills = Kills::new(parent);
    let mut all: Vec<Measured> = subjects.iter().map(|subject| Measured::new(subject.name())).collect();
    let per_turn = arguments.kills.div_ceil(arguments.rounds);
    for round in 1..=arguments.rounds {
        for index in order(subjects.len(), round) {
            let (Some(subject), Some(measured)) = (subjects.get(index), all.get_mut(index)) else { continue };
            progress(&format!("round {round} of {}: {per_turn} kills, {}", arguments.rounds, subject.name()));
            measured.turns.push(turn(subject, &mut kills, &marks, per_turn)?);
        }
    }
    Ok(Figures { measured: all, pipe: subject::pipe_cost()?, idle_seconds: 0, has_aims: false })
}

/// One turn of a tracer: so many kills of each kind.
fn turn(subject: &Subject, kills: &mut Kills<'_>, marks: &Marks, count: u32) -> Result<Turn> {
    let mut running = subject.start(&[])?;
    attached(&running, kills, marks)?;
    let mut turn = Turn { attached: running.attached(), ..Turn::default() };
    for _ in 0..count {
        turn.latencies.push(latency(&running, marks, kills.one()?)?);
    }
    turn.memory = cost::memory(running.pid())?;
    let _filler = fill()?;
    for _ in 0..count {
        turn.host_wide.push(latency(&running, marks, kills.one_host_wide()?)?);
    }
    running.stop()?;
    Ok(turn)
}

/// Waits until a kill is reported, because bpftrace does not say that it is attached. That kill is not measured, for any tracer.
fn attached(running: &Running, kills: &mut Kills<'_>, marks: &Marks) -> Result<()> {
    for _ in 0..TRIES {
        let pid = kills.one()?;
        marks.of(pid)?;
        if running.reports_within(LATE, pid) {
            return Ok(());
        }
    }
    bail!("none of {TRIES} kills was reported")
}

/// ns from the kernel's mark of this victim until the line was read.
fn latency(running: &Running, marks: &Marks, pid: u32) -> Result<i128> {
    Ok(running.reported_at(pid)? - marks.of(pid)?)
}

/// A process that is never a victim and holds nearly all memory.
fn fill() -> Result<Hog> {
    let mut filler = Hog::start()?;
    filler.ask("adj -1000")?;
    filler.hold(available_bytes()?.saturating_sub(LEFT_BYTES))?;
    Ok(filler)
}
