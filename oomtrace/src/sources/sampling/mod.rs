//! The usage of all memory cgroups at one moment, for whoever needs it. This source owns the walk over their tree, and gives whole
//! walks to its [`Consumer`]s.
//!
//! - `walk`: what a walk has found.
//! - `round`: one walk, turn by turn, in limited memory.
//! - `reader`: where the samples come from. A program that the kernel runs when it is told to, else the cgroups' files.
//! - `files`: has the files read by another thread.
//!
//! A walk begins when a consumer is due, or at once after an event for which one asked. So with no consumer that is due, nothing wakes
//! the loop. Each turn of the loop does one bounded step, so a kill waits for one step at the most.

mod files;
mod reader;
mod round;
mod walk;

use std::{os::fd::BorrowedFd, time::Instant};

pub use reader::Reader;
pub use round::{Found, Round, SAMPLES_MAX, Turn};
pub use walk::{SampleEvidence, Walk};

use crate::{
    accounting::Account,
    enrich::enricher::Enricher,
    event::Event,
    facts::Decoder,
    sources::{Next, Source, probe::WalkError},
};

/// Uses whole walks. It may be shared with another source (`Rc<RefCell<…>>`): all run on the thread of the loop.
///
/// No method may wait or read a file. [`Self::take`] is called between kills, so it should not take longer than the walk itself, about
/// 1 µs for each cgroup.
pub trait Consumer {
    /// When it wants the next walk if nothing happens; `None`: only when it asks in [`Self::saw`]. After [`Self::take`] or
    /// [`Self::failed`] this must be later. Each time wakes the loop.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Sees each event of any source, as [`Source::saw`]. If it returns true, a walk begins at once. A walk that is running already
    /// serves it too: [`Walk::began`] says since when.
    fn saw(&mut self, _event: &Event, _printed: bool, _enricher: &Enricher, _account: &mut Account) -> bool {
        false
    }

    /// Takes a whole walk, whoever asked for it. The first one comes soon after the start, if the program reads it.
    fn take(&mut self, walk: &Walk<'_>, enricher: &mut Enricher, account: &mut Account);

    /// A walk did not get to its end. No other one begins for that reason alone.
    fn failed(&mut self, _error: &WalkError, _enricher: &mut Enricher, _account: &mut Account) {}

    /// Its next event, as [`Source::next`].
    fn next(&mut self, _enricher: &mut Enricher, _account: &mut Account) -> Next {
        Next::Nothing
    }

    /// The run ends, as [`Source::ending`]. A walk that it asked for is finished first, if there is time.
    fn ending(&mut self) {}
}

/// Walks over the memory cgroups for its consumers.
pub struct Sampling {
    reader: Reader,
    round: Round,
    decoder: Decoder,
    consumers: Vec<Box<dyn Consumer>>,
    /// A walk is to begin, or runs.
    wanted: bool,
    /// It goes on when the reader wakes the loop.
    waits: bool,
}

impl Sampling {
    /// Reads with `reader`, on a host with pages of `page_bytes`.
    pub fn new(reader: Reader, page_bytes: u64, consumers: Vec<Box<dyn Consumer>>) -> Self {
        let (round, decoder) = (Round::default(), Decoder::new(page_bytes));
        Self { reader, round, decoder, consumers, wanted: false, waits: false }
    }

    fn is_due(&self) -> bool {
        self.wanted || self.next_due().is_some_and(|due| due <= Instant::now())
    }

    fn next_due(&self) -> Option<Instant> {
        self.consumers.iter().filter_map(|consumer| consumer.due()).min()
    }

    /// One turn of a walk. Returns whether there are more.
    fn turn(&mut self, enricher: &mut Enricher, account: &mut Account) -> bool {
        match self.round.turn(&mut self.reader, enricher.tree()) {
            Turn::GoesOn => return true,
            Turn::Waits => {
                self.waits = true;
                return true;
            }
            Turn::Done(walk) => {
                let walk = Walk::new(&walk, self.decoder);
                self.consumers.iter_mut().for_each(|consumer| consumer.take(&walk, enricher, account));
            }
            Turn::Failed(error) => {
                self.consumers.iter_mut().for_each(|consumer| consumer.failed(&error, enricher, account));
            }
        }
        false
    }
}

impl Source for Sampling {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.reader.descriptor()
    }

    fn due(&self) -> Option<Instant> {
        match self.wanted {
            _ if self.waits => None,
            true => Some(Instant::now()),
            false => self.next_due(),
        }
    }

    /// The first walk brings the memory that a later one needs, so that none must be had while memory is short.
    fn begin(&mut self, _: &mut Enricher, _: &mut Account) {
        self.wanted = self.reader.is_program();
    }

    fn learn(&mut self, enricher: &mut Enricher, account: &mut Account) -> bool {
        self.waits = false;
        self.wanted = self.is_due() && self.turn(enricher, account);
        self.wanted && !self.waits
    }

    fn next(&mut self, enricher: &mut Enricher, account: &mut Account) -> Next {
        for consumer in &mut self.consumers {
            match consumer.next(enricher, account) {
                Next::Nothing => {}
                next => return next,
            }
        }
        Next::Nothing
    }

    fn ending(&mut self) {
        self.reader.ending();
        self.waits = false;
        self.consumers.iter_mut().for_each(|consumer| consumer.ending());
    }

    fn saw(&mut self, event: &Event, printed: bool, enricher: &Enricher, account: &mut Account) {
        for consumer in &mut self.consumers {
            self.wanted |= consumer.saw(event, printed, enricher, account);
        }
    }
}

#[cfg(test)]
mod tests;
