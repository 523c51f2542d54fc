//! Whether the function hooks run. They may be attached and never do: `kernel.ftrace_enabled` turns off what is attached.
//!
//! A kill whose run no hook saw shows it. From there on facts are taken as on a host without hooks: from the kernel's log
//! and the cgroups' files, until a hook runs again.

use crate::{
    enrich::enricher::Enricher,
    event::Evidence,
    facts::{BootTime, OomKillFacts},
    host::{clock, kernel_log::KernelLog, root::Root},
};

/// A report is written before its victim is marked; to a slow console that takes a while, and the two clocks are a little apart.
const REPORT_NS: u64 = 10_000_000_000;

/// What the log's clock read before anything was written on a kill of this time, ns.
pub(super) fn log_time_before(kill: BootTime) -> u64 {
    clock::log_time(kill).saturating_sub(REPORT_NS)
}

/// How it is with the function hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    /// None is attached.
    None,
    /// Attached, and not known to be silent.
    Running,
    /// Attached, and they do not run.
    Silent,
}

/// Follows how it is with the function hooks.
#[derive(Debug)]
pub(super) struct Hooks {
    state: HookState,
    /// It has changed, and no line has said so.
    news: bool,
}

impl Hooks {
    pub(super) fn new(state: HookState) -> Self {
        Self { state, news: false }
    }

    /// A record of the killer's came: `ran` says whether a hook saw its run, `killed` whether the kernel killed the victim.
    /// True where the hooks have turned out to be silent.
    fn saw(&mut self, ran: bool, killed: bool) -> bool {
        let state = match self.state {
            HookState::Running if !ran && killed => HookState::Silent,
            HookState::Silent if ran => HookState::Running,
            _ => return false,
        };
        self.state = state;
        // Back before a line said so, there is nothing to say.
        self.news = !self.news;
        state == HookState::Silent
    }
}

/// `kernel.ftrace_enabled`; `None` where the kernel has no such switch, or it cannot be read.
pub fn ftrace_enabled(root: &Root) -> Option<bool> {
    let text = std::fs::read_to_string(root.path("/proc/sys/kernel/ftrace_enabled")).ok()?;
    Some(text.trim() != "0")
}

impl Enricher {
    /// Holds a kill against what the hooks should have seen of it.
    pub(super) fn judge_hooks(&mut self, facts: &OomKillFacts) {
        let ran = facts.oom.as_ref().is_some_and(|killer| killer.evidence != Evidence::Stack);
        let silent = self.hooks.saw(ran, facts.signalled == Some(true));
        if silent && self.knowledge.log.is_none() {
            // The report of this kill is in it by now. One of long ago may be of another process with the same id.
            let since = log_time_before(facts.time);
            let root = self.knowledge.root.as_ref();
            self.knowledge.log = root.and_then(|root| KernelLog::open_since(root, since).ok());
        }
    }

    /// Whether function hooks say what the killer does, as far as is known.
    pub fn hooks_run(&self) -> bool {
        self.hooks.state == HookState::Running
    }

    /// The programs whose records come next have hooks, or have none: their records are not held against those of others.
    pub fn set_hooks(&mut self, state: HookState) -> HookState {
        std::mem::replace(&mut self.hooks, Hooks::new(state)).state
    }

    /// Whether it has changed, and no line has said so yet: how it is now.
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
