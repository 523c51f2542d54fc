//! The event loop of a run: facts from its sources, lines to its outputs, until it is asked to end.

mod resume;
mod turns;
mod wait;

use std::{io, path::PathBuf, time::Duration};

use tokio::{signal::unix::SignalKind, time::Instant};
use turns::Turns;
use wait::{Room, next_tick, on, reader_gone, reader_of, room_in_output, until};

use crate::{
    accounting::Account,
    enrich::enricher::Enricher,
    event::Start,
    failure::{Code, Failure},
    outputs::transport::SinkError,
    run::{notify::Notify, reporter::Reporter},
    sources::{
        Next, Source,
        kills::Records,
        probe::{Attached, Counts, PinError, ProbeError, Replaced},
    },
    stderr::say,
};

/// How long a run may take to end, once it is asked to. A service manager may be told 2 s: the rest is for the programs,
/// which are detached after that.
const LAST_WORDS: Duration = Duration::from_millis(1700);

/// How long kills are reported without a look at anything else: a storm of them may outlast every output.
const TURN: Duration = Duration::from_millis(100);

/// How long names of new cgroups are read meanwhile, each turn: a container may be gone before the storm is.
const NAMES_AMID_KILLS: Duration = Duration::from_millis(10);

/// What became of the sources.
enum Drained {
    /// As many kills were reported as were asked for.
    Enough,
    /// There is no more that could be reported now.
    Nothing,
    /// There is more, and its turn is over.
    More,
}

/// Why a session ended before it was asked to.
pub(crate) enum Ended {
    Sink(SinkError),
    Io(io::Error),
    Failure(Failure),
}

impl From<SinkError> for Ended {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl From<ProbeError> for Ended {
    fn from(error: ProbeError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<PinError> for Ended {
    fn from(error: PinError) -> Self {
        Self::Failure(error.into())
    }
}

/// What a session is made of.
pub(crate) struct Parts {
    /// What keeps the programs attached.
    pub(crate) attached: Attached,
    /// What they count.
    pub(crate) counts: Counts,
    /// Reads their records.
    pub(crate) records: Records,
    /// Where facts come from.
    pub(crate) sources: Vec<Box<dyn Source>>,
    /// Facts to events.
    pub(crate) enricher: Enricher,
    /// The books.
    pub(crate) account: Account,
    /// Events to lines.
    pub(crate) reporter: Reporter,
    /// Where the cgroups are.
    pub(crate) mount: Option<PathBuf>,
    /// How many kills are asked for.
    pub(crate) count: Option<u64>,
}

/// A run from its first line to its last.
pub(crate) struct Session {
    attached: Attached,
    counts: Counts,
    records: Records,
    turns: Turns,
    enricher: Enricher,
    account: Account,
    reporter: Reporter,
    mount: Option<PathBuf>,
    count: Option<u64>,
    /// The source whose last line the output keeps: what it was read from stays until it is written.
    held: Option<usize>,
    /// Since when the output takes nothing.
    stalled: Option<Instant>,
    notify: Notify,
}

impl Session {
    /// One whose programs are attached.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            attached: parts.attached,
            counts: parts.counts,
            records: parts.records,
            turns: Turns::new(parts.sources),
            enricher: parts.enricher,
            account: parts.account,
            reporter: parts.reporter,
            mount: parts.mount,
            count: parts.count,
            held: None,
            stalled: None,
            notify: Notify::from_env(),
        }
    }

    /// The first line, and what was there before. The programs are attached already, so nothing falls between.
    fn first(&mut self, start: Start, unreadable: u64) -> Result<(), Ended> {
        self.resume(start, unreadable)?;
        self.account.begin(self.counts.handed_over(), || self.counts.read())?;
        self.hand_over()?;
        self.turns.begin(&mut self.enricher, &mut self.account);
        if let Some(mount) = &self.mount {
            self.account.know_cgroups(mount, self.enricher.tree(), || self.counts.read())?;
        }
        Ok(())
    }

