//! The figures, and their table.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cost::{Crowd, Memory, ProgramRuns};
use crate::host;
use crate::ratio::Ratio;
use crate::signals::Signals;

/// A build counts as worse if a figure is certainly worse by more than this factor.
const WORSE: f64 = 1.05;

/// One turn of one tracer.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Measured from before exec.
    pub attached: Option<Duration>,
    /// In ns, one for each kill.
    pub latencies: Vec<i128>,
    /// The same of kills because the whole machine ran out, which only a guest may do.
    pub host_wide: Vec<i128>,
    /// After the kills.
    pub memory: Memory,
    /// Without a kill.
    pub wakeups: Option<u64>,
    /// What signals cost with the tracer, and without it just before.
    pub signals: Option<(Signals, Signals)>,
    /// From its replay.
    pub lines_per_second: Option<f64>,
}

/// All measurements of one tracer.
#[derive(Debug)]
pub struct Measured {
    name: &'static str,
    /// In the order in which they ran.
    pub turns: Vec<Turn>,
    /// By tracepoint.
    pub programs: BTreeMap<String, ProgramRuns>,
    /// From its replay.
    pub syscalls_per_line: Option<f64>,
    /// With many cgroups.
    pub crowd: Option<Crowd>,
}

impl Measured {
    /// No measurements yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, turns: Vec::new(), programs: BTreeMap::new(), syscalls_per_line: None, crowd: None }
    }
}

/// All measurements.
#[derive(Debug)]
pub struct Figures {
    /// oomtrace comes first.
    pub measured: Vec<Measured>,
    /// ns that the reader itself needs.
    pub pipe: Vec<i128>,
    /// How long wakeups were counted.
    pub idle_seconds: u64,
    /// Whether the aims are for this machine: an emulated one meets none.
    pub has_aims: bool,
}

/// A row: name, aim, digits, which direction is better, and values, one for each turn or one in all.
struct Row {
    name: String,
    aim: &'static str,
    digits: usize,
    more_is_better: bool,
    values: Vec<Vec<f64>>,
}

impl Figures {
    fn row(&self, name: &str, digits: usize, aim: &'static str, of: impl Fn(&Measured) -> Vec<f64>) -> Row {
        let values = self.measured.iter().map(of).collect();
        Row { name: name.to_owned(), aim, digits, more_is_better: false, values }
    }

    /// A row with one value for each turn.
    fn turns(&self, name: &str, digits: usize, aim: &'static str, of: impl Fn(&Turn) -> Option<f64>) -> Row {
        self.row(name, digits, aim, |measured| measured.turns.iter().filter_map(&of).collect())
    }

    fn rows(&self) -> Vec<Row> {
        let wakeups = format!("wakeups in {} s without a kill", self.idle_seconds);
        let mut rows = self.latency_rows("kill", |turn| &turn.latencies);
        rows.extend(self.latency_rows("host-wide kill", |turn| &turn.host_wide));
        rows.extend([
            self.turns("exec → attached, ms", 1, "≤ 20", |turn| turn.attached.map(ms)),
            self.turns("memory (VmRSS), MiB", 1, "≤ 5", |turn| Some(mib(turn.memory.now))),
            self.turns("peak (VmHWM), MiB", 1, "≤ 8", |turn| Some(mib(turn.memory.peak))),
            self.turns(&wakeups, 0, "≤ 6 a minute", |turn| turn.wakeups.map(count)),
        ]);
        rows.extend(self.signal_rows());
        let tracepoints: BTreeSet<&String> =
            self.measured.iter().flat_map(|one| one.programs.keys()).collect();
        rows.extend(tracepoints.into_iter().map(|tracepoint| {
            let aim = if tracepoint == "mark_victim" { "≤ 8000" } else { "" };
            self.row(&format!("BPF at `{tracepoint}`, ns a run"), 0, aim, |measured| {
                let runs = measured.programs.get(tracepoint);
                runs.and_then(|runs| runs.ns.checked_div(runs.count)).map(count).into_iter().collect()
            })
        }));
        let lines =
            self.turns("recorded kill → line, lines/s", 0, "≥ 300000", |turn| turn.lines_per_second);
        rows.push(Row { more_is_better: true, ..lines });
        rows.push(self.row("system calls a line of replay", 1, "≤ 2", |measured| {
            measured.syscalls_per_line.into_iter().collect()
        }));
        rows.extend(self.crowd_rows());
        rows.retain(|row| row.values.first().is_some_and(|values| !values.is_empty()));
        rows
    }

