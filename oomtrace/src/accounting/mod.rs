//! Accounts for a run: what was reported, what was lost, what the kernel itself counted, and what is handed
//! over to the next run.
//!
//! [`Account`] is the only entry. Sources report what they saw. The loop reports what the output refused, and
//! asks for the losses and gaps that are still to be reported. Nothing here talks to the programs: the caller
//! passes their counters.

mod cgroup_counts;
mod difference;
mod kills_by_cgroup;
mod losses;
mod reconciliation;

use std::{path::PathBuf, time::Instant};

use oomtrace_common::{counter, pinned::Pinned};

use crate::{
    accounting::{losses::Losses, reconciliation::Reconciliation},
    cgroups::file_thread::FileThread,
    event::{Envelope, Gap, LossReason, Lost},
    facts::{BootTime, Counters, Lineage},
};

/// The account of a run.
#[derive(Debug)]
pub struct Account {
    losses: Losses,
    reconciliation: Reconciliation,
    /// Lost events that replaced programs had counted.
    lost_before: u64,
    signals: SignalCounts,
    /// Something changed since the losses were last reported.
    news: bool,
}

/// Signals that ended processes.
#[derive(Clone, Copy, Debug, Default)]
struct SignalCounts {
    /// What the programs have counted.
    seen: u64,
    /// As `seen`, when this run began; `None` if signals are not followed.
    before: Option<u64>,
    /// Those of this run that have a line.
    told: u64,
}

impl Account {
    /// An empty account. `vmstat` is where the kernel counts kills; `None` if the programs cannot count the
    /// same kills.
    pub fn new(vmstat: Option<PathBuf>, v1: bool) -> Self {
        Self {
            losses: Losses::default(),
            reconciliation: Reconciliation::new(vmstat, v1),
            lost_before: 0,
            signals: SignalCounts::default(),
            news: false,
        }
    }

    /// An event with this number arrived. Each number between it and the last one is a lost event.
    pub fn saw_number(&mut self, seq: u64) {
        self.news = true;
        self.losses.saw(seq);
    }

    /// A kill arrived that the kernel counts too.
    pub fn saw_kill(&mut self, lineage: &Lineage, time: BootTime) {
        self.reconciliation.saw(lineage, time);
    }

    /// Records of kills cannot be read.
    pub fn unreadable(&mut self, count: u64) {
        self.news = true;
        self.losses.unreadable(count);
        if count > 0 {
            self.reconciliation.saw_unreadable();
        }
    }

    /// The output refused a line.
    pub fn refused(&mut self) {
        self.losses.refused();
    }

    /// Cgroups that are not kept, and names that were not read.
    pub fn names_lost(&mut self, cgroups: u64, names: u64) {
        self.losses.names(cgroups, names);
    }

    /// A best-effort output could not take lines.
    pub fn lost_beside(&mut self, reason: LossReason, count: u64) {
        self.losses.beside(reason, count);
    }

    /// A kill will have no verdict.
    pub fn no_verdict(&mut self) {
        self.losses.no_verdict();
    }

    /// From here on signals are followed.
    pub fn follow_signals(&mut self) {
        self.signals.before = Some(self.signals.seen);
    }

    /// A record of signals came, and `told` of them have a line.
    pub fn saw_signals(&mut self, told: u64) {
        self.news = true;
        self.signals.told = self.signals.told.saturating_add(told);
    }

    /// How many signals of this run have no line so far; `None` if they are not followed.
    pub fn signals_left_out(&self) -> Option<u64> {
        let SignalCounts { seen, before, told } = self.signals;
        before.map(|before| seen.saturating_sub(before).saturating_sub(told))
    }

    /// A kill will be in no incident.
    pub fn no_incident(&mut self) {
        self.losses.no_incident();
    }

    /// Events that this run lost.
    pub fn lost(&self) -> u64 {
        self.lost_before.saturating_add(self.losses.events())
    }

    /// How many events were lost for this reason since the programs were attached.
    pub fn lost_for(&self, reason: LossReason) -> u64 {
        self.losses.of(reason)
    }

    /// Whether something changed since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Takes in the kernel side's counters. They must be read after the rings were drained.
    pub fn counted(&mut self, counters: &Counters) {
        self.signals.seen = counters.get(counter::SIGKILLED);
        self.losses.counted(counters);
    }

    /// The lines of losses that are still to be reported.
    pub fn unreported(&self, mut envelope: impl FnMut() -> Envelope) -> Vec<Lost> {
        let lost = |(reason, count): (LossReason, u64)| {
            let (mut envelope, total) = (envelope(), self.losses.of(reason));
            // The same loss keeps the same id, because the next run may report it again.
            let stream = envelope.stream.as_deref().unwrap_or_default();
            envelope.id = Some(format!("{stream}-lost-{}-{total}", reason.word()));
            Lost { envelope, count, reason, total, truncated: Vec::new() }
        };
        self.losses.unreported().into_iter().map(lost).collect()
    }

    /// The output took this line.
    pub fn reported(&mut self, lost: &Lost) {
        self.losses.reported(lost.reason, lost.count);
    }

    /// Continues the losses of an earlier run. Those of this run so far stay counted.
    pub fn resume(&mut self, handed_over: &Pinned) {
        self.lost_before = self.lost();
        self.losses = Losses::resume(handed_over);
    }

    /// Writes what the next run needs.
    pub fn hand_over(&self, to: &mut Pinned) {
        self.losses.hand_over(to);
        self.reconciliation.hand_over(to);
    }

    /// Starts to compare with the kernel's own count, from the state of an earlier run or from now.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn begin<E>(
        &mut self,
        handed_over: Option<&Pinned>,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        self.reconciliation.begin(handed_over, counters)
    }

    /// Reads the counts of the cgroups. Later ones are read by the thread.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn know_cgroups<E>(
        &mut self,
        mount: PathBuf,
        thread: &FileThread,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        self.reconciliation.know_cgroups(mount, thread, counters)
    }

    /// Kills arrived, so the kernel's own count must be compared soon.
    pub fn compare_soon(&mut self) {
        self.reconciliation.ask_soon();
    }

    /// When to call [`Self::compare`].
    pub fn due(&self) -> Option<Instant> {
        self.reconciliation.due()
    }

    /// Compares with the kernel's own count. Returns the line of a gap that the last comparison found too.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn compare<E>(
        &mut self,
        counters: impl Fn() -> Result<Counters, E>,
        envelope: Envelope,
        text_of: impl Fn(BootTime) -> String,
    ) -> Result<Option<Gap>, E> {
        let found = self.reconciliation.look(counters)?;
        Ok(found.map(|(gap, cgroups)| Gap {
            // The same gap keeps the same id, because the next run may report it again.
            envelope: Envelope {
                id: envelope.stream.as_ref().map(|stream| {
                    format!("{stream}-gap-{}-{}-{}", gap.since.0, gap.kernel_kills, gap.reported)
                }),
                ..envelope
            },
            kernel_kills: gap.kernel_kills,
            reported: gap.reported,
            since: text_of(gap.since),
            cgroups,
            truncated: Vec::new(),
        }))
    }
}