    /// Reports each event until it is asked to end.
    pub(crate) async fn run(
        &mut self,
        start: Start,
        replaced: Vec<Replaced>,
        timeout: Option<Duration>,
    ) -> Result<(), Ended> {
        // Who has read the first line may ask for the last: a signal is heard from before it on.
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        let unreadable = self.replaced(&start, replaced)?;
        self.first(start, unreadable)?;
        self.turns.listen()?;
        let reader = self.reporter.outputs().durable().sink().only_reader();
        let reader = reader.map(|pipe| reader_of(&pipe)).transpose()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut watchdog = self.notify.ticks();
        self.notify.ready();
        let reason = loop {
            self.notify.alive();
            let more = match self.drain()? {
                Drained::Enough => break "count",
                Drained::Nothing => false,
                Drained::More => true,
            };
            self.attached.flush_log();
            self.notify.status(self.reporter.events(), self.account.lost());
            let room = self.reporter.outputs().durable().sink().waits_for().map(Room::of);
            let outputs_due = self.reporter.outputs().due();
            tokio::select! {
                // What comes rarely first: in a storm there always is a kill.
                biased;
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                () = until(deadline) => break "timeout",
                _ = hangup.recv() => self.reopen(),
                () = reader_gone(reader.as_ref()) => return Err(SinkError::Closed.into()),
                () = until(self.account.due().map(Instant::from_std)) => self.compare()?,
                () = until(outputs_due.map(Instant::from_std)) => self.reporter.outputs().write_due(),
                () = until(self.turns.due().map(Instant::from_std)) => {}
                woken = self.turns.woken() => woken.map_err(Ended::Io)?,
                // Not at once: signals are heard only while it waits.
                () = tokio::task::yield_now(), if more => {}
                () = room_in_output(room) => {}
                () = next_tick(&mut watchdog) => {}
            }
        };
        let ends = Instant::now() + LAST_WORDS;
        self.notify.stopping();
        self.compare()?;
        // A second look that comes too late for the output is of no use.
        if let Some(due) = self.account.due().map(Instant::from_std).filter(|due| *due < ends) {
            tokio::time::sleep_until(due).await;
            self.drain()?;
            self.compare()?;
        }
        self.end(reason, ends)
    }

    /// Reports what is left, for as long as a service manager may be made to wait.
    fn end(&mut self, reason: &str, ends: Instant) -> Result<(), Ended> {
        let left = || ends.saturating_duration_since(Instant::now());
        let all = loop {
            match self.drain()? {
                Drained::Enough => break true,
                Drained::Nothing if !self.is_blocked() => break true,
                _ if left().is_zero() => break false,
                Drained::More => {}
                Drained::Nothing => {
                    if !self.reporter.outputs().durable().settle(left())? {
                        break false;
                    }
                }
            }
        };
        self.attached.flush_log();
        self.reporter.stop(reason, self.enricher.own_envelope(), &mut self.account)?;
        let durable = self.reporter.outputs().durable();
        let unreported = if !durable.settle(left())? {
            let waiting = durable.sink().waiting_lines();
            format!("the output did not take the last {waiting} lines, nor what waited behind them")
        } else if !all {
            "kills came faster than the output took them: the last ones were not reported".to_owned()
        } else {
            return Ok(());
        };
        if self.counts.handed_over().is_some() {
            say(&format!("oomtrace: {unreported}; the next `run --pin` reports the kills among them"));
            return Ok(());
        }
        Err(Ended::Failure(Failure::message(Code::RunTime, unreported)))
    }

