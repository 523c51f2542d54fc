//! Joins lines into reports: the lines of one run of the OOM killer.
//!
//! All runs happen under the kernel's single `oom_lock`, so their lines follow one another, with other lines
//! between. A run above the rate limit prints only its outcome. Such a line is never assigned to the run
//! before it.

use std::collections::VecDeque;

use crate::{
    event::Constraint,
    facts::kernel_log::{
        chosen::{Chosen, Split},
        line::{AlreadyExiting, Invoked, Killed, OomDomain, OomLine, Usage, UsageKind},
        record::RecordMeta,
    },
};

/// The most reports that are kept. A kernel prints at most 10 in 5 s.
const MAX_REPORTS: usize = 256;

/// Reports that are this much older than the newest record are dropped: a report is needed only just after
/// its kill.
const MAX_AGE_US: u64 = 5 * 60 * 1_000_000;

/// The most processes that are kept for one report. A group kill can have any number.
const MAX_KILLED: usize = 128;

/// What the kernel log says about one run of the OOM killer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomReport {
    /// Number and time of the `oom-kill:` line.
    pub meta: RecordMeta,
    /// The task that ran the OOM killer, and its allocation; `None` if that line was before the first one
    /// that was read.
    pub invoked: Option<Invoked>,
    /// Counters of the cgroup whose limit fired, in the order of the log.
    pub usage: Vec<Usage>,
    /// The cgroup whose limit fired, if it has a line of its own.
    pub stats_memcg: Option<Vec<u8>>,
    /// The chosen process.
    pub chosen: Chosen,
    /// The cgroup that was killed as a group (`memory.oom.group`).
    pub group: Option<Vec<u8>>,
    /// The killed processes, in the order of the log: the chosen one, then the group's, including the chosen
    /// one again.
    pub killed: Vec<Killed>,
    /// Processes that were chosen or in the group but were already exiting.
    pub already_exiting: Vec<AlreadyExiting>,
}

impl OomReport {
    /// `enum oom_constraint`; `None` if this version does not know it.
    pub fn constraint(&self) -> Option<Constraint> {
        self.chosen.constraint
    }

    /// The chosen victim's process id.
    pub fn pid(&self) -> u32 {
        self.chosen.pid
    }

    /// The chosen victim's user id.
    pub fn uid(&self) -> u32 {
        self.chosen.uid
    }

    /// The paths and the comm of the `oom-kill:` line, from this report alone; `None` if it is ambiguous.
    pub fn split(&self) -> Option<Split> {
        self.chosen.split().or_else(|| self.chosen.split_with_domain(self.stats_memcg.as_deref()?))
    }

    /// Whose limit fired, if the victim's cgroup is known from the kernel's own structures.
    ///
    /// `None` if the report does not fit that cgroup, or fits it in more than one way.
    pub fn oom_domain(&self, task_memcg: &[u8]) -> Option<OomDomain> {
        self.chosen.split_with(task_memcg).map(|split| split.domain)
    }

    /// A counter of the cgroup whose limit fired.
    pub fn usage(&self, kind: UsageKind) -> Option<&Usage> {
        self.usage.iter().find(|usage| usage.kind == kind)
    }
}

/// The recent reports.
#[derive(Debug)]
pub struct Reports {
    recent: VecDeque<Kept>,
    most: usize,
    head: Head,
    open: Open,
}

#[derive(Debug)]
struct Kept {
    report: OomReport,
    taken: bool,
}

/// The lines before the `oom-kill:` line.
#[derive(Debug, Default)]
struct Head {
    invoked: Option<Invoked>,
    usage: Vec<Usage>,
    stats_memcg: Option<Vec<u8>>,
}

/// Which lines may still come for the newest report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// The outcome for the chosen process. Each run has one, so the next outcome belongs to this run.
    Outcome,
    /// The announcement of a group kill, if there is one.
    Group,
    /// The group's processes.
    Members,
    /// Nothing.
    Closed,
}

/// The place of a `Killed process` line in the run of the OOM killer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The kill of the process that the newest report chose.
    Chosen,
    /// A kill with the group of that process.
    Member,
    /// A kill whose report the kernel left out.
    Alone,
}

impl Default for Reports {
    fn default() -> Self {
        Self::keeping(MAX_REPORTS)
    }
}

impl Reports {
    /// Keeps the newest `most` reports.
    pub fn keeping(most: usize) -> Self {
        // Allocated at once, so that nothing grows while memory is short.
        Self { recent: VecDeque::with_capacity(most), most, head: Head::default(), open: Open::Closed }
    }

