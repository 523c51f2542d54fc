//! The event loop of a run: records in, lines out, until it is asked to end.

mod resume;
mod wait;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{signal::unix::SignalKind, time::Instant};
use wait::{Room, next_tick, on, readable, reader_gone, reader_of, room_in_output, until, wakeups};

use crate::{
    accounting::reconciliation::Reconciliation,
    event::{LossReason, Start},
    failure::{Code, Failure},
    host::clock,
    outputs::transport::SinkError,
    run::{notify::Notify, pipeline::Pipeline},
    sources::{
        cgroup_files::Watch,
        earlier_kills::Backfill,
        probe::{Left, PinError, Probe, ProbeError, Ring},
    },
    stderr::say,
};

/// How long a run may take to end, once it is asked to. A service manager may be told 2 s: the rest is for the programs,
/// which are detached after that.
const LAST_WORDS: Duration = Duration::from_millis(1700);

/// How long kills are told without a look at anything else: a storm of them may outlast every output.
const TURN: Duration = Duration::from_millis(100);

/// The cgroups are walked again, after changes were lost, no more often than this: 10,000 take 0.2 s.
const WALK_PAUSE: Duration = Duration::from_secs(10);

/// How long names of new cgroups are read meanwhile, each turn: a container may be gone before the storm is.
const NAMES_AMID_KILLS: Duration = Duration::from_millis(10);

/// What became of the rings.
enum Drained {
    /// As many kills were told as were asked for.
    Enough,
    /// There is no more that could be told now.
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

/// A run from its first line to its last.
pub(crate) struct Session {
    probe: Probe,
    pipeline: Pipeline,
    record: Option<File>,
    count: Option<u64>,
    /// What is told before anything live.
    backfill: Backfill,
    /// The output had to keep the line of the oldest record, which is in the ring until it is written.
    held: bool,
    /// Since when the output takes nothing.
    stalled: Option<Instant>,
    notify: Notify,
    reconciliation: Reconciliation,
    /// The cgroups' files, where no function hook tells of one that runs out without a kill.
    watch: Option<Watch>,
    /// Where the cgroups are.
    mount: Option<PathBuf>,
    /// Changes of cgroups that were lost when they were walked last, and when that may be done again.
    walked: (u64, Instant),
}

impl Session {
    /// One whose programs are attached.
    pub(crate) fn new(
        probe: Probe,
        pipeline: Pipeline,
        record: Option<File>,
        count: Option<u64>,
        backfill: Backfill,
        reconciliation: Reconciliation,
    ) -> Self {
        let notify = Notify::from_env();
        Self {
            probe,
            pipeline,
            record,
            count,
            backfill,
            held: false,
            stalled: None,
            notify,
            reconciliation,
            watch: None,
            mount: None,
            walked: (0, Instant::now()),
        }
    }

    /// The first line, and the cgroups that were there before. The programs are attached already, so
    /// nothing falls between.
    fn first(&mut self, start: Start, unreadable: u64, mount: Option<&Path>) -> Result<(), Ended> {
        self.resume(start, unreadable)?;
        self.reconciliation.begin(&mut self.probe)?;
        self.mount = mount.map(Path::to_owned);
        if let Some(mount) = mount {
            self.cgroup_changes();
            // A cgroup that vanishes during the walk is no error; one that cannot be walked costs names only.
            let _names_only = self.pipeline.enricher().tree().walk(mount, clock::boot_time());
            self.walked.0 = self.pipeline.known_losses().of(LossReason::CgroupRingFull);
            if !self.probe.is_hooked() {
                let v1 = self.pipeline.enricher().is_v1();
                self.watch = Some(Watch::start(mount.to_owned(), v1, self.pipeline.enricher().tree()));
            }
            self.reconciliation.know_cgroups(mount, &self.probe, &mut self.pipeline)?;
        }
        // A kill that the log had when it was read and that is live is in the ring by now.
        if let Some(record) = self.probe.kills().next() {
            self.backfill.end_before(self.pipeline.moment(&record));
            Ring::leave(record);
        }
        Ok(())
    }

