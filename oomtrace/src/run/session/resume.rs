//! What a run has to do with the one before it and the one after it.

use tokio::time::Instant;

use crate::{
    accounting::losses::Losses,
    event::{Event, LossReason, Start},
    host::clock,
    run::session::{Drained, Ended, LAST_WORDS, Session, WALK_PAUSE},
    sources::probe::Left,
};

impl Session {
    /// Tells what programs recorded that this run has replaced, and removes them: how many records could
    /// not be read.
    pub(super) fn replaced(&mut self, start: &Start, left: Vec<Left>) -> Result<u64, Ended> {
        let mut unreadable = 0;
        for Left { generation, probe, unreadable: count } in left {
            unreadable += count;
            if let Some(probe) = probe {
                let own = std::mem::replace(&mut self.probe, probe);
                let hooks = self.probe.hooks().to_vec();
                self.resume(Start { hooks, resumed: true, ..start.clone() }, 0)?;
                loop {
                    match self.drain()? {
                        Drained::More => {}
                        Drained::Nothing
                            if self.pipeline.is_stalled() && self.pipeline.settle(LAST_WORDS)? => {}
                        _ => break,
                    }
                }
                self.probe = own;
                // A line that the output keeps is told once more by the next run, which finds its record.
                self.held = false;
                if self.has_enough() || self.pipeline.is_stalled() {
                    continue;
                }
            }
            generation.remove()?;
        }
        Ok(unreadable)
    }

    /// Goes on where the run was that attached these programs.
    pub(super) fn resume(&mut self, start: Start, unreadable: u64) -> Result<(), Ended> {
        if let Some(kept) = self.probe.kept() {
            let losses = Losses::resume(kept.value());
            self.pipeline.resume(losses);
        }
        self.pipeline.unreadable(unreadable);
        self.pipeline.print(&Event::Start(Box::new(start)))?;
        self.losses()
    }

    /// Whether as many kills were told as were asked for.
    pub(super) fn has_enough(&self) -> bool {
        self.count.is_some_and(|count| self.pipeline.kills() >= count)
    }

    /// Tells what was lost.
    pub(super) fn losses(&mut self) -> Result<(), Ended> {
        let counters = self.probe.counters()?;
        self.pipeline.losses(&counters)?;
        self.walk_if_changes_were_lost();
        self.keep_losses()
    }

    /// Finds the cgroups that were made, and those that went, while nobody could be told.
    fn walk_if_changes_were_lost(&mut self) {
        let lost = self.pipeline.known_losses().of(LossReason::CgroupRingFull);
        let (known, not_before) = self.walked;
        let Some(mount) = self.mount.as_deref().filter(|_| lost > known && Instant::now() >= not_before)
        else {
            return;
        };
        // What cannot be walked costs names only.
        let _names_only = self.pipeline.enricher().tree().walk(mount, clock::boot_time());
        self.walked = (lost, Instant::now() + WALK_PAUSE);
    }

    /// Leaves to the next run what this one has told, once the output has it.
    pub(super) fn keep_losses(&mut self) -> Result<(), Ended> {
        if self.pipeline.is_stalled() {
            return Ok(());
        }
        if let Some(kept) = self.probe.kept() {
            kept.keep(|value| {
                self.pipeline.known_losses().keep(value);
                self.reconciliation.keep(value);
            })?;
        }
        Ok(())
    }

    /// Holds what the programs saw against the kernel's own count.
    pub(super) fn reconcile(&mut self) -> Result<(), Ended> {
        let envelope = self.pipeline.enricher().own_envelope();
        if let Some(gap) = self.reconciliation.look(&self.probe, &mut self.pipeline, envelope)? {
            self.pipeline.print(&Event::Gap(Box::new(gap)))?;
        }
        self.keep_losses()
    }
}
