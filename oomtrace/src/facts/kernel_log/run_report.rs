//! What the kernel's report of one run says of the memory and the processes, before it kills: the lines between
//! `Memory cgroup stats for PATH:` and `oom-kill:`.
//!
//! Until about 6.5 all keys are one record, which the kernel cuts at about 1 kB. Since then each key is a
//! record. The keys have cgroup v2's names; on v1 since about 6.9 they have v1's.

mod mem_info;
mod stats;
mod table;

use std::collections::VecDeque;

use mem_info::MemInfo;
pub use mem_info::Zones;
use stats::Values;
pub use stats::stats;
use table::Table;

use crate::{
    event::{CgroupMemory, HostTotals, ProcessTable},
    facts::kernel_log::{
        line::{OomLine, UsageKind},
        pieces::{Lines, MAYBE_CUT_BYTES},
        record::{self, Caller, RecordMeta},
    },
};

/// The most reports that are kept. A kernel prints at most 10 in 5 s, and an incident waits for 5 s.
const KEPT: usize = 32;

/// The most lines of the reaper that are kept.
const REAPED_KEPT: usize = 256;

/// What a report says of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// The time of its `oom-kill:` line, µs of the log's clock.
    pub time_us: u64,
    /// The process that was chosen.
    pub pid: u32,
    /// The cgroup whose limit fired.
    pub memcg: Option<Vec<u8>>,
    /// What the memory of that cgroup was.
    pub memory: Option<CgroupMemory>,
    /// Where no cgroup's limit fired: what the memory of the host was, as far as the report has it.
    pub host: Option<HostTotals>,
    /// The zones that the allocation could use.
    pub zones: Option<Zones>,
    /// The processes that the killer could choose from.
    pub processes: Option<ProcessTable>,
}

/// A line of the kernel's reaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaperLine {
    /// Its time, µs of the log's clock.
    pub time_us: u64,
    /// The thread.
    pub tid: u32,
    /// Whether it freed the thread's memory.
    pub reaped: bool,
}

/// Finds reports among the records of the log.
#[derive(Debug)]
pub struct RunReports {
    lines: Lines,
    page_bytes: u64,
    open: Option<Open>,
    found: VecDeque<RunReport>,
    reaped: VecDeque<ReaperLine>,
    /// How often lines were lost.
    lost: u64,
}

/// A report whose `oom-kill:` line has not come yet.
#[derive(Debug)]
struct Open {
    /// Who writes it.
    caller: Option<Caller>,
    kmem_bytes: Option<u64>,
    memcg: Option<Vec<u8>>,
    values: Values,
    host: MemInfo,
    table: Option<Table>,
    section: Section,
}

/// Which lines come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Head,
    Stats,
    MemInfo,
    /// The line with the names of the columns.
    Columns,
    Rows,
}

impl RunReports {
    /// For a kernel with pages of this size.
    pub fn new(page_bytes: u64) -> Self {
        Self {
            lines: Lines::default(),
            page_bytes,
            open: None,
            found: VecDeque::new(),
            reaped: VecDeque::new(),
            lost: 0,
        }
    }

    /// Takes the next record.
    pub fn push(&mut self, raw: &[u8]) {
        match self.lines.push(raw) {
            Some((meta, OomLine::Invoked(_))) => self.open = Some(Open::new(meta)),
            Some((meta, line)) => self.line(meta, line),
            None => self.plain(raw),
        }
    }

    /// Records were lost, so a report that is not complete is dropped.
    pub fn reset(&mut self) {
        self.lines.reset();
        self.open = None;
        self.lost += 1;
    }

    /// How often records were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes the newest report that this accepts.
    pub fn take(&mut self, accepts: impl Fn(&RunReport) -> bool) -> Option<RunReport> {
        let at = self.found.iter().rposition(accepts)?;
        self.found.remove(at)
    }

    /// What the reaper wrote, oldest first.
    pub fn reaped(&self) -> impl Iterator<Item = &ReaperLine> {
        self.reaped.iter()
    }

