//! How a run continues an earlier run, and what it leaves for the next one.

use crate::{
    enrich::enricher::HookState,
    event::{Event, Start},
    run::session::{Drained, END_TIME, Ended, Session, Turns},
    sources::{
        Source,
        cgroup_changes::CgroupChanges,
        kills::Kills,
        probe::{Probe, Replaced},
        signal_kills::{SignalChoice, SignalKills},
    },
};

/// What the operator asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// End after this many kills.
    pub(crate) count: Option<u64>,
    /// Which signals are reported.
    pub(crate) signals: SignalChoice,
}

impl Session {
    /// Reports what is left in the rings of the programs that this run replaced, and removes these programs.
    /// Returns how many records could not be read.
    pub(super) fn replaced(&mut self, start: &Start, replaced: Vec<Replaced>) -> Result<u64, Ended> {
        let mut unreadable = 0;
        for Replaced { generation, probe, unreadable: count } in replaced {
            unreadable += count;
            if let Some(probe) = probe
                && !self.recorded(start, probe)?
            {
                continue;
            }
            generation.remove()?;
        }
        Ok(unreadable)
    }

    /// Reports what is left in the rings of other programs. Returns false if not all of it was reported.
    fn recorded(&mut self, start: &Start, probe: Probe) -> Result<bool, Ended> {
        let (hooks, hooked) = (probe.hooks().to_vec(), probe.is_hooked());
        let (_attached, rings, counts) = probe.into_parts();
        let sources: Vec<Box<dyn Source>> = vec![
            Box::new(CgroupChanges::new(rings.cgroups, self.records.clone(), None)),
            Box::new(Kills::new(rings.kills, rings.missed_signals, self.records.clone())),
            Box::new(SignalKills::new(
                rings.signals,
                self.records.clone(),
                self.asked.signals,
                self.mount.clone(),
            )),
        ];
        let own_turns = std::mem::replace(&mut self.turns, Turns::new(sources));
        let own_counts = std::mem::replace(&mut self.counts, counts);
        let own_hooks = self.enricher.set_hooks(if hooked { HookState::Running } else { HookState::None });
        self.resume(Start { hooks, resumed: true, ..start.clone() }, 0)?;
        self.turns.ending();
        loop {
            match self.drain()? {
                Drained::More => {}
                Drained::Nothing
                    if self.is_blocked() && self.reporter.outputs().durable().settle(END_TIME)? => {}
                _ => break,
            }
        }
        self.enricher.set_hooks(own_hooks);
        self.turns = own_turns;
        self.counts = own_counts;
        // If the output still keeps a line, the next run finds its record and prints it again.
        self.held = None;
        Ok(!self.has_enough() && !self.is_blocked())
    }

    /// Continues the run that attached these programs.
    pub(super) fn resume(&mut self, start: Start, unreadable: u64) -> Result<(), Ended> {
        if let Some(handed_over) = self.counts.handed_over() {
            self.account.resume(handed_over);
            self.enricher.resume(handed_over);
        }
        self.account.unreadable(unreadable);
        self.enricher.set_stream(self.counts.stream().to_string());
        let envelope = self.enricher.own_envelope();
        let start = Start { envelope, ..start };
        self.reporter.print(&Event::Start(Box::new(start)), &mut self.account)?;
        self.losses()
    }

    /// Whether the number of kills that `--count` asks for was reported.
    pub(super) fn has_enough(&self) -> bool {
        self.asked.count.is_some_and(|count| self.reporter.kills() >= count)
    }

    /// Reports losses.
    pub(super) fn losses(&mut self) -> Result<(), Ended> {
        self.account.counted(&self.counts.read()?);
        self.reporter.losses(&mut self.account, || self.enricher.own_envelope())?;
        self.hand_over()
    }

    /// Hands over to the next run what this run has reported, once the output has taken it.
    pub(super) fn hand_over(&mut self) -> Result<(), Ended> {
        if !self.is_blocked() {
            self.reporter.outputs().hand_over();
            self.counts.hand_over(|to| {
                self.account.hand_over(to);
                self.enricher.hand_over(to);
            })?;
        }
        Ok(())
    }

    /// Compares what the programs saw with the kernel's own count.
    pub(super) fn compare(&mut self) -> Result<(), Ended> {
        let envelope = self.enricher.own_envelope();
        let gap =
            self.account.compare(|| self.counts.read(), envelope, |time| self.enricher.text_of(time))?;
        if let Some(gap) = gap {
            self.reporter.print(&Event::Gap(Box::new(gap)), &mut self.account)?;
        }
        self.hand_over()
    }
}
