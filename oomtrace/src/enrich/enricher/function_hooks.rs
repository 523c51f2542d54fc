//! Whether the function hooks run. Attached hooks may never run: `kernel.ftrace_enabled` turns them off.
//!
//! A kill shows this if no hook saw its run. After that, facts are taken as on a host without hooks, from the
//! kernel log and the cgroups' files, until a hook runs again.

use crate::{
    enrich::enricher::Enricher,
    event::Evidence,
    facts::{BootTime, OomKillFacts},
    host::{clock, kernel_log::KernelLog, root::Root},
};

/// A report is written before its victim is marked. A slow console delays the mark, and the two clocks differ
/// a little.
const REPORT_NS: u64 = 10_000_000_000;

/// What the log's clock read before anything was written on a kill of this time, ns.
pub(super) fn log_time_before(kill: BootTime) -> u64 {
    clock::log_time(kill).saturating_sub(REPORT_NS)
}

/// The state of the function hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    /// None is attached.
    None,
    /// Attached, and not known to be silent.
    Running,
    /// Attached, but they do not run.
    Silent,
}

/// Follows the state of the function hooks.
#[derive(Debug)]
pub(super) struct Hooks {
    state: HookState,
    /// The state has changed, and no line has reported it.
    news: bool,
}

impl Hooks {
    pub(super) fn new(state: HookState) -> Self {
        Self { state, news: false }
    }

    /// Takes in a record of the OOM killer. `ran`: a hook saw its run; `killed`: the kernel killed the
    /// victim. Returns true if the hooks turn out to be silent.
    fn saw(&mut self, ran: bool, killed: bool) -> bool {
        let state = match self.state {
            HookState::Running if !ran && killed => HookState::Silent,
            HookState::Silent if ran => HookState::Running,
            _ => return false,
        };
        self.state = state;
        // If the state changed back before a line reported it, nothing is reported.
        self.news = !self.news;
        state == HookState::Silent
    }
}

/// `kernel.ftrace_enabled`; `None` if the kernel has no such setting, or it cannot be read.
pub fn ftrace_enabled(root: &Root) -> Option<bool> {
    let text = std::fs::read_to_string(root.path("/proc/sys/kernel/ftrace_enabled")).ok()?;
    Some(text.trim() != "0")
}

impl Enricher {
    /// Compares a kill with what the hooks should have seen.
    pub(super) fn judge_hooks(&mut self, facts: &OomKillFacts) {
        let ran = facts.oom.as_ref().is_some_and(|killer| killer.evidence != Evidence::Stack);
        let silent = self.hooks.saw(ran, facts.signalled == Some(true));
        if silent && self.knowledge.log.is_none() {
            // The log has the report of this kill by now. An old report may be of another process with the
            // same id.
            let since = log_time_before(facts.time);
            let root = self.knowledge.root.as_ref();
            self.knowledge.log = root.and_then(|root| KernelLog::open_since(root, since).ok());
        }
    }

    /// Whether function hooks run, as far as is known.
    pub fn hooks_run(&self) -> bool {
        self.hooks.state == HookState::Running
    }

    /// Sets the state for the programs whose records come next. They are not judged by the records of others.
    pub fn set_hooks(&mut self, state: HookState) -> HookState {
        std::mem::replace(&mut self.hooks, Hooks::new(state)).state
    }

    /// The new state, if it has changed and no line has reported it.
    pub fn take_hook_news(&mut self) -> Option<HookState> {
        std::mem::take(&mut self.hooks.news).then_some(self.hooks.state)
    }

    /// Whether the kernel's log can be read.
    pub fn has_kernel_log(&self) -> bool {
        self.knowledge.log.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_that_no_hook_saw_shows_that_they_are_silent() {
        let mut hooks = Hooks::new(HookState::Running);
        assert!(!hooks.saw(true, true));
        assert!(!hooks.saw(false, false), "what was not killed may have been marked without a run");
        assert!(!hooks.news);
        assert!(hooks.saw(false, true));
        assert!(hooks.news && hooks.state == HookState::Silent);
        hooks.news = false;
        assert!(!hooks.saw(false, true), "said once");
        assert!(!hooks.news);
        assert!(!hooks.saw(true, true));
        assert!(hooks.news && hooks.state == HookState::Running);
    }

    #[test]
    fn where_none_is_attached_nothing_is_expected() {
        let mut hooks = Hooks::new(HookState::None);
        assert!(!hooks.saw(false, true));
        assert!(!hooks.news && hooks.state == HookState::None);
    }
}
