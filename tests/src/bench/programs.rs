//! What oomtrace's programs in the kernel cost: one at a kill, and one that walks over all memory cgroups.
//!
//! Each figure is measured in turns with what it is compared with, so that other work of the machine affects both.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use oomtrace_tests::cgroup::{Cgroup, Hierarchy};
use oomtrace_tests::walk::Walk;

use crate::figures::median;
use crate::kills::Kills;
use crate::ratio::Ratio;
use crate::subject::Subject;
use crate::{Arguments, cost, host, progress};

/// How many cgroups there are beside those of the host.
const CROWDS: [u32; 3] = [100, 1_000, 10_000];
/// What a walk reads, as files of v2 and of v1. Those that the kernel does not have are left out.
const FILES: [&str; 12] = [
    "memory.current",
    "memory.max",
    "memory.peak",
    "memory.swap.current",
    "memory.events",
    "memory.usage_in_bytes",
    "memory.limit_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.memsw.usage_in_bytes",
    "memory.failcnt",
    "memory.oom_control",
    "memory.stat",
];

/// One figure in turns, and what it is compared with.
struct Row {
    name: String,
    ours: Vec<f64>,
    other: &'static str,
    theirs: Vec<f64>,
}

impl Row {
    fn markdown(&self) -> Result<String> {
        let middle = |values: &[f64]| median(values.to_vec()).context("no turn");
        let ratio = Ratio::of(&self.ours, &self.theirs).context("a figure of 0")?;
        let (ours, theirs) = (middle(&self.ours)?, middle(&self.theirs)?);
        Ok(format!("| {} | {ours:.0} | {} {theirs:.0} · {ratio} |", self.name, self.other))
    }
}

/// Measures, and prints the table.
///
/// # Errors
/// If something cannot be measured.
pub fn measure(
    arguments: &Arguments,
    hierarchy: &Hierarchy,
    parent: &Cgroup,
    out: &mut impl Write,
) -> Result<()> {
    let mut rows = at_a_kill(arguments, parent)?;
    for count in CROWDS {
        rows.push(walk(arguments, hierarchy, parent, count)?);
    }
    writeln!(out, "{}", host::description()?)?;
    writeln!(
        out,
        "{} turns: medians over the turns; behind what is compared, oomtrace's ratio to it, and its 95 % interval.\n",
        arguments.rounds
    )?;
    writeln!(out, "| | oomtrace | compared with |\n|---|--:|--:|")?;
    for row in rows {
        writeln!(out, "{}", row.markdown()?)?;
    }
    out.flush().context("print the table")
}

/// ns of the program at `mark_victim`, against the minimal tracer and perhaps another build.
fn at_a_kill(arguments: &Arguments, parent: &Cgroup) -> Result<Vec<Row>> {
    let mut subjects = vec![Subject::Oomtrace(arguments.oomtrace.clone()), Subject::Floor];
    subjects.extend(arguments.against.clone().map(Subject::Before));
    let mut kills = Kills::new(parent);
    let mut costs = vec![Vec::new(); subjects.len()];
    for round in 1..=arguments.rounds {
        progress(&format!("round {round} of {}: the program at a kill", arguments.rounds));
        for (subject, costs) in subjects.iter().zip(&mut costs) {
            let none: [&OsStr; 0] = [];
            let runs = cost::programs(subject, &mut kills, &none)?;
            let runs = runs.get("mark_victim").context("no program at mark_victim")?;
            let ns = runs.ns.checked_div(runs.count).context("it did not run")?;
            #[expect(clippy::cast_precision_loss, reason = "a time far below 2^53 ns")]
            costs.push(ns as f64);
        }
    }
    let mut costs = costs.into_iter();
    let ours = costs.next().context("no figures")?;
    let row = |(subject, theirs): (&Subject, Vec<f64>)| Row {
        name: "BPF at `mark_victim`, ns a run".to_owned(),
        ours: ours.clone(),
        other: subject.name(),
        theirs,
    };
    Ok(subjects.iter().skip(1).zip(costs).map(row).collect())
}

/// µs of a walk while there are `count` cgroups more, against reading the files.
fn walk(arguments: &Arguments, hierarchy: &Hierarchy, parent: &Cgroup, count: u32) -> Result<Row> {
    progress(&format!("{count} cgroups"));
    let crowd = parent.child(b"walked")?;
    crowd.allow_children()?;
    let made: Vec<Cgroup> =
        (0..count).map(|number| crowd.child(format!("empty-{number}").as_bytes())).collect::<Result<_>>()?;
    host::pause(Duration::from_secs(2))?;
    let (mut ours, mut theirs, mut read) = (Vec::new(), Vec::new(), (0, 0));
    for round in 1..=arguments.rounds {
        progress(&format!("round {round} of {}: walks over {count} cgroups", arguments.rounds));
        host::pause(Duration::from_millis(200))?;
        let walk = Walk::by(&arguments.oomtrace)?;
        let dirs = directories(&hierarchy.mount);
        let began = Instant::now();
        dirs.iter().for_each(|dir| read_files(dir));
        #[expect(clippy::cast_precision_loss, reason = "a time far below 2^53 µs")]
        ours.push(walk.took_us as f64);
        theirs.push(began.elapsed().as_secs_f64() * 1e6);
        read = (walk.cgroups, dirs.len());
    }
    drop(made);
    let (walked, with_files) = read;
    ensure!(walked >= u64::from(count), "only {walked} cgroups were walked over");
    let name = format!("a walk over {walked} cgroups, µs (files: of {with_files})");
    Ok(Row { name, ours, other: "files", theirs })
}

/// A cgroup and all below it.
fn directories(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut at = 0;
    while let Some(dir) = found.get(at).cloned() {
        at += 1;
        // Another program of this host may have removed it since.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Opens, reads and closes each file.
fn read_files(dir: &Path) {
    let mut text = [0; 8192];
    for name in FILES {
        let Ok(mut file) = File::open(dir.join(name)) else { continue };
        // One that was removed since says nothing.
        let _length = file.read(&mut text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_row_has_what_it_is_compared_with() {
        let row = Row { name: "x".to_owned(), ours: vec![3.0; 5], other: "files", theirs: vec![6.0; 5] };
        assert_eq!(row.markdown().unwrap(), "| x | 3 | files 6 · 0.50 (0.50–0.50) |");
        let none = Row { theirs: vec![0.0], ..row };
        assert!(none.markdown().is_err());
    }
}
