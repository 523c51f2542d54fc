//! The order of the measurements.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::Result;
use oomtrace_tests::cgroup::Cgroup;

use crate::figures::{Figures, Measured, Turn};
use crate::kills::Kills;
use crate::replay::Recording;
use crate::signals::Signals;
use crate::subject::{self, Subject};
use crate::{Arguments, cost, host, progress};

/// Measures every tracer.
pub fn measure(arguments: &Arguments, subjects: &[Subject], parent: &Cgroup) -> Result<Figures> {
    let mut kills = Kills::new(parent);
    let mut all: Vec<Measured> = subjects.iter().map(|subject| Measured::new(subject.name())).collect();
    let mut recordings = Vec::new();
    for (subject, measured) in subjects.iter().zip(&mut all) {
        progress(&format!("BPF run times, {}", subject.name()));
        let Some(program) = subject.oomtrace() else {
            // bpftrace uses no raw tracepoint, so the kernel has no such count of it.
            if matches!(subject, Subject::Floor) {
                measured.programs = cost::programs(subject, &mut kills, &[])?;
            }
            recordings.push(None);
            continue;
        };
        host::drop_from_page_cache(program)?;
        let mut recording = Recording::new(subject.name())?;
        let options = [OsStr::new("--record"), recording.path().as_os_str()];
        measured.programs = cost::programs(subject, &mut kills, &options)?;
        recording.repeat(arguments.records)?;
        recordings.push(Some(recording));
    }
    let per_turn = arguments.kills.div_ceil(arguments.rounds);
    for round in 1..=arguments.rounds {
        for index in order(subjects.len(), round) {
            let (Some(subject), Some(measured)) = (subjects.get(index), all.get_mut(index)) else { continue };
            progress(&format!("round {round} of {}: {per_turn} kills, {}", arguments.rounds, subject.name()));
            let idle = (round == 1).then_some(Duration::from_secs(arguments.idle));
            let mut turn = turn(subject, &mut kills, per_turn, idle)?;
            if let (Some(path), Some(Some(recording))) = (subject.oomtrace(), recordings.get(index)) {
                turn.lines_per_second = Some(recording.lines_per_second(path)?);
            }
            measured.turns.push(turn);
        }
    }
    for (index, (subject, measured)) in subjects.iter().zip(&mut all).enumerate() {
        let (Some(path), Some(Some(recording))) = (subject.oomtrace(), recordings.get(index)) else {
            continue;
        };
        progress(&format!(
            "system calls, and a start with {} cgroups, {}",
            arguments.cgroups,
            subject.name()
        ));
        // If the kernel has no such count, this figure is missing.
        measured.syscalls_per_line =
            recording.syscalls_per_line(path).inspect_err(|error| progress(&format!("{error:#}"))).ok();
        measured.crowd = Some(cost::crowd(subject, parent, arguments.cgroups)?);
    }
    Ok(Figures { measured: all, pipe: subject::pipe_cost()?, idle_seconds: arguments.idle, has_aims: true })
}

/// The order of the tracers in a round: another one comes first in each.
pub fn order(count: usize, round: u32) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..count).rev().collect() } else { (0..count).collect() }
}

/// One turn of a tracer, from its start to its end.
fn turn(subject: &Subject, kills: &mut Kills<'_>, count: u32, idle: Option<Duration>) -> Result<Turn> {
    let without = Signals::measure()?;
    let mut running = subject.start(&[])?;
    host::pause(Duration::from_secs(1))?;
    let mut turn = Turn { attached: running.attached(), ..Turn::default() };
    turn.signals = Some((Signals::measure()?, without));
    turn.latencies = kills.latencies(&running, count)?;
    turn.memory = cost::memory(running.pid())?;
    if let Some(idle) = idle {
        progress(&format!("  {} s without a kill", idle.as_secs()));
        let before = cost::switches(running.pid())?;
        host::pause(idle)?;
        turn.wakeups = Some(cost::switches(running.pid())?.saturating_sub(before));
    }
    running.stop()?;
    Ok(turn)
}
