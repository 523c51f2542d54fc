//! Where facts come from. One file a source, each behind [`Source`]; which there are in a run is one list,
//! `run/setup.rs`.
//!
//! A source waits for nothing and prints nothing: it says what wakes it, takes in what there is, and hands out
//! its next event. The loop decides whose turn it is and writes the lines.

pub mod cgroup_changes;
pub mod cgroup_files;
pub mod clock_steps;
pub mod earlier_kills;
pub mod function_hooks;
pub mod kernel_log;
pub mod kills;
pub mod probe;
pub mod recorder;
pub mod verdict;

use std::{os::fd::BorrowedFd, time::Instant};

use crate::{accounting::Account, enrich::enricher::Enricher, event::Event};

/// A source of facts.
///
/// Every method may be left out. None of them waits.
pub trait Source {
    /// When it has its turn.
    fn rank(&self) -> Rank {
        Rank::InTurn
    }

    /// Becomes readable when there is something to take in.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When it is to be asked without being woken. [`Self::learn`] is called then, and must move it on.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Called once, in the order of the list, when the programs are attached and the first line was written.
    fn begin(&mut self, _enricher: &mut Enricher, _account: &mut Account) {}

    /// Takes in what there is, when it was woken or is due; also while the output takes no lines. True if there may
    /// be more: it took too long, and others have their turn first.
    fn learn(&mut self, _enricher: &mut Enricher, _account: &mut Account) -> bool {
        false
    }

    /// Its next fact, while the output takes lines. Asked again until there is nothing.
    fn next(&mut self, _enricher: &mut Enricher, _account: &mut Account) -> Next {
        Next::Nothing
    }

    /// The output has the line of the last fact, or it had none: what it was read from can go.
    fn written(&mut self) {}

    /// An event of any source: `printed` says whether it got a line, or the operator did not ask for it.
    fn saw(&mut self, _event: &Event, _printed: bool, _enricher: &Enricher, _account: &mut Account) {}
}

/// When a source has its turn. Within a rank, the order is that of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It learns before each event of those that come first, woken or not.
    BeforeFirst,
    /// Its events come first, for as long as a turn lasts: kills.
    First,
    /// Woken or due, it learns, and has one event printed in each round.
    InTurn,
}

/// What a source has next.
#[derive(Debug)]
pub enum Next {
    /// Nothing, by now.
    Nothing,
    /// A fact that has no line.
    Silent,
    /// A line to be.
    Event(Event),
}
