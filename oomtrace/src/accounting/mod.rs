//! The books of a run: what was reported, what was lost, what the kernel counted beside it, and what one run hands to
//! the next.
//!
//! [`Account`] is the only way in. Sources say what they saw, the loop says what the output did not take, and asks for
//! the losses and gaps that are still to be reported. Nothing here talks to the programs: their counters are handed in.

mod difference;
mod kills_by_cgroup;
mod losses;
mod reconciliation;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use oomtrace_common::pinned::Pinned;

use crate::{
    accounting::{losses::Losses, reconciliation::Reconciliation},
    cgroups::tree::CgroupTree,
    event::{Envelope, Gap, LossReason, Lost},
    facts::{BootTime, Counters, Lineage},
};

/// The books of a run.
#[derive(Debug)]
pub struct Account {
    losses: Losses,
    reconciliation: Reconciliation,
    /// Events lost that programs had counted which this run has replaced.
    lost_before: u64,
    /// Something came since the losses were looked at last.
    news: bool,
}

impl Account {
    /// Nothing yet. `vmstat` is where the kernel counts kills; `None` where the programs cannot tell what it counts.
    pub fn new(vmstat: Option<PathBuf>, v1: bool) -> Self {
        Self {
            losses: Losses::default(),
            reconciliation: Reconciliation::new(vmstat, v1),
            lost_before: 0,
            news: false,
        }
    }

    /// An event with this number came. Each number between it and the last one is an event that did not.
    pub fn saw_number(&mut self, seq: u64) {
        self.news = true;
        self.losses.saw(seq);
    }

    /// A kill came that the kernel counts too.
    pub fn saw_kill(&mut self, lineage: &Lineage, time: BootTime) {
        self.reconciliation.saw(lineage, time);
    }

    /// Records of kills that cannot be read.
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

    /// A kill will have no verdict.
    pub fn no_verdict(&mut self) {
        self.losses.no_verdict();
    }

    /// Events that were lost in this run.
    pub fn lost(&self) -> u64 {
        self.lost_before.saturating_add(self.losses.events())
    }

    /// How many were lost for this reason since the programs were attached.
    pub fn lost_for(&self, reason: LossReason) -> u64 {
        self.losses.of(reason)
    }

    /// Whether something came since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Takes in the kernel side's counters, read after the rings were drained.
    pub fn counted(&mut self, counters: &Counters) {
        self.losses.counted(counters);
    }

    /// The lines of losses that are still to be reported.
    pub fn unreported(&self, mut envelope: impl FnMut() -> Envelope) -> Vec<Lost> {
        let lost = |(reason, count): (LossReason, u64)| {
            let (mut envelope, total) = (envelope(), self.losses.of(reason));
            // The next run says it once more where it does not know that this one did.
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

    /// Goes on with the losses of an earlier run. Those of this run so far stay counted.
    pub fn resume(&mut self, handed_over: &Pinned) {
        self.lost_before = self.lost();
        self.losses = Losses::resume(handed_over);
    }

    /// Writes down what the next run needs.
    pub fn hand_over(&self, to: &mut Pinned) {
        self.losses.hand_over(to);
        self.reconciliation.hand_over(to);
    }

    /// Begins to compare with the kernel's own count: from where an earlier run was, or from now.
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

    /// Reads what the cgroups have counted so far.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn know_cgroups<E>(
        &mut self,
        mount: &Path,
        tree: &CgroupTree,
        counters: impl Fn() -> Result<Counters, E>,
    ) -> Result<(), E> {
        self.reconciliation.know_cgroups(mount, tree, counters)
    }

    /// Kills came: the kernel's own count is worth a look.
    pub fn compare_soon(&mut self) {
        self.reconciliation.ask_soon();
    }

    /// When to call [`Self::compare`].
    pub fn due(&self) -> Option<Instant> {
        self.reconciliation.due()
    }

    /// Compares with the kernel's own count: the line of a gap that was there at the last look too.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn compare<E>(
        &mut self,
        counters: impl Fn() -> Result<Counters, E>,
        tree: &CgroupTree,
        envelope: Envelope,
        text_of: impl Fn(BootTime) -> String,
    ) -> Result<Option<Gap>, E> {
        let found = self.reconciliation.look(counters, tree)?;
        Ok(found.map(|(gap, cgroups)| Gap {
            // The next run says it once more where it does not know that this one did.
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