    fn latency_rows(&self, kill: &str, of: fn(&Turn) -> &Vec<i128>) -> Vec<Row> {
        let at = |percent| move |turn: &Turn| percentile(of(turn), percent);
        let worst = self.row(&format!("{kill} → line read, worst, µs"), 0, "", |measured| {
            measured.turns.iter().filter_map(at(100)).max_by(f64::total_cmp).into_iter().collect()
        });
        vec![
            self.turns(&format!("{kill} → line read, p50, µs"), 0, "", at(50)),
            self.turns(&format!("{kill} → line read, p99, µs"), 0, "", at(99)),
            worst,
        ]
    }

    fn signal_rows(&self) -> [Row; 4] {
        let more = |of: fn(&Signals) -> f64| {
            move |turn: &Turn| {
                let (with, without) = turn.signals.as_ref()?;
                Some((of(with) - of(without)).max(0.0))
            }
        };
        let times = |of: fn(&Signals) -> f64| {
            move |turn: &Turn| {
                let (with, without) = turn.signals.as_ref()?;
                (of(without) > 0.0).then(|| of(with) / of(without))
            }
        };
        let (ignored, deadly) = (|cost: &Signals| cost.ignored, |cost: &Signals| cost.deadly);
        [
            self.turns("a signal, ns more than without", 0, "≤ 1000", more(ignored)),
            self.turns("a signal, times that without", 2, "", times(ignored)),
            self.turns("a SIGKILL, ns more than without", 0, "", more(deadly)),
            self.turns("a SIGKILL, times that without", 2, "", times(deadly)),
        ]
    }

    fn crowd_rows(&self) -> Vec<Row> {
        let Some(cgroups) =
            self.measured.iter().find_map(|measured| measured.crowd).map(|crowd| crowd.cgroups)
        else {
            return Vec::new();
        };
        let row = |what: &str, of: fn(Crowd) -> f64| {
            self.row(&format!("{cgroups} cgroups: {what}"), 1, "", |one| {
                one.crowd.map(of).into_iter().collect()
            })
        };
        vec![
            row("exec → attached, ms", |crowd| ms(crowd.attached)),
            row("exec → all known, ms", |crowd| ms(crowd.settled)),
            row("memory, MiB", |crowd| mib(crowd.memory.now)),
        ]
    }

    /// As Markdown.
    pub fn print(&self, to: &mut impl Write) -> Result<()> {
        let turns = self.measured.first().map_or(0, |measured| measured.turns.len());
        let kills = self
            .measured
            .first()
            .map_or(0, |measured| measured.turns.iter().map(|turn| turn.latencies.len()).sum::<usize>());
        writeln!(to, "{}", host::description()?)?;
        writeln!(
            to,
            "{kills} kills for each, in {turns} turns: medians over the turns; behind them oomtrace's ratio to it, and its 95 % interval.\n"
        )?;
        let mut heads: Vec<&str> = self.measured.iter().map(|measured| measured.name).collect();
        heads.extend(self.has_aims.then_some("aim"));
        writeln!(to, "| | {} |", heads.join(" | "))?;
        writeln!(to, "|---|{}", "--:|".repeat(heads.len()))?;
        for row in self.rows() {
            writeln!(to, "{}", row.markdown(self.has_aims))?;
        }
        let (middle, late) = (percentile(&self.pipe, 50), percentile(&self.pipe, 99));
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"));
        writeln!(
            to,
            "\nOf a line's way, the pipe from write to read takes {} µs (p99 {}).",
            cell(middle),
            cell(late)
        )?;
        to.flush().context("print the table")
    }

