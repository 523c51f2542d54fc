//! Collects why facts are absent while an event is built, and keeps the reasons of those that are.

use crate::{
    event::{Absence, Missing, Reason, Why},
    host::process,
};

/// Reasons by key, each key once. A line has at most a few dozen, so a list is the cheapest map.
#[derive(Clone, Debug, Default)]
pub struct Absent(Missing);

impl Absent {
    /// Adds why `key` may be absent. The first reason stays, because it is nearest to the cause.
    pub fn because(&mut self, key: &'static str, why: impl Into<Why>) {
        if !self.has(key) {
            self.0.push(Absence::new(key, why));
        }
    }

    /// As [`Self::because`], for each of them.
    pub fn all(&mut self, absences: &[Absence]) {
        for absence in absences {
            if !self.has(&absence.key) {
                self.0.push(absence.clone());
            }
        }
    }

    /// Drops the reason of a key that is present.
    pub fn present(&mut self, key: &str) {
        self.0.retain(|absence| absence.key != key);
    }

    /// Adds the reason if `fact` is absent, and returns the fact.
    pub fn unless<T>(&mut self, fact: Option<T>, key: &'static str, why: impl Into<Why>) -> Option<T> {
        if fact.is_none() {
            self.because(key, why);
        }
        fact
    }

    /// Returns the fact, or adds why it is absent.
    pub fn known<T>(&mut self, fact: Result<T, Why>, key: &'static str) -> Option<T> {
        fact.map_err(|why| self.because(key, why)).ok()
    }

    /// The reasons for the event.
    pub fn into_missing(self) -> Missing {
        let mut missing = self.0;
        missing.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        missing
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|absence| absence.key == key)
    }
}

/// Why a fact of `/proc/PID` is absent.
pub(super) fn not_in_proc(reason: &process::Reason) -> Why {
    use process::Reason as Proc;
    match reason {
        Proc::Pending(count) => Why::with(Reason::ProcBusy, format!("{count} reads")),
        Proc::TooSlow(_) => Reason::ProcTooSlow.into(),
        Proc::StartUnknown => Reason::StartTimeUnknown.into(),
        Proc::Gone => Reason::ProcessGone.into(),
        Proc::Released => Reason::MemoryReleased.into(),
        Proc::Empty => Reason::Empty.into(),
        Proc::AnotherProcess => Reason::PidReused.into(),
        Proc::StartedJustBefore => Reason::StartedJustBefore.into(),
        Proc::OtherPidNamespace => Reason::OtherPidNamespace.into(),
        Proc::Unreadable | Proc::Io(_) | Proc::Ended => Why::with(Reason::ProcUnreadable, reason.to_string()),
        Proc::NotWanted => Why::with(Reason::LeftOut, "--command-line none"),
        Proc::NotRead => Reason::NotRead.into(),
    }
}
