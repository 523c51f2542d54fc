//! Reports when the function hooks stop running, and when they run again.

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, HookState},
    event::{Event, Hooks, HooksState},
    sources::{Next, Source},
};

/// What is missing while the function hooks are attached but do not run.
pub const SILENT: &str = "the function hooks are attached but do not run (is kernel.ftrace_enabled 0?): a memory cgroup that runs \
    out without a kill is found only at the next event, in the cgroups' files, and what the hooks would have said of a kill comes from \
    the kernel log, else from the cgroups' limits";

/// The same, if the kernel log cannot be read.
const SILENT_WITHOUT_LOG: &str = "the function hooks are attached but do not run (is kernel.ftrace_enabled 0?), and the kernel log \
    cannot be read: a memory cgroup that runs out without a kill is found only at the next event, in the cgroups' files, and whose limit \
    fired comes from the cgroups' limits";

/// Reports the state of the hooks when it changes.
#[derive(Debug, Default)]
pub struct FunctionHooks {
    /// A kill came, which may have changed the state.
    stirred: bool,
}

impl Source for FunctionHooks {
    fn due(&self) -> Option<std::time::Instant> {
        self.stirred.then(std::time::Instant::now)
    }

    fn learn(&mut self, _: &mut Enricher, _: &mut Account) -> bool {
        self.stirred = false;
        false
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        let (state, limit) = match enricher.take_hook_news() {
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
