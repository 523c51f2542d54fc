//! Learns when the clock is set. This gives no line, but the sooner it is known, the more exact is the time
//! of each event.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use crate::{accounting::Account, enrich::enricher::Enricher, host::calendar::ClockSet, sources::Source};

/// Becomes readable when the clock is set.
pub struct ClockSteps(ClockSet);

impl ClockSteps {
    /// Starts to watch the clock.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new() -> io::Result<Self> {
        ClockSet::new().map(Self)
    }
}

impl Source for ClockSteps {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn learn(&mut self, enricher: &mut Enricher, _: &mut Account) -> bool {
        self.0.heard();
        enricher.look_at_clock();
        false
    }
}