    /// The role of a `Killed process` line, if it is the next line.
    pub(super) fn role(&self) -> Role {
        match self.open {
            Open::Outcome => Role::Chosen,
            Open::Members => Role::Member,
            Open::Group | Open::Closed => Role::Alone,
        }
    }

    /// Takes the next line.
    pub fn push(&mut self, meta: RecordMeta, line: OomLine) {
        match line {
            OomLine::Invoked(invoked) => {
                self.open = Open::Closed;
                self.head = Head { invoked: Some(invoked), ..Head::default() };
            }
            OomLine::Usage(usage) if self.head.usage.len() < 4 => self.head.usage.push(usage),
            OomLine::Usage(_) | OomLine::Suppressed(_) => {}
            OomLine::MemcgStats(path) => self.head.stats_memcg = Some(path),
            OomLine::Chosen(chosen) => self.begin(meta, chosen),
            OomLine::NoneKillable => self.reset(),
            OomLine::Killed(killed) => {
                if let Some(report) = self.outcome()
                    && report.killed.len() < MAX_KILLED
                {
                    report.killed.push(killed);
                }
            }
            OomLine::AlreadyExiting(exiting) => {
                if let Some(report) = self.outcome()
                    && report.already_exiting.len() < MAX_KILLED
                {
                    report.already_exiting.push(exiting);
                }
            }
            OomLine::Group(path) => self.group(path),
        }
    }

    /// Lines were lost, so the next ones belong to no known run.
    pub fn reset(&mut self) {
        self.head = Head::default();
        self.open = Open::Closed;
    }

    /// The newest report of a kill of this process in this cgroup. Each report is returned once.
    ///
    /// Its `killed` may still be empty, because the kernel marks a victim before it logs the kill.
    pub fn take(&mut self, victim_tgid: u32, task_memcg: &[u8]) -> Option<OomReport> {
        let kept = self.recent.iter_mut().rev().find(|kept| {
            !kept.taken && kept.report.pid() == victim_tgid && kept.report.oom_domain(task_memcg).is_some()
        })?;
        kept.taken = true;
        Some(kept.report.clone())
    }

    /// The newest report of a group kill that includes this thread, from its own `Killed process` line.
    ///
    /// `task_memcg` is its cgroup: the group or one below it.
    pub fn group_of(&self, tid: u32, task_memcg: &[u8]) -> Option<&OomReport> {
        self.recent.iter().rev().map(|kept| &kept.report).find(|report| {
            report.group.as_deref().is_some_and(|group| is_within(task_memcg, group))
                && report.killed.iter().any(|killed| killed.tid == tid)
        })
    }

    /// The reports that are kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &OomReport> {
        self.recent.iter().map(|kept| &kept.report)
    }

    fn begin(&mut self, meta: RecordMeta, chosen: Chosen) {
        let head = std::mem::take(&mut self.head);
        while self.recent.len() >= self.most
            || self
                .recent
                .front()
                .is_some_and(|oldest| oldest.report.meta.time_us.saturating_add(MAX_AGE_US) < meta.time_us)
        {
            self.recent.pop_front();
        }
        let report = OomReport {
            meta,
            invoked: head.invoked,
            usage: head.usage,
            stats_memcg: head.stats_memcg,
            chosen,
            group: None,
            killed: Vec::new(),
            already_exiting: Vec::new(),
        };
        self.recent.push_back(Kept { report, taken: false });
        self.open = Open::Outcome;
    }

    /// The report to which the next outcome belongs.
    fn outcome(&mut self) -> Option<&mut OomReport> {
        self.open = match self.open {
            Open::Outcome => Open::Group,
            Open::Members => Open::Members,
            // A second outcome without an announcement belongs to a run above the rate limit.
            Open::Group | Open::Closed => {
                self.open = Open::Closed;
                return None;
            }
        };
        self.recent.back_mut().map(|kept| &mut kept.report)
    }

    fn group(&mut self, path: Vec<u8>) {
        let newest = self.recent.back_mut().map(|kept| &mut kept.report);
        self.open = match (self.open, newest) {
            (Open::Group, Some(report)) => {
                report.group = Some(path);
                Open::Members
            }
            // Another group kill above the rate limit: the outcome just before belonged to it.
            (Open::Members, Some(report)) => {
                report.killed.pop();
                Open::Closed
            }
            _ => Open::Closed,
        };
    }
}

/// Whether the cgroup `path` is `group` or below it.
fn is_within(path: &[u8], group: &[u8]) -> bool {
    group == b"/" || path.strip_prefix(group).is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
}