    /// Reports what the sources have, for one turn at the most.
    fn drain(&mut self) -> Result<Drained, Ended> {
        let began = Instant::now();
        let is_over = || began.elapsed() >= TURN;
        loop {
            self.enricher.look_at_clock();
            let more = self.turns.learn(&mut self.enricher, &mut self.account);
            let was_stalled = self.stalled.is_some();
            if !self.output_takes()? {
                // Nobody reads, but a container may be gone by the time that somebody does.
                return Ok(if self.names(true) || more { Drained::More } else { Drained::Nothing });
            }
            let Some(kills) = self.kills(was_stalled, &is_over)? else { return Ok(Drained::Enough) };
            if kills {
                self.losses()?;
                self.account.compare_soon();
            }
            let others = self.others()?;
            if !self.names(kills) && !kills && !others {
                return Ok(if more { Drained::More } else { Drained::Nothing });
            }
            if is_over() {
                return Ok(Drained::More);
            }
        }
    }

    /// Reports kills until there is none, or the turn is over. Whether there were any; `None` once there were enough.
    fn kills(&mut self, any: bool, is_over: &dyn Fn() -> bool) -> Result<Option<bool>, Ended> {
        let mut any = any;
        loop {
            if self.has_enough() {
                return Ok(None);
            }
            if any && is_over() {
                return Ok(Some(any));
            }
            let Some((at, next)) = self.turns.first(&mut self.enricher, &mut self.account) else {
                return Ok(Some(any));
            };
            self.emit(at, &next)?;
            if self.held.is_some() {
                return Ok(Some(any));
            }
            any = true;
            self.turns.learn_before_first(&mut self.enricher, &mut self.account);
        }
    }

    /// Reports one event of each other source. Whether there was any.
    fn others(&mut self) -> Result<bool, Ended> {
        let mut any = false;
        for at in 0..self.turns.count() {
            if self.held.is_some() {
                break;
            }
            let next = self.turns.in_turn(at, &mut self.enricher, &mut self.account);
            if !matches!(next, Next::Nothing) {
                any = true;
                self.emit(at, &next)?;
            }
        }
        Ok(any)
    }

    /// Reports what a source has. What it was read from goes only when its line is written, and the next run knows of it.
    fn emit(&mut self, at: usize, next: &Next) -> Result<(), Ended> {
        if let Next::Event(event) = next {
            let printed = self.reporter.report(event, &mut self.account)?;
            self.turns.saw(event, printed, &self.enricher, &mut self.account);
        }
        if self.is_blocked() {
            self.held = Some(at);
            return Ok(());
        }
        self.hand_over()?;
        self.turns.written(at);
        Ok(())
    }

    /// Whether the output keeps lines that it could not write.
    fn is_blocked(&mut self) -> bool {
        self.reporter.outputs().durable().is_blocked()
    }

    /// Whether the output has taken every line so far. Until it has, kills wait in the ring.
    fn output_takes(&mut self) -> Result<bool, Ended> {
        match self.reporter.outputs().durable().flush() {
            Ok(()) => {}
            Err(SinkError::Closed) => return Err(SinkError::Closed.into()),
            Err(error) => {
                if self.stalled.is_none() {
                    self.stalled = Some(Instant::now());
                    say(&Failure::from(error).to_string());
                }
                return Ok(false);
            }
        }
        self.hand_over()?;
        if let Some(at) = self.held.take() {
            self.turns.written(at);
        }
        if let Some(since) = self.stalled.take() {
            say(&format!(
                "oomtrace: the output takes lines again, after {:.1} s",
                since.elapsed().as_secs_f64()
            ));
        }
        Ok(true)
    }

    /// Reads names of new cgroups, one after the other, until a kill comes or, where kills never cease, for a moment. True
    /// if there may be more.
    fn names(&mut self, kills_come: bool) -> bool {
        let began = Instant::now();
        while self.enricher.tree_mut().resolve_next() {
            if !kills_come || began.elapsed() >= NAMES_AMID_KILLS {
                return true;
            }
        }
        false
    }

    fn reopen(&mut self) {
        if let Err(error) = self.reporter.outputs().durable().reopen() {
            say(&Failure::from(error).to_string());
        }
    }
}
