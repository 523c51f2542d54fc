//! Lines to kills, one after another: each `Killed process` line is a kill, and the report around it adds to it.
//!
//! A kill is held back until the next line of the killer's: only that says whether a whole group is killed.

use crate::facts::kernel_log::{
    Killed, LoggedKill, OomLine, RecordMeta, Reports,
    report::{OomReport, Role},
};

/// Finds kills among lines. `T` is what goes along with a line, such as where it was read.
#[derive(Debug)]
pub struct Kills<T> {
    reports: Reports,
    held: Option<Held<T>>,
    /// The thread that the latest run killed first: it is killed once more with its group.
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
    /// Takes the next line. Gives the kill before it, if that is complete by now.
    pub fn push(&mut self, meta: RecordMeta, line: OomLine, with: T) -> Option<(LoggedKill, T)> {
        match line {
            // These stand before the choice, and say nothing of a kill that was made.
            OomLine::Usage(_) | OomLine::MemcgStats(_) | OomLine::Suppressed(_) => {
                self.reports.push(meta, line);
                None
            }
            OomLine::Group(_) => {
                if let Some(held) = &mut self.held {
                    // Another group kill, over the rate limit: what seemed to be of the first was this one's.
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
                // The kernel passes the one it chose once more when it kills the group.
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

    /// The last kill: there are no more lines, or some were lost.
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
