//! The event loop of a run: reads facts from the sources and writes lines to the outputs, until the run must
//! end.

mod ended;
mod resume;
mod turns;
mod wait;

use std::{path::PathBuf, time::Duration};

pub(crate) use ended::Ended;
pub(crate) use resume::Asked;
use tokio::{signal::unix::SignalKind, time::Instant};
use turns::Turns;
use wait::{
    Alarm, Room, any_readable, next_tick, on, reader_gone, reader_of, room_in_output, until, wakeups,
};

use crate::{
    accounting::Account,
    cgroups::file_thread::FileThread,
    enrich::enricher::Enricher,
    event::Start,
    failure::{Code, Failure},
    outputs::transport::SinkError,
    run::{notify::Notify, reporter::Reporter, warm::settle},
    sources::{
        Next, Source,
        kills::Records,
        probe::{Attached, Counts, Replaced},
    },
    stderr::say,
};

/// How long a run may take to end. The operator may give the service manager as little as 2 s. What remains
/// of these is for detaching the programs.
const END_TIME: Duration = Duration::from_millis(1700);

/// How long kills are reported before the loop does anything else. A storm of kills may be faster than every
/// output.
const TURN: Duration = Duration::from_millis(100);

/// How long the names of new cgroups are read in each turn during a storm of kills. A container may be
/// removed before the storm ends.
const NAMES_AMID_KILLS: Duration = Duration::from_millis(10);

/// The result of asking all sources.
enum Drained {
    /// The number of kills that `--count` asks for was reported.
    Enough,
    /// Nothing more can be reported now.
    Nothing,
    /// There is more to report, but the turn is over.
    More,
}

/// The parts of a session.
pub(crate) struct Parts {
    /// Keeps the programs attached.
    pub(crate) attached: Attached,
    /// The programs' counters.
    pub(crate) counts: Counts,
    /// Reads the programs' records.
    pub(crate) records: Records,
    /// The sources of facts.
    pub(crate) sources: Vec<Box<dyn Source>>,
    /// Turns facts into events.
    pub(crate) enricher: Enricher,
    /// Counts what was reported and what was lost.
    pub(crate) account: Account,
    /// Turns events into lines.
    pub(crate) reporter: Reporter,
    /// Where the memory cgroups are mounted.
    pub(crate) mount: Option<PathBuf>,
    /// Reads the files of cgroups.
    pub(crate) files: FileThread,
    /// What the operator asked for.
    pub(crate) asked: Asked,
}

/// A run, from its first line to its last.
pub(crate) struct Session {
    attached: Attached,
    counts: Counts,
    records: Records,
    turns: Turns,
    enricher: Enricher,
    account: Account,
    reporter: Reporter,
    mount: Option<PathBuf>,
    files: FileThread,
    asked: Asked,
    /// The source whose last line the output keeps. Its record stays in the ring until that line is written.
    held: Option<usize>,
    /// Since when the output has taken no lines.
    stalled: Option<Instant>,
    notify: Notify,
}