    fn line(&mut self, meta: RecordMeta, line: OomLine) {
        let Some(open) = self.open.as_mut().filter(|open| open.is_by(meta)) else { return };
        match line {
            OomLine::Usage(usage) if usage.kind == UsageKind::Kmem => {
                open.kmem_bytes = Some(usage.usage_bytes);
            }
            OomLine::MemcgStats(path) => {
                open.memcg = Some(path);
                open.section = Section::Stats;
            }
            OomLine::Chosen(chosen) => {
                let Some(open) = self.open.take() else { return };
                if self.found.len() >= KEPT {
                    self.found.pop_front();
                }
                self.found.push_back(RunReport {
                    time_us: meta.time_us,
                    pid: chosen.pid,
                    memory: open.memcg.is_some().then(|| open.values.memory(open.kmem_bytes)).flatten(),
                    memcg: open.memcg,
                    host: open.host.totals(self.page_bytes),
                    zones: open.host.zones(),
                    processes: open.table.map(Table::into_processes),
                });
            }
            OomLine::NoneKillable => self.open = None,
            _ => {}
        }
    }

    /// A line that is not one of the OOM killer's own forms.
    fn plain(&mut self, raw: &[u8]) {
        /// The reaper is a thread of its own, so its lines may stand in a report.
        const REAPER: &[u8] = b"oom_reaper: ";
        let is_reaper = raw.windows(REAPER.len()).any(|window| window == REAPER);
        if self.open.is_none() && !is_reaper {
            return;
        }
        let Some((meta, text)) = record::parse(raw).filter(|(meta, _)| meta.is_kernel()) else { return };
        if let Some(line) = text.strip_prefix(REAPER).and_then(|rest| reaper(rest, meta.time_us)) {
            if self.reaped.len() >= REAPED_KEPT {
                self.reaped.pop_front();
            }
            self.reaped.push_back(line);
            return;
        }
        if let Some(open) = self.open.as_mut().filter(|open| open.is_by(meta) && !meta.continues) {
            open.plain(&text, self.page_bytes);
        }
    }
}

impl Open {
    fn new(meta: RecordMeta) -> Self {
        Self {
            caller: meta.caller,
            kmem_bytes: None,
            memcg: None,
            values: Values::default(),
            host: MemInfo::default(),
            table: None,
            section: Section::Head,
        }
    }

    /// Whether the writer of the report wrote this too, as far as the log says who writes.
    fn is_by(&self, meta: RecordMeta) -> bool {
        self.caller == meta.caller
    }

    fn plain(&mut self, text: &[u8], page_bytes: u64) {
        if text == b"Tasks state (memory values in pages):" {
            self.section = Section::Columns;
            return;
        }
        if text == b"Mem-Info:" {
            self.section = Section::MemInfo;
            return;
        }
        match self.section {
            Section::Head => {}
            Section::MemInfo => self.host.line(text),
            Section::Stats => stats_of_record(text, &mut self.values),
            Section::Columns => {
                if let Some(table) = Table::with_columns(text, page_bytes) {
                    self.table = Some(table);
                    self.section = Section::Rows;
                }
            }
            Section::Rows => self.table.as_mut().map_or((), |table| table.row(text)),
        }
    }
}

/// The keys of a record: one, or all. The last one of a long record may be cut.
fn stats_of_record(text: &[u8], values: &mut Values) {
    let whole = match text.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if text.len() >= MAYBE_CUT_BYTES => text.get(..end).unwrap_or_default(),
        _ => text,
    };
    for line in whole.split(|byte| *byte == b'\n') {
        if let Some((name, value)) = stats::key(line) {
            values.set(name, value);
        }
    }
}

/// `reaped process TID (COMM), now …` or `unable to reap pid:TID (COMM)`.
fn reaper(text: &[u8], time_us: u64) -> Option<ReaperLine> {
    let (rest, reaped) = match text.strip_prefix(b"reaped process ") {
        Some(rest) => (rest, true),
        None => (text.strip_prefix(b"unable to reap pid:")?, false),
    };
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let tid = str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    rest.get(digits..)?.starts_with(b" (").then_some(ReaperLine { time_us, tid, reaped })
}

#[cfg(test)]
mod tests;