    /// The rows in which oomtrace is certainly worse than the earlier build.
    pub fn slower(&self) -> Vec<String> {
        let Some(before) = self.measured.iter().position(|measured| measured.name == "before") else {
            return Vec::new();
        };
        let rows = self.rows();
        let worse = |row: &&Row| {
            row.ratio(before).is_some_and(|ratio| {
                if row.more_is_better { ratio.inverse() } else { ratio }.lies_above(WORSE)
            })
        };
        rows.iter().filter(worse).map(|row| row.name.clone()).collect()
    }
}

impl Row {
    /// The ratio of oomtrace's values to another's.
    fn ratio(&self, other: usize) -> Option<Ratio> {
        Ratio::of(self.values.first()?, self.values.get(other)?)
    }

    fn markdown(&self, with_aim: bool) -> String {
        let cells = self.values.iter().enumerate().map(|(index, values)| {
            let Some(middle) = median(values.clone()) else { return String::new() };
            let ratio = if index == 0 { None } else { self.ratio(index) };
            let ratio = ratio.map_or_else(String::new, |ratio| format!(" · {ratio}"));
            format!("{middle:.*}{ratio}", self.digits)
        });
        let cells: Vec<String> = cells.chain(with_aim.then(|| self.aim.to_owned())).collect();
        format!("| {} | {} |", self.name, cells.join(" | "))
    }
}

/// In µs, from times in ns: the smallest time that `percent` of them do not exceed.
pub fn percentile(ns: &[i128], percent: usize) -> Option<f64> {
    let mut sorted = ns.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "a time far below 2^53 ns")]
    sorted.get(rank).map(|ns| *ns as f64 / 1e3)
}

/// The middle of them; between the two in the middle if they are even in number.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((upper + values.get(middle.checked_sub(1)?)?) / 2.0)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a process, for people")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53, for people")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(more_is_better: bool, ours: f64, before: f64) -> Row {
        let values = vec![vec![ours; 6], vec![before; 6], Vec::new()];
        Row { name: "x".to_owned(), aim: "≤ 2", digits: 1, more_is_better, values }
    }

    #[test]
    fn a_row_has_each_tracer_and_its_ratio() {
        assert_eq!(row(false, 3.0, 2.0).markdown(true), "| x | 3.0 | 2.0 · 1.50 (1.50–1.50) |  | ≤ 2 |");
        assert_eq!(row(false, 3.0, 2.0).markdown(false), "| x | 3.0 | 2.0 · 1.50 (1.50–1.50) |  |");
    }

    #[test]
    fn percentiles_and_the_worst() {
        let ns: Vec<i128> = (1..=100).map(|value| value * 1000).collect();
        assert_eq!(
            [50, 99, 100].map(|percent| percentile(&ns, percent)),
            [Some(50.0), Some(99.0), Some(100.0)]
        );
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn worse_is_more_of_what_costs_and_less_of_what_is_done() {
        let turn = |attached, lines| Turn {
            attached: Some(Duration::from_millis(attached)),
            lines_per_second: Some(lines),
            ..Turn::default()
        };
        let measured = |name, turn: Turn| Measured { turns: vec![turn; 6], ..Measured::new(name) };
        let slower = |ours, before| {
            let measured = vec![measured("oomtrace", ours), measured("before", before)];
            Figures { measured, pipe: Vec::new(), idle_seconds: 30, has_aims: true }.slower()
        };
        assert_eq!(slower(turn(20, 1000.0), turn(20, 1000.0)), [""; 0]);
        assert_eq!(slower(turn(22, 1000.0), turn(20, 1000.0)), ["exec → attached, ms"]);
        assert_eq!(slower(turn(20, 900.0), turn(20, 1000.0)), ["recorded kill → line, lines/s"]);
        assert_eq!(slower(turn(18, 1100.0), turn(20, 1000.0)), [""; 0]);
    }
}
