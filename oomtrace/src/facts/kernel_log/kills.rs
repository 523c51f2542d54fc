//! Turns lines into kills. Each `Killed process` line is a kill, and the report around it adds facts.
//!
//! A kill is kept until the OOM killer's next line, because only that line shows whether a whole group is
//! killed.

use crate::facts::kernel_log::{
    Killed, LoggedKill, OomLine, RecordMeta, Reports,
    report::{OomReport, Role},
};

/// Finds kills in lines. `T` is anything that belongs to a line, such as where it was read.
#[derive(Debug)]
pub struct Kills<T> {
    reports: Reports,
    held: Option<Held<T>>,
    /// The thread that the latest run killed first. It is logged again when its group is killed.
    first: Option<u32>,
}

/// The latest kill.
#[derive(Debug)]
struct Held<T> {
    meta: RecordMeta,
    killed: Killed,
    role: Role,
    with: T,
}

impl<T> Default for Kills<T> {
    fn default() -> Self {
        // A line can only belong to the newest report.
        Self { reports: Reports::keeping(1), held: None, first: None }
    }
}

impl<T> Kills<T> {
    /// Takes the next line. Returns the kill before it, if that is complete now.
    pub fn push(&mut self, meta: RecordMeta, line: OomLine, with: T) -> Option<(LoggedKill, T)> {
        match line {
            // These lines come before the choice and say nothing about a kill.
            OomLine::Usage(_) | OomLine::MemcgStats(_) | OomLine::Suppressed(_) => {
                self.reports.push(meta, line);
                None
            }
            OomLine::Group(_) => {
                if let Some(held) = &mut self.held {
                    // Another group kill, above the rate limit: the kill before this line belongs to it, not
                    // to the first group.
                    if held.role == Role::Member {
                        held.role = Role::Alone;
                    }
                    self.first = Some(held.killed.tid);
                }
                self.reports.push(meta, line);
                self.release()
            }
            OomLine::Killed(ref killed) => {
                let before = self.release();
                let (role, killed) = (self.reports.role(), killed.clone());
                self.reports.push(meta, line);
                // When the kernel kills a group, it logs the chosen process again.
                if role == Role::Chosen || self.first != Some(killed.tid) {
                    self.held = Some(Held { meta, killed, role, with });
                }
                before
            }
            OomLine::Chosen(_) | OomLine::Invoked(_) | OomLine::AlreadyExiting(_) | OomLine::NoneKillable => {
                let before = self.release();
                if matches!(line, OomLine::Chosen(_) | OomLine::Invoked(_)) {
                    self.first = None;
                }
                self.reports.push(meta, line);
                before
            }
        }
    }

    /// Returns the last kill, because there are no more lines or some were lost.
    pub fn end(&mut self) -> Option<(LoggedKill, T)> {
        let last = self.release();
        self.reports.reset();
        last
    }

    fn release(&mut self) -> Option<(LoggedKill, T)> {
        let Held { meta, killed, role, with } = self.held.take()?;
        let report: Option<OomReport> =
            if role == Role::Alone { None } else { self.reports.iter().last().cloned() };
        let chosen = report.is_some() && role == Role::Chosen;
        Some((LoggedKill { meta, killed, report, chosen }, with))
    }
}
