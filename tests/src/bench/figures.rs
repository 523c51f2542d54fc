//! The figures, and the table they make.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cost::{Crowd, Memory, ProgramRuns};
use crate::host;
use crate::subject::Subject;

/// One round of one tracer.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From before exec.
    pub attached: Duration,
    /// ns, one a kill.
    pub latencies: Vec<i128>,
    /// After the kills.
    pub memory: Memory,
    /// Without a kill.
    pub wakeups: Option<u64>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Figures {
    oomtrace: Vec<Sample>,
    bpftrace: Vec<Sample>,
    /// By tracepoint.
    pub programs: BTreeMap<String, ProgramRuns>,
    /// Decode to write.
    pub lines_per_second: Option<f64>,
    /// ns that the reader itself takes.
    pub pipe: Vec<i128>,
    /// Among many cgroups.
    pub crowd: Option<Crowd>,
}

impl Figures {
    /// The rounds of a tracer.
    pub fn of(&mut self, subject: &Subject) -> &mut Vec<Sample> {
        match subject {
            Subject::Oomtrace(_) => &mut self.oomtrace,
            Subject::Bpftrace => &mut self.bpftrace,
        }
    }

    /// As Markdown.
    pub fn print(&self, to: &mut impl Write, idle_seconds: u64) -> Result<()> {
        let (ours, theirs) = (Column(&self.oomtrace), Column(&self.bpftrace));
        let kills = self.oomtrace.iter().map(|sample| sample.latencies.len()).sum::<usize>();
        writeln!(to, "{}", host::description()?)?;
        writeln!(to, "{kills} kills for each, in {} turns: medians over the turns.\n", self.oomtrace.len())?;
        writeln!(to, "| | oomtrace | bpftrace | ratio | aim |")?;
        writeln!(to, "|---|--:|--:|--:|--:|")?;
        let mut row = |what: &str, of: &dyn Fn(&Column<'_>) -> Option<f64>, digits: usize, aim: &str| {
            let (ours, theirs) = (of(&ours), of(&theirs));
            let ratio = ours.zip(theirs).filter(|(_, theirs)| *theirs > 0.0);
            let ratio = ratio.map_or_else(String::new, |(ours, theirs)| format!("{:.2}", ours / theirs));
            let (ours, theirs) = (cell(ours, digits), cell(theirs, digits));
            writeln!(to, "| {what} | {ours} | {theirs} | {ratio} | {aim} |")
        };
        row("kill → line read, p50, µs", &|column| column.latency(50), 0, "≤ 60")?;
        row("kill → line read, p99, µs", &|column| column.latency(99), 0, "≤ 150")?;
        row("exec → attached, ms", &|column| column.median(|s| s.attached.as_secs_f64() * 1e3), 1, "≤ 40")?;
        row("memory (VmRSS), MiB", &|column| column.median(|s| mib(s.memory.now)), 1, "≤ 5")?;
        row("peak (VmHWM), MiB", &|column| column.median(|s| mib(s.memory.peak)), 1, "")?;
        let wakeups = format!("wakeups in {idle_seconds} s without a kill");
        row(&wakeups, &|column| column.wakeups(), 0, "0")?;
        self.alone(to)
    }

    /// What has nothing beside it.
    fn alone(&self, to: &mut impl Write) -> Result<()> {
        for (tracepoint, runs) in &self.programs {
            if let Some(each) = runs.ns.checked_div(runs.count) {
                writeln!(to, "| BPF at `{tracepoint}`, ns a run ({} runs) | {each} | | | |", runs.count)?;
            }
        }
        if let Some(lines) = self.lines_per_second {
            writeln!(to, "| recorded kill → line, lines/s | {lines:.0} | | | |")?;
        }
        if let Some(crowd) = self.crowd {
            let (ours, theirs) = (ms(crowd.attached), ms(crowd.other_attached));
            let ratio = ours / theirs;
            let many = crowd.cgroups;
            writeln!(to, "| {many} cgroups: exec → attached, ms | {ours:.1} | {theirs:.1} | {ratio:.2} | |")?;
            writeln!(to, "| {many} cgroups: exec → all known, ms | {:.1} | | | |", ms(crowd.settled))?;
            writeln!(to, "| {many} cgroups: memory, MiB | {:.1} | | | |", mib(crowd.memory.now))?;
        }
        let pipe = cell(percentile(&self.pipe, 50), 0);
        let late = cell(percentile(&self.pipe, 99), 0);
        writeln!(to, "| of which write → read of the pipe, p50 / p99, µs | {pipe} / {late} | | | |")?;
        to.flush().context("print the table")
    }
}

/// The rounds of one tracer.
struct Column<'a>(&'a [Sample]);

impl Column<'_> {
    fn latency(&self, percent: usize) -> Option<f64> {
        median(self.0.iter().filter_map(|sample| percentile(&sample.latencies, percent)).collect())
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.0.iter().map(of).collect())
    }

    fn wakeups(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a small count, for people")]
        self.0.iter().find_map(|sample| sample.wakeups).map(|wakeups| wakeups as f64)
    }
}

/// µs, of times in ns; the largest of those that so many percent do not exceed.
fn percentile(ns: &[i128], percent: usize) -> Option<f64> {
    let mut sorted = ns.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "a time far below 2^53 ns")]
    sorted.get(rank).map(|ns| *ns as f64 / 1e3)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((upper + values.get(middle.checked_sub(1)?)?) / 2.0)
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a process, for people")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
