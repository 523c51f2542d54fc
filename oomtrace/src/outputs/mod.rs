//! Events to lines, and lines to where they go.
//!
//! A run has one durable output, standard output or a file: what it does not take holds up the ring, so that nothing is
//! lost. Beside it there may be others, which take what they can; which there are is one list, `run/setup.rs`.

mod durable;
pub mod encode;
pub mod transport;

use std::time::Instant;

pub use durable::Durable;

use crate::{event::Event, outputs::transport::SinkError};

/// An output that takes what it can. It never waits, holds up no kill, and counts itself what it could not take.
pub trait BestEffort {
    /// Takes an event, after the durable output has its line.
    fn take(&mut self, event: &Event);

    /// When [`Self::write`] is to be called without an event.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Writes what is due.
    fn write(&mut self) {}
}

/// All outputs of a run.
pub struct Outputs {
    durable: Durable,
    others: Vec<Box<dyn BestEffort>>,
}

impl Outputs {
    /// These.
    pub fn new(durable: Durable, others: Vec<Box<dyn BestEffort>>) -> Self {
        Self { durable, others }
    }

    /// Gives an event to each. False if the durable one neither wrote the line nor keeps it.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`]: nobody reads any more.
    pub fn write(&mut self, event: &Event) -> Result<bool, SinkError> {
        let taken = self.durable.write(event)?;
        for other in &mut self.others {
            other.take(event);
        }
        Ok(taken)
    }

    /// When the next best-effort output has something to write.
    pub fn due(&self) -> Option<Instant> {
        self.others.iter().filter_map(|other| other.due()).min()
    }

    /// Lets those write that are due.
    pub fn write_due(&mut self) {
        let now = Instant::now();
        for other in self.others.iter_mut().filter(|other| other.due().is_some_and(|due| due <= now)) {
            other.write();
        }
    }

    /// The one that holds up the ring.
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

        fn write(&mut self) {
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
                host: Host { name: "a".into(), boot_id: None, kernel: "b".into() },
                tags: std::collections::BTreeMap::new(),
            },
            reason: "SIGTERM".into(),
            events: 0,
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