impl Session {
    /// Starts a session. The programs are attached already.
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
            files: parts.files,
            asked: parts.asked,
            held: None,
            stalled: None,
            notify: Notify::from_env(),
        }
    }

    /// Prints the first line and the kills of earlier runs. The programs are attached already, so no kill is
    /// missed in between.
    fn first(&mut self, start: Start, unreadable: u64) -> Result<(), Ended> {
        self.resume(start, unreadable)?;
        self.account.begin(self.counts.handed_over(), || self.counts.read())?;
        self.hand_over()?;
        self.turns.begin(&mut self.enricher, &mut self.account);
        if let Some(mount) = &self.mount {
            self.account.know_cgroups(mount.clone(), &self.files, || self.counts.read())?;
        }
        Ok(())
    }

    /// Reports events until the run must end.
    pub(crate) async fn run(
        &mut self,
        start: Start,
        replaced: Vec<Replaced>,
        timeout: Option<Duration>,
    ) -> Result<(), Ended> {
        // Signals are caught before the first line is printed: a reader of that line may send one at once.
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        let unreadable = self.replaced(&start, replaced)?;
        let known = start.limits.clone();
        self.first(start, unreadable)?;
        self.turns.listen()?;
        let reader = self.reporter.outputs().durable().sink().only_reader();
        let reader = reader.map(|pipe| reader_of(&pipe)).transpose()?;
        let asked = self.reporter.outputs().descriptors();
        let asked = asked.iter().map(wakeups).collect::<Result<Vec<_>, _>>()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (mut watchdog, mut alarm, mut clock) = (self.notify.ticks(), Alarm::new()?, Alarm::new()?);
        settle(self.enricher.version(), self.reporter.outputs().durable(), &known);
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
            alarm.set(self.reporter.outputs().due().map(Instant::from_std));
            clock.set(self.turns.due().map(Instant::from_std));
            tokio::select! {
                // Rare events come first: in a storm of kills the others are always ready.
                biased;
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                () = until(deadline) => break "timeout",
                _ = hangup.recv() => self.reopen(),
                () = reader_gone(reader.as_ref()) => return Err(SinkError::Closed.into()),
                () = until(self.account.due().map(Instant::from_std)) => self.compare()?,
                () = alarm.rings() => self.reporter.outputs().write_due(),
                () = any_readable(&asked) => self.reporter.outputs().answer(),
                () = clock.rings() => {}
                woken = self.turns.woken() => woken.map_err(Ended::Io)?,
                // The loop yields here, because signals arrive only while it waits.
                () = tokio::task::yield_now(), if more => {}
                () = room_in_output(room) => {}
                () = next_tick(&mut watchdog) => {}
            }
        };
        let ends = Instant::now() + END_TIME;
        self.notify.stopping();
        self.turns.ending();
        self.compare()?;
        // Wait for the second comparison only if the output still has time to take its line.
        if let Some(due) = self.account.due().map(Instant::from_std).filter(|due| *due < ends) {
            tokio::time::sleep_until(due).await;
            self.drain()?;
            self.compare()?;
        }
        self.end(reason, ends)
    }

    /// Reports what is left, until `ends`.
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
        self.account.counted(&self.counts.read()?);
        self.reporter.outputs().give_up();
        self.losses()?;
        self.reporter.stop(reason, self.enricher.own_envelope(), &mut self.account)?;
        self.hand_over()?;
        self.reporter.outputs().end();
        let durable = self.reporter.outputs().durable();
        let unreported = if !durable.settle(left())? {
            let waiting = durable.sink().waiting_lines();
            format!(
                "the output did not take the last {waiting} lines, and the records after them were not reported"
            )
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
            self.turns.learn_before_first(&mut self.enricher, &mut self.account);
            let was_stalled = self.stalled.is_some();
            if !self.output_takes()? {
                // The output takes no lines, but names must be read now: a container may be removed before it
                // takes lines again.
                let more = self.turns.learn(&mut self.enricher, &mut self.account);
                return Ok(if self.names(true) || more { Drained::More } else { Drained::Nothing });
            }
            let Some(kills) = self.kills(was_stalled, &is_over)? else { return Ok(Drained::Enough) };
            if kills {
                // Kills are news too.
                self.account.take_news();
                self.losses()?;
                self.account.compare_soon();
            }
            // After the kills: others have more to read, above all the kernel log, and must not delay a kill.
            let more = self.turns.learn(&mut self.enricher, &mut self.account);
            let others = self.others()?;
            if self.account.take_news() {
                self.losses()?;
            }
            if !self.names(kills) && !kills && !others {
                return Ok(if more { Drained::More } else { Drained::Nothing });
            }
            if is_over() {
                return Ok(Drained::More);
            }
        }
    }

    /// Reports kills until there are none, or the turn is over. Returns whether there were any; `None` if
    /// `--count` is reached.
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

    /// Reports one event of each other source. Returns whether there was any.
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

    /// Reports the event of a source. Its record is removed only when the line is written and handed over to
    /// the next run.
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

    /// Whether the output has taken every line so far. Until then, kills wait in the ring.
    fn output_takes(&mut self) -> Result<bool, Ended> {
        match self.reporter.outputs().durable().flush() {
            Ok(()) => {}
            Err(SinkError::Closed) => return Err(SinkError::Closed.into()),
            Err(error) => {
                if self.stalled.is_none() {
                    self.stalled = Some(Instant::now());
                    self.reporter.outputs().blocked();
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
            self.reporter.outputs().blocked();
            say(&format!(
                "oomtrace: the output takes lines again, after {:.1} s",
                since.elapsed().as_secs_f64()
            ));
        }
        Ok(true)
    }

    /// Reads the names of new cgroups, one at a time, until a kill may have come; during a storm of kills,
    /// for a short time. Returns whether there may be more.
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
