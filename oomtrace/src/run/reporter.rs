//! Passes events to the outputs: filters, prints and counts them, and counts what an output refuses.

use crate::{
    accounting::Account,
    event::{Envelope, Event, Kill, Stop},
    filter::Filter,
    outputs::{Outputs, transport::SinkError},
};

/// Prints events.
pub struct Reporter {
    filter: Filter,
    outputs: Outputs,
    /// Events printed: kills, shared-memory kills, cgroups that ran out of memory, signals.
    events: u64,
    /// Kills printed. `--count` counts these.
    kills: u64,
}

impl Reporter {
    /// A reporter for one run.
    pub fn new(filter: Filter, outputs: Outputs) -> Self {
        Self { filter, outputs, events: 0, kills: 0 }
    }

    /// Prints an event of a source, unless it is filtered out. Returns whether it was printed.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`]: the pipe has no reader.
    pub fn report(&mut self, event: &Event, account: &mut Account) -> Result<bool, SinkError> {
        if !self.filter.takes(event) {
            return Ok(false);
        }
        match event {
            Event::OomKill(kill) => {
                self.events += 1;
                self.kills += u64::from(kill.oom.kill != Some(Kill::AlreadyExiting));
            }
            Event::SharedMmKill(_) | Event::MemcgOom(_) | Event::SignalKill(_) => self.events += 1,
            _ => {}
        }
        self.print(event, account)?;
        Ok(true)
    }

    /// Prints a line, unless `--type` filters it out. If the output neither writes nor keeps it, it is
    /// counted as lost.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn print(&mut self, event: &Event, account: &mut Account) -> Result<(), SinkError> {
        if self.filter.takes_kind(event.kind()) && !self.outputs.write(event)? {
            account.refused();
        }
        Ok(())
    }

    /// Prints the losses that no line has reported yet. If the output refuses a line, the next call tries it
    /// again.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn losses(
        &mut self,
        account: &mut Account,
        envelope: impl FnMut() -> Envelope,
    ) -> Result<(), SinkError> {
        for (reason, count) in self.outputs.take_lost() {
            account.lost_beside(reason, count);
        }
        for lost in account.unreported(envelope) {
            let event = Event::Lost(Box::new(lost));
            let printed = !self.filter.takes_kind(event.kind()) || self.outputs.write(&event)?;
            if printed && let Event::Lost(lost) = &event {
                account.reported(lost);
            }
        }
        Ok(())
    }

    /// Prints the last line. [`Durable::settle`](crate::outputs::Durable::settle) then says if the output
    /// took it.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn stop(&mut self, reason: &str, envelope: Envelope, account: &mut Account) -> Result<(), SinkError> {
        let stop = Stop {
            envelope,
            reason: reason.into(),
            events: self.events,
            lost: account.lost(),
            signals_left_out: account.signals_left_out(),
            truncated: Vec::new(),
        };
        self.print(&Event::Stop(Box::new(stop)), account)
    }

    /// The outputs.
    pub fn outputs(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// Events printed so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Kills printed so far. A marked process that was already exiting does not count.
    pub fn kills(&self) -> u64 {
        self.kills
    }
}
