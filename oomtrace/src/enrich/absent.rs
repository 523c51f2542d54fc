//! Why facts are absent: collected while an event is built, kept for those that really are.

use crate::event::Missing;

/// Reasons by key.
#[derive(Clone, Debug, Default)]
pub struct Absent(Missing);

impl Absent {
    /// Notes why `key` may be absent. The first reason stays: it is nearest to the cause.
    pub fn because(&mut self, key: &str, reason: impl Into<String>) {
        self.0.entry(key.to_owned()).or_insert_with(|| reason.into());
    }

    /// As [`Self::because`], for each.
    pub fn all(&mut self, reasons: &[(&'static str, String)]) {
        for (key, reason) in reasons {
            self.because(key, reason.as_str());
        }
    }

    /// The reason of a key that turned out to be there is dropped.
    pub fn present(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Notes `reason` if `fact` is not there, and gives the fact back.
    pub fn unless<T>(&mut self, fact: Option<T>, key: &str, reason: &str) -> Option<T> {
        if fact.is_none() {
            self.because(key, reason);
        }
        fact
    }

    /// The reasons, for the event.
    pub fn into_missing(self) -> Missing {
        self.0
    }
}
