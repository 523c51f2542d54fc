//! Reports when the function hooks stop running, and when they run again.

use std::time::{Duration, Instant};

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, HookState},
    event::{Event, Hooks, HooksState},
    sources::{Next, Source},
};

/// What is missing while the function hooks are attached but do not run.
pub const SILENT: &str = "the function hooks are attached but do not run (is kernel.ftrace_enabled 0?): a memory cgroup that runs \
    out without a kill is found only at the next event, in the cgroups' files, and what the hooks would have said of a kill is found in \
    the killer's kernel stack, else in the kernel log";

/// The same, if the kernel log cannot be read.
const SILENT_WITHOUT_LOG: &str = "the function hooks are attached but do not run (is kernel.ftrace_enabled 0?), and the kernel log \
    cannot be read: a memory cgroup that runs out without a kill is found only at the next event, in the cgroups' files, and whose limit \
    fired is found in the killer's kernel stack";

/// How often the log is read while the hooks are silent. The log was opened after the loop had its
/// descriptors, so the loop does not wake when it grows. Without this, reading all of it at the next kill
/// could take too long.
const FOLLOW: Duration = Duration::from_secs(1);

/// Reports the state of the hooks when it changes.
#[derive(Debug, Default)]
pub struct FunctionHooks {
    /// A kill came, which may have changed the state.
    stirred: bool,
    /// When to read the log next, while the hooks are silent.
    log_due: Option<Instant>,
}

impl Source for FunctionHooks {
    fn due(&self) -> Option<Instant> {
        if self.stirred { Some(Instant::now()) } else { self.log_due }
    }

    fn learn(&mut self, enricher: &mut Enricher, _: &mut Account) -> bool {
        self.stirred = false;
        if self.log_due.is_none_or(|due| due > Instant::now()) {
            return false;
        }
        let all_read = enricher.read_kernel_log();
        self.log_due = Some(Instant::now() + if all_read { FOLLOW } else { Duration::ZERO });
        !all_read
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        let news = enricher.take_hook_news();
        if let Some(state) = news {
            self.log_due = (state == HookState::Silent).then(|| Instant::now() + FOLLOW);
        }
        let (state, limit) = match news {
            None | Some(HookState::None) => return Next::Nothing,
            Some(HookState::Running) => (HooksState::Running, None),
            Some(HookState::Silent) if enricher.has_kernel_log() => (HooksState::Silent, Some(SILENT)),
            Some(HookState::Silent) => (HooksState::Silent, Some(SILENT_WITHOUT_LOG)),
        };
        Next::Event(Event::Hooks(Box::new(Hooks {
            envelope: enricher.own_envelope(),
            state,
            limit: limit.map(str::to_owned),
            truncated: Vec::new(),
        })))
    }

    fn saw(&mut self, event: &Event, _: bool, _: &Enricher, _: &mut Account) {
        self.stirred |= matches!(event, Event::OomKill(_));
    }
}
