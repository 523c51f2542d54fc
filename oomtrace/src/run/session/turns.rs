//! The sources of a run: what wakes each, and in which order they are asked.

use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::unix::AsyncFd;

use crate::{
    accounting::Account,
    enrich::enricher::Enricher,
    event::Event,
    run::session::{Ended, wait::wakeups},
    sources::{Next, Rank, Source},
};

/// The sources of a run, in the order of the list.
pub(super) struct Turns(Vec<Turn>);

struct Turn {
    source: Box<dyn Source>,
    wakeups: Option<AsyncFd<OwnedFd>>,
    /// It was woken, and `learn` was not called since.
    woken: bool,
    /// It may have events.
    active: bool,
}

impl Turns {
    pub(super) fn new(sources: Vec<Box<dyn Source>>) -> Self {
        // Each source counts as woken at first: it may have events from before `listen`.
        let turn = |source| Turn { source, wakeups: None, woken: true, active: true };
        Self(sources.into_iter().map(turn).collect())
    }

    pub(super) fn begin(&mut self, enricher: &mut Enricher, account: &mut Account) {
        for turn in &mut self.0 {
            turn.source.begin(enricher, account);
        }
    }

    /// Registers the descriptor of each source.
    pub(super) fn listen(&mut self) -> Result<(), Ended> {
        for turn in &mut self.0 {
            turn.wakeups = turn.source.descriptor().map(|fd| wakeups(&fd)).transpose()?;
        }
        Ok(())
    }

    /// Returns when a source is woken.
    pub(super) async fn woken(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_woken(context)).await
    }

    fn poll_woken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut any = Poll::Pending;
        for turn in &mut self.0 {
            let Some(wakeups) = &turn.wakeups else { continue };
            if let Poll::Ready(ready) = wakeups.poll_read_ready(context) {
                ready?.clear_ready();
                turn.woken = true;
                any = Poll::Ready(Ok(()));
            }
        }
        any
    }

    /// The earliest time at which a source is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|turn| turn.source.due()).min()
    }

    /// Calls `learn` of the sources that are woken or due, and of those that come before each kill. Returns
    /// whether there may be more.
    pub(super) fn learn(&mut self, enricher: &mut Enricher, account: &mut Account) -> bool {
        let mut more = false;
        for turn in &mut self.0 {
            let asked = match turn.source.rank() {
                Rank::BeforeFirst => true,
                Rank::First => false,
                Rank::InTurn => {
                    let due = || turn.source.due().is_some_and(|due| due <= Instant::now());
                    std::mem::take(&mut turn.woken) || due()
                }
            };
            if asked {
                turn.active = true;
                turn.woken = turn.source.learn(enricher, account);
                more |= turn.woken;
            }
        }
        more
    }

    /// Calls `learn` of the sources that come before each kill.
    pub(super) fn learn_before_first(&mut self, enricher: &mut Enricher, account: &mut Account) {
        for turn in self.0.iter_mut().filter(|turn| turn.source.rank() == Rank::BeforeFirst) {
            turn.source.learn(enricher, account);
        }
    }

    /// The next event of the sources of rank `First`, and the index of its source.
    pub(super) fn first(&mut self, enricher: &mut Enricher, account: &mut Account) -> Option<(usize, Next)> {
        let first = |(_, turn): &(usize, &mut Turn)| turn.source.rank() == Rank::First;
        self.0.iter_mut().enumerate().filter(first).find_map(|(at, turn)| {
            match turn.source.next(enricher, account) {
                Next::Nothing => None,
                next => Some((at, next)),
            }
        })
    }

    /// The number of sources. Each is asked with [`Self::in_turn`].
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The next event of source `at`, if its rank is `InTurn`.
    pub(super) fn in_turn(&mut self, at: usize, enricher: &mut Enricher, account: &mut Account) -> Next {
        match self.0.get_mut(at).filter(|turn| turn.active && turn.source.rank() == Rank::InTurn) {
            Some(turn) => {
                let next = turn.source.next(enricher, account);
                turn.active = !matches!(next, Next::Nothing);
                next
            }
            None => Next::Nothing,
        }
    }

    /// Tells source `at` that its last event is written.
    pub(super) fn written(&mut self, at: usize) {
        if let Some(turn) = self.0.get_mut(at) {
            turn.source.written();
        }
    }

    /// The run ends: what was held back is there.
    pub(super) fn ending(&mut self) {
        for turn in &mut self.0 {
            turn.source.ending();
            turn.active = true;
        }
    }

    /// Shows an event to each.
    pub(super) fn saw(&mut self, event: &Event, printed: bool, enricher: &Enricher, account: &mut Account) {
        for turn in &mut self.0 {
            turn.source.saw(event, printed, enricher, account);
        }
    }
}