    /// Tells of each event until it is asked to end.
    pub(crate) async fn run(
        &mut self,
        start: Start,
        left: Vec<Left>,
        mount: Option<&Path>,
        timeout: Option<Duration>,
    ) -> Result<(), Ended> {
        // Who has read the first line may ask for the last: a signal is heard from before it on.
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        let unreadable = self.replaced(&start, left)?;
        self.first(start, unreadable, mount)?;
        let (kills, cgroups) = self.probe.rings();
        let (kills, cgroups) = (wakeups(kills)?, wakeups(cgroups)?);
        let log = self.pipeline.enricher().log_mut().map(|log| wakeups(log)).transpose()?;
        let reader = self.pipeline.sink().only_reader().map(|pipe| reader_of(&pipe)).transpose()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut watchdog = self.notify.period().map(tokio::time::interval);
        if let Some(watchdog) = &mut watchdog {
            watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        self.notify.ready();
        let reason = loop {
            self.notify.alive();
            let more = match self.drain()? {
                Drained::Enough => break "count",
                Drained::Nothing => false,
                Drained::More => true,
            };
            self.probe.flush_log();
            self.notify.status(self.pipeline.events(), self.pipeline.lost());
            let room = self.pipeline.sink().waits_for().map(Room::of);
            tokio::select! {
                // What comes rarely first: in a storm there always is a kill.
                biased;
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                () = until(deadline) => break "timeout",
                _ = hangup.recv() => self.reopen(),
                () = reader_gone(reader.as_ref()) => return Err(SinkError::Closed.into()),
                () = until(self.reconciliation.due()) => self.reconcile()?,
                () = until(self.watch.as_ref().and_then(Watch::due).map(Instant::from_std)) => self.look_for_unkilled()?,
                answer = self.pipeline.next_verdict() => self.pipeline.verdict(answer)?,
                ready = readable(log.as_ref()) => {
                    let mut ready = ready.map_err(Ended::Io)?;
                    if self.read_log() {
                        ready.clear_ready();
                    }
                }
                ready = kills.readable() => ready.map_err(Ended::Io)?.clear_ready(),
                ready = cgroups.readable() => ready.map_err(Ended::Io)?.clear_ready(),
                // Not at once: signals are heard only while it waits.
                () = tokio::task::yield_now(), if more => {}
                () = room_in_output(room) => {}
                () = next_tick(&mut watchdog) => {}
            }
        };
        let ends = Instant::now() + LAST_WORDS;
        self.notify.stopping();
        self.reconcile()?;
        // A second look that comes too late for the output is of no use.
        if let Some(due) = self.reconciliation.due().filter(|due| *due < ends) {
            tokio::time::sleep_until(due).await;
            self.drain()?;
            self.reconcile()?;
        }
        self.end(reason, ends)
    }

    /// Tells what is left, for as long as a service manager may be made to wait.
    fn end(&mut self, reason: &str, ends: Instant) -> Result<(), Ended> {
        let left = || ends.saturating_duration_since(Instant::now());
        let all = loop {
            match self.drain()? {
                Drained::Enough => break true,
                Drained::Nothing if !self.pipeline.is_stalled() => break true,
                _ if left().is_zero() => break false,
                Drained::More => {}
                Drained::Nothing => {
                    if !self.pipeline.settle(left())? {
                        break false;
                    }
                }
            }
        };
        self.probe.flush_log();
        self.pipeline.stop(reason)?;
        let untold = if !self.pipeline.settle(left())? {
            let kept = self.pipeline.sink().kept();
            format!("the output did not take the last {kept} lines, nor what waited behind them")
        } else if !all {
            "kills came faster than the output took them: the last ones were not told".to_owned()
        } else {
            return Ok(());
        };
        if self.probe.kept().is_some() {
            say(&format!("oomtrace: {untold}; the next `run --pin` tells of the kills among them"));
            return Ok(());
        }
        Err(Ended::Failure(Failure::message(Code::RunTime, untold)))
    }

    /// Tells of what the rings hold, for one turn at the most.
    fn drain(&mut self) -> Result<Drained, Ended> {
        let began = Instant::now();
        let is_over = || began.elapsed() >= TURN;
        loop {
            let more_changes = self.cgroup_changes();
            let mut told = self.stalled.is_some();
            if !self.output_takes()? {
                // Nobody reads, but a container may be gone by the time that somebody does.
                return Ok(if self.names(true) || more_changes { Drained::More } else { Drained::Nothing });
            }
            loop {
                if self.has_enough() {
                    return Ok(Drained::Enough);
                }
                if told && is_over() {
                    break;
                }
                if let Some(kill) = self.backfill.next() {
                    self.pipeline.logged_kill(&kill)?;
                    if self.pipeline.is_stalled() {
                        return Ok(Drained::Nothing);
                    }
                    if is_over() {
                        return Ok(Drained::More);
                    }
                    continue;
                }
                let Some((record, kept)) = self.probe.next_kill() else { break };
                if let Some(file) = &mut self.record {
                    keep(file, &record).map_err(Ended::Io)?;
                }
                // The record leaves the ring after its line was written.
                if let Err(error) = self.pipeline.kill(&record) {
                    Ring::leave(record);
                    return Err(error.into());
                }
                if self.pipeline.is_stalled() {
                    Ring::leave(record);
                    self.held = true;
                    break;
                }
                if let Some(kept) = kept {
                    kept.keep(|value| self.pipeline.known_losses().keep(value))?;
                }
                drop(record);
                told = true;
                self.cgroup_changes();
            }
            if told {
                self.losses()?;
                if let Some(watch) = &mut self.watch {
                    watch.killed(std::time::Instant::now());
                }
                self.look_for_unkilled()?;
                self.reconciliation.something_happened();
            }
            if !self.names(told) && !told {
                return Ok(if more_changes { Drained::More } else { Drained::Nothing });
            }
            if is_over() {
                return Ok(Drained::More);
            }
        }
    }

    /// Whether the output has taken every line so far. Until it has, kills wait in the ring.
    fn output_takes(&mut self) -> Result<bool, Ended> {
        match self.pipeline.flush() {
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
        self.keep_losses()?;
        if std::mem::take(&mut self.held) {
            drop(self.probe.kills().next());
        }
        if let Some(since) = self.stalled.take() {
            say(&format!(
                "oomtrace: the output takes lines again, after {:.1} s",
                since.elapsed().as_secs_f64()
            ));
        }
        Ok(true)
    }

    /// What became of cgroups before the next kill.
    ///
    /// True if there may be more: who makes and renames cgroups without end must not keep kills from being told.
    fn cgroup_changes(&mut self) -> bool {
        let began = Instant::now();
        while let Some(record) = self.probe.cgroups().next() {
            if let Some(file) = &mut self.record {
                let _not_an_event = keep(file, &record);
            }
            self.pipeline.cgroup(&record);
            drop(record);
            if began.elapsed() >= TURN {
                return true;
            }
        }
        false
    }

    /// Reads names of new cgroups, one after the other, until a kill comes or, where kills never cease, for a moment. True
    /// if there may be more.
    fn names(&mut self, kills_come: bool) -> bool {
        let began = Instant::now();
        while self.pipeline.enricher().tree().resolve_next() {
            if !kills_come || began.elapsed() >= NAMES_AMID_KILLS {
                return true;
            }
        }
        false
    }

    /// Tells of cgroups that ran out without a kill, as far as their files say so by now.
    fn look_for_unkilled(&mut self) -> Result<(), Ended> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let tree = self.pipeline.enricher().tree();
        for found in watch.look(tree, std::time::Instant::now()) {
            self.pipeline.unkilled(&found)?;
        }
        Ok(())
    }

    /// The killer's report is written before its victim is marked, so it is read while the killer works. False if there is
    /// more to read, after a look at all else.
    fn read_log(&mut self) -> bool {
        // A kill reads the log itself: what is not to be had now is not missed.
        self.pipeline.enricher().log_mut().is_none_or(|log| log.catch_up().unwrap_or(true))
    }

    fn reopen(&mut self) {
        if let Err(error) = self.pipeline.sink().reopen() {
            say(&Failure::from(error).to_string());
        }
    }
}

/// Length, then bytes: what `replay` reads.
fn keep(file: &mut File, record: &[u8]) -> io::Result<()> {
    let len = u32::try_from(record.len()).map_err(io::Error::other)?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(record)
}
