//! The line from a record to a line of output: bytes in, bytes out, and no kernel in sight.
//!
//! A record that cannot be read, a fact that is missing and an output that refuses end
//! nothing: they are counted, and told.

use crate::{
    decode::{Decoder, Record},
    enrich::enricher::Enricher,
    event::{Event, Lost, OomKill, Scope, Stop},
    losses::{Counters, Losses},
    render::Render,
    sink::{Sink, SinkError},
};

/// Which kills are printed. What is filtered out is not lost.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of the container with this name, id or id prefix of at least 12 digits.
    pub container: Option<String>,
    /// Only where this ran out.
    pub scope: Option<Scope>,
}

impl Filter {
    fn takes(&self, kill: &OomKill) -> bool {
        let scope = self.scope.is_none_or(|scope| kill.oom.scope.is_none_or(|of| of == scope));
        let container = self.container.as_deref().is_none_or(|wanted| {
            kill.container.as_ref().is_some_and(|container| {
                container.name.as_deref() == Some(wanted)
                    || container.id == wanted
                    || (wanted.len() >= 12 && container.id.starts_with(wanted))
            })
        });
        scope && container
    }
}

/// From records to lines.
pub struct Pipeline {
    decoder: Decoder,
    enricher: Enricher,
    filter: Filter,
    render: Render,
    sink: Box<dyn Sink>,
    losses: Losses,
    line: Vec<u8>,
    /// Events printed: kills, shared-memory kills, cgroups that ran out.
    events: u64,
}

impl Pipeline {
    /// One for a run.
    pub fn new(
        decoder: Decoder,
        enricher: Enricher,
        filter: Filter,
        render: Render,
        sink: Box<dyn Sink>,
    ) -> Self {
        // A line is under 4096 bytes: taken now, it never grows.
        let line = Vec::with_capacity(8 << 10);
        Self { decoder, enricher, filter, render, sink, losses: Losses::default(), line, events: 0 }
    }

    /// What is known of the host.
    pub fn enricher(&mut self) -> &mut Enricher {
        &mut self.enricher
    }

    /// The output.
    pub fn sink(&mut self) -> &mut dyn Sink {
        &mut *self.sink
    }

    /// Events printed so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A record of a change of the cgroup tree. One that cannot be read costs a name, not an event.
    pub fn cgroup(&mut self, record: &[u8]) {
        if let Ok(Record::Cgroup(change)) = self.decoder.record(record) {
            self.enricher.cgroup_changed(&change);
        }
    }

    /// A record of the killer's.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`]: nobody reads any more.
    pub fn kill(&mut self, record: &[u8]) -> Result<(), SinkError> {
        let event = match self.decoder.record(record) {
            Ok(Record::OomKill(facts)) => {
                self.losses.saw(facts.seq);
                let kill = self.enricher.oom_kill(&facts);
                if !self.filter.takes(&kill) {
                    return Ok(());
                }
                Event::OomKill(Box::new(kill))
            }
            Ok(Record::SharedMmKill(facts)) => {
                self.losses.saw(facts.seq);
                Event::SharedMmKill(Box::new(self.enricher.shared_mm_kill(&facts)))
            }
            Ok(Record::MemcgOom(facts)) => {
                if let Some(seq) = facts.seq {
                    self.losses.saw(seq);
                }
                Event::MemcgOom(Box::new(self.enricher.memcg_oom(&facts)))
            }
            Ok(Record::Cgroup(change)) => {
                self.enricher.cgroup_changed(&change);
                return Ok(());
            }
            Err(_) => {
                self.losses.unreadable(1);
                return Ok(());
            }
        };
        self.events += 1;
        self.print(&event)
    }

    /// What was lost so far, to be kept for the next run.
    pub fn known_losses(&self) -> &Losses {
        &self.losses
    }

    /// Goes on with the losses of an earlier run.
    pub fn resume(&mut self, losses: Losses) {
        self.losses = losses;
    }

    /// Records that were left in a format of another version.
    pub fn unreadable(&mut self, count: u64) {
        self.losses.unreadable(count);
    }

    /// Tells what was lost since the last time; `counters` were read after the ring was drained.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn losses(&mut self, counters: &Counters) -> Result<(), SinkError> {
        self.losses.counted(counters);
        for (reason, count) in self.losses.untold() {
            let envelope = self.enricher.own_envelope();
            let lost = Event::Lost(Box::new(Lost { envelope, count, reason, truncated: Vec::new() }));
            if self.print_or_fail(&lost)? {
                self.losses.told(reason, count);
            }
        }
        Ok(())
    }

    /// The last line.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn stop(&mut self, reason: &str) -> Result<(), SinkError> {
        let stop = Stop {
            envelope: self.enricher.own_envelope(),
            reason: reason.into(),
            events: self.events,
            lost: self.losses.events(),
            truncated: Vec::new(),
        };
        self.print(&Event::Stop(Box::new(stop)))?;
        match self.sink.finish() {
            Err(SinkError::Closed) => Err(SinkError::Closed),
            _ => Ok(()),
        }
    }

    /// Prints a line; an output that refuses it has the line counted as lost.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn print(&mut self, event: &Event) -> Result<(), SinkError> {
        if !self.print_or_fail(event)? {
            self.losses.refused();
        }
        Ok(())
    }

    /// Whether the output took the line.
    fn print_or_fail(&mut self, event: &Event) -> Result<bool, SinkError> {
        if self.render.line(event, &mut self.line).is_err() {
            return Ok(false);
        }
        match self.sink.write_line(&self.line) {
            Ok(()) => Ok(true),
            Err(SinkError::Closed) => Err(SinkError::Closed),
            Err(_) => Ok(false),
        }
    }
}
