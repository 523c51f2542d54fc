//! The sources of facts. Each is one file behind [`Source`]. `run/setup.rs` lists the sources of a run.
//!
//! A source never prints, and only [`early_wakeup`] waits. It says what wakes it, takes in what is there, and
//! returns its next event. The loop decides which source is asked, and writes the lines.

pub mod cgroup_changes;
pub mod cgroup_files;
pub mod clock_steps;
pub mod earlier_kills;
pub mod early_wakeup;
pub mod function_hooks;
pub mod history;
pub mod host_memory;
pub mod incident;
pub mod kernel_log;
pub mod kills;
pub mod probe;
pub mod recorder;
pub mod sampling;
pub mod saved_log;
pub mod signal_kills;
pub mod verdict;

use std::{os::fd::BorrowedFd, time::Instant};

use crate::{accounting::Account, enrich::enricher::Enricher, event::Event};

/// A source of facts.
///
/// Every method has a default. None of them may wait, but see [`early_wakeup`].
pub trait Source {
    /// When it is asked.
    fn rank(&self) -> Rank {
        Rank::InTurn
    }

    /// Becomes readable when there is something to take in.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When to ask it without being woken. The loop then calls [`Self::learn`], after which this time must be
    /// later.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Called once, in the order of the list, after the programs are attached and the first line is written.
    fn begin(&mut self, _enricher: &mut Enricher, _account: &mut Account) {}

    /// Takes in what is there, when it is woken or due. Also called while the output takes no lines. Returns
    /// true if there may be more, because the turn ended.
    fn learn(&mut self, _enricher: &mut Enricher, _account: &mut Account) -> bool {
        false
    }

    /// Its next fact. Called only while the output takes lines, and again until it returns [`Next::Nothing`].
    fn next(&mut self, _enricher: &mut Enricher, _account: &mut Account) -> Next {
        Next::Nothing
    }

    /// The line of the last fact is written, or the fact had none: its record can be dropped.
    fn written(&mut self) {}

    /// The run ends: what is held back is asked for once more.
    fn ending(&mut self) {}

    /// Shows it an event of any source. `printed` is false if the operator did not ask for that event.
    fn saw(&mut self, _event: &Event, _printed: bool, _enricher: &Enricher, _account: &mut Account) {}
}

/// When a source is asked. Within a rank, the order of the list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It learns before each event of the sources of rank `First`, woken or not.
    BeforeFirst,
    /// Its events come before all others, for one turn at the most. These are the kills.
    First,
    /// It learns when woken or due, and prints one event in each round.
    InTurn,
}

/// What a source returns.
#[derive(Debug)]
pub enum Next {
    /// Nothing now.
    Nothing,
    /// A fact without a line.
    Silent,
    /// An event to print.
    Event(Event),
}
