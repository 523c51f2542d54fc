//! The outputs: turn events into lines, and write them.
//!
//! A run has one durable output, standard output or a file. While it takes no lines, records stay in the
//! ring, so that nothing is lost. There may be other outputs, which take what they can. `run/beside.rs` lists
//! them.

mod durable;
pub mod encode;
pub mod journal;
pub mod metrics;
pub mod transport;

use std::{os::fd::BorrowedFd, time::Instant};

pub use durable::Durable;

use crate::{
    event::{Event, LossReason},
    facts::RingFill,
    outputs::transport::SinkError,
};

/// A best-effort output. It never waits, delays no kill, and counts what it could not take.
pub trait BestEffort {
    /// Takes an event, after the durable output has taken its line.
    fn take(&mut self, event: &Event);

    /// The durable output takes no lines, or takes them again.
    fn blocked(&mut self) {}

    /// When [`Self::write`] must be called without an event.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Writes what is due.
    fn write(&mut self, _condition: &Condition) {}

    /// Becomes readable when a client asks.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Answers the client, if one asked.
    fn answer(&mut self, _condition: &Condition) {}

    /// The run ends: what [`Self::write`] could not write is lost, and counted.
    fn give_up(&mut self) {}

    /// What it could not take since the last call.
    fn take_lost(&mut self) -> Option<(LossReason, u64)> {
        None
    }

    /// All lines so far are written: the next run does not see these events again.
    fn hand_over(&mut self) {}

    /// The last event was taken: writes what is left, without a long wait.
    fn end(&mut self, _condition: &Condition) {}
}

/// The state of the run that an output may report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Condition {
    /// The durable output takes no lines.
    pub blocked: bool,
    /// How full the ring of kills is; `None` if that is not known.
    pub ring: Option<RingFill>,
}

/// All outputs of a run.
pub struct Outputs {
    durable: Durable,
    others: Vec<Box<dyn BestEffort>>,
    ring: Box<dyn Fn() -> Option<RingFill>>,
}

impl Outputs {
    /// From the durable output and the others.
    pub fn new(durable: Durable, others: Vec<Box<dyn BestEffort>>) -> Self {
        Self { durable, others, ring: Box::new(|| None) }
    }

    /// Sets how to ask for the fill of the ring, for an output that reports it.
    pub fn with_ring(self, ring: Box<dyn Fn() -> Option<RingFill>>) -> Self {
        Self { ring, ..self }
    }

    /// Passes an event to each output. Returns false if the durable one neither wrote the line nor keeps it.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`]: the reader is gone.
    pub fn write(&mut self, event: &Event) -> Result<bool, SinkError> {
        let taken = self.durable.write(event)?;
        // A loss that was not written is reported again later. The other outputs get it then, and only once.
        if taken || !matches!(event, Event::Lost(_)) {
            self.others.iter_mut().for_each(|other| other.take(event));
        }
        Ok(taken)
    }

    /// The durable output takes no lines, or takes them again.
    pub fn blocked(&mut self) {
        self.others.iter_mut().for_each(|other| other.blocked());
    }

    /// When the next best-effort output has something to write.
    pub fn due(&self) -> Option<Instant> {
        self.others.iter().filter_map(|other| other.due()).min()
    }

    /// Calls the outputs that are due.
    pub fn write_due(&mut self) {
        let condition = self.condition();
        let now = Instant::now();
        for other in self.others.iter_mut().filter(|other| other.due().is_some_and(|due| due <= now)) {
            other.write(&condition);
        }
    }

    /// What the best-effort outputs could not take since the last call.
    pub fn take_lost(&mut self) -> Vec<(LossReason, u64)> {
        self.others.iter_mut().filter_map(|other| other.take_lost()).collect()
    }

    /// Every line so far is written, and the state for the next run is kept.
    pub fn hand_over(&mut self) {
        self.others.iter_mut().for_each(|other| other.hand_over());
    }

    /// Lets all outputs write, due or not. What they cannot write now is counted as lost.
    pub fn give_up(&mut self) {
        let condition = self.condition();
        for other in &mut self.others {
            other.write(&condition);
            other.give_up();
        }
    }

    /// The descriptors that become readable when a client asks.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.others.iter().filter_map(|other| other.descriptor()).collect()
    }

    /// Lets the asked outputs answer.
    pub fn answer(&mut self) {
        let condition = self.condition();
        self.others.iter_mut().for_each(|other| other.answer(&condition));
    }

    /// Lets all outputs write what is left.
    pub fn end(&mut self) {
        let condition = self.condition();
        self.others.iter_mut().for_each(|other| other.end(&condition));
    }

    fn condition(&self) -> Condition {
        Condition { blocked: self.durable.is_blocked(), ring: (self.ring)() }
    }

    /// The durable output.
    pub fn durable(&mut self) -> &mut Durable {
        &mut self.durable
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{cell::RefCell, os::fd::BorrowedFd, rc::Rc, time::Duration};

    use super::*;
    use crate::{
        event::{Envelope, Host, Origin, SCHEMA, Severity, Stop},
        outputs::{
            encode::Render,
            transport::{Sink, Wait},
        },
    };

    /// Takes no line.
    struct Full;

    impl Sink for Full {
        fn write_line(&mut self, _: &[u8]) -> Result<(), SinkError> {
            self.flush()
        }

        fn flush(&mut self) -> Result<(), SinkError> {
            let source = std::io::ErrorKind::StorageFull.into();
            Err(SinkError::Write { target: "a full disk".into(), hint: "", source })
        }

        fn waits_for(&self) -> Option<Wait<'_>> {
            Some(Wait::Time)
        }

        fn only_reader(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn waiting_lines(&self) -> usize {
            0
        }

        fn reopen(&mut self) -> Result<(), SinkError> {
            Ok(())
        }
    }

    /// Counts, and is due at one moment.
    struct Counter(Rc<RefCell<(usize, usize)>>, Instant);

    impl BestEffort for Counter {
        fn take(&mut self, _: &Event) {
            self.0.borrow_mut().0 += 1;
        }

        fn due(&self) -> Option<Instant> {
            Some(self.1)
        }

        fn write(&mut self, condition: &Condition) {
            assert!(condition.blocked);
            self.0.borrow_mut().1 += 1;
        }
    }

    #[test]
    fn a_best_effort_output_has_the_event_that_the_durable_one_refused() {
        let counted = Rc::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(3600);
        let mut outputs = Outputs::new(
            Durable::new(Render::Json, Box::new(Full)),
            vec![Box::new(Counter(Rc::clone(&counted), now)), Box::new(Counter(Rc::clone(&counted), later))],
        );
        let stop = Event::Stop(Box::new(Stop {
            envelope: Envelope {
                schema: SCHEMA,
                time: "1970-01-01T00:00:00.000000000Z".into(),
                message: String::new(),
                severity: Severity::Info,
                seq: None,
                stream: None,
                id: None,
                origin: Origin::Oomtrace,
                host: Host { name: Some("a".into()), boot_id: None, kernel: Some("b".into()) },
                tags: std::collections::BTreeMap::new(),
            },
            reason: "SIGTERM".into(),
            events: 0,
            signals_left_out: None,
            lost: 0,
            truncated: Vec::new(),
        }));
        assert!(!outputs.write(&stop).unwrap());
        assert_eq!(outputs.due(), Some(now));
        outputs.write_due();
        assert_eq!(*counted.borrow(), (2, 1));
        assert!(outputs.durable().is_blocked());
    }
}
