//! The line from a record to a line of output: bytes in, bytes out, and no kernel in sight.
//!
//! A record that cannot be read, a fact that is missing and an output that refuses end
//! nothing: they are counted, and told.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    accounting::{
        gap_cgroups::Told,
        losses::{Counters, Losses},
    },
    enrich::enricher::Enricher,
    event::{Container, Envelope, Event, K8s, Kill, Lost, MemcgOom, OomKill, Origin, Scope, Stop, Verdict},
    facts::{BootTime, Decoder, Record},
    outputs::{
        encode::Render,
        transport::{Sink, SinkError, Wait},
    },
    sources::{
        cgroup_files::Unkilled,
        earlier_kills::LoggedKill,
        verdict::{Answer, Verdicts},
    },
};

/// Which kills are printed. What is filtered out is not lost.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of the container with this name, `NAMESPACE/POD/NAME`, id or id prefix of at least 12 digits: one of the
    /// host's own. `UID/` before it: one of that user's, who may have given it any name and id.
    pub container: Option<String>,
    /// Only where this ran out.
    pub scope: Option<Scope>,
}

impl Filter {
    fn takes(&self, kill: &OomKill) -> bool {
        let scope = self.scope.is_none_or(|scope| kill.oom.scope.is_none_or(|of| of == scope));
        scope && self.takes_of(kill.container.as_ref(), kill.k8s.as_ref())
    }

    /// What happened in this container.
    fn takes_of(&self, container: Option<&Container>, k8s: Option<&K8s>) -> bool {
        self.container.as_deref().is_none_or(|wanted| {
            container.is_some_and(|container| {
                let wanted = match container.runtime.user {
                    None => wanted,
                    Some(uid) => {
                        let own = wanted.split_once('/').filter(|(user, _)| user.parse() == Ok(uid));
                        let Some((_, wanted)) = own else { return false };
                        wanted
                    }
                };
                container.name.as_deref() == Some(wanted)
                    || k8s.and_then(K8s::names).is_some_and(|names| names.join("/") == wanted)
                    || container.id == wanted
                    || (wanted.len() >= 12 && container.id.starts_with(wanted))
            })
        })
    }

    fn takes_memcg_oom(&self, event: &MemcgOom) -> bool {
        let scope = self.scope.is_none_or(|scope| scope == Scope::Memcg);
        scope && self.takes_of(event.container.as_ref(), event.k8s.as_ref())
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
    told: Told,
    verdicts: Option<Verdicts>,
    line: Vec<u8>,
    /// Events printed: kills, shared-memory kills, cgroups that ran out.
    events: u64,
    /// Kills printed: what `--count` counts.
    kills: u64,
    /// Events lost that programs had counted which this run has replaced.
    lost_before: u64,
    /// The `seq` of the last kill that was not filtered out.
    latest: Option<u64>,
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
        let told = Told::new(!enricher.is_v1(), BootTime(0));
        Self {
            decoder,
            enricher,
            filter,
            render,
            sink,
            losses: Losses::default(),
            told,
            verdicts: None,
            line,
            events: 0,
            kills: 0,
            lost_before: 0,
            latest: None,
        }
    }

    /// Has the runtimes' word told of kills in their containers.
    pub fn with_verdicts(mut self, verdicts: Option<Verdicts>) -> Self {
        self.verdicts = verdicts;
        self
    }

    /// The next word of a runtime: for [`Self::verdict`]. Can be dropped while it waits.
    pub async fn next_verdict(&mut self) -> Answer {
        match &mut self.verdicts {
            Some(verdicts) => verdicts.next().await,
            None => std::future::pending().await,
        }
    }

    /// Prints of a memory cgroup that it ran out without a victim, as its files say.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn unkilled(&mut self, found: &Unkilled) -> Result<(), SinkError> {
        let event = self.enricher.unkilled(found);
        if !self.filter.takes_memcg_oom(&event) {
            return Ok(());
        }
        self.events += 1;
        self.print(&Event::MemcgOom(Box::new(event)))
    }

    /// Prints what a runtime says of a kill.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn verdict(&mut self, answer: Answer) -> Result<(), SinkError> {
        let false_positive = self.verdicts.as_ref().map(|verdicts| verdicts.false_positives(&answer));
        let verdict = Verdict {
            envelope: Envelope { origin: Origin::Runtime, ..self.enricher.own_envelope() },
            of: vec![answer.of],
            missed: answer.missed(),
            missing: answer.missing(),
            container: answer.container,
            runtime_says: answer.says.ok(),
            false_positive: false_positive.unwrap_or_default(),
            truncated: Vec::new(),
        };
        self.print(&Event::Verdict(Box::new(verdict)))
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

    /// Kills printed so far: lines of processes that the killer chose. One that was exiting already was not killed.
    pub fn kills(&self) -> u64 {
        self.kills
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
                if kill.oom.kill != Some(Kill::AlreadyExiting) {
                    self.told.saw(&facts.lineage, facts.time);
                }
                if let Some(verdicts) = &mut self.verdicts {
                    verdicts.saw(&kill);
                }
                if !self.filter.takes(&kill) {
                    return Ok(());
                }
                self.latest = Some(facts.seq);
                Event::OomKill(Box::new(kill))
            }
            Ok(Record::SharedMmKill(facts)) => {
                self.losses.saw(facts.seq);
                let kill = self.enricher.shared_mm_kill(&facts);
                // What ran out is said of the victim that it died with, which came just before.
                let scope = self.filter.scope.is_none() || self.latest == Some(facts.of);
                if !scope || !self.filter.takes_of(kill.container.as_ref(), kill.k8s.as_ref()) {
                    return Ok(());
                }
                Event::SharedMmKill(Box::new(kill))
            }
            Ok(Record::MemcgOom(facts)) => {
                if let Some(seq) = facts.seq {
                    self.losses.saw(seq);
                }
                let event = self.enricher.memcg_oom(&facts);
                if !self.filter.takes_memcg_oom(&event) {
                    return Ok(());
                }
                Event::MemcgOom(Box::new(event))
            }
            Ok(Record::Cgroup(change)) => {
                self.enricher.cgroup_changed(&change);
                return Ok(());
            }
            Err(_) => {
                self.losses.unreadable(1);
                self.told.saw_unreadable();
                return Ok(());
            }
        };
        self.events += 1;
        if let Event::OomKill(kill) = &event {
            self.kills += u64::from(kill.oom.kill != Some(Kill::AlreadyExiting));
        }
        self.print(&event)?;
        if let (Some(verdicts), Event::OomKill(kill)) = (&mut self.verdicts, &event) {
            let asked = verdicts.want(kill, self.enricher.tree());
            if !asked {
                self.losses.no_verdict();
            }
        }
        Ok(())
    }

    /// A kill from before the programs were attached.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn logged_kill(&mut self, kill: &LoggedKill) -> Result<(), SinkError> {
        let kill = self.enricher.logged_kill(kill);
        if !self.filter.takes(&kill) {
            return Ok(());
        }
        self.events += 1;
        self.kills += 1;
        self.print(&Event::OomKill(Box::new(kill)))
    }

    /// The thread and the time of the event in a record of the killer's.
    pub fn moment(&self, record: &[u8]) -> Option<(Option<u32>, BootTime)> {
        match self.decoder.record(record).ok()? {
            Record::OomKill(facts) => Some((facts.victim.tid, facts.time)),
            Record::SharedMmKill(facts) => Some((None, facts.time)),
            Record::MemcgOom(facts) => Some((None, facts.time)),
            Record::Cgroup(_) => None,
        }
    }

    /// What was told of in which cgroup.
    pub fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    /// Events that could not be told so far.
    pub fn lost(&self) -> u64 {
        self.lost_before.saturating_add(self.losses.events())
    }

    /// What was lost so far, to be kept for the next run.
    pub fn known_losses(&self) -> &Losses {
        &self.losses
    }

    /// Goes on with the losses of an earlier run. Those of this run so far stay counted.
    pub fn resume(&mut self, losses: Losses) {
        self.lost_before = self.lost();
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
            let total = self.losses.of(reason);
            let lost = Event::Lost(Box::new(Lost { envelope, count, reason, total, truncated: Vec::new() }));
            if self.print_or_fail(&lost)? {
                self.losses.told(reason, count);
            }
        }
        Ok(())
    }

    /// The last line. If the output takes it is for [`Self::settle`] to say.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn stop(&mut self, reason: &str) -> Result<(), SinkError> {
        let stop = Stop {
            envelope: self.enricher.own_envelope(),
            reason: reason.into(),
            events: self.events,
            lost: self.lost(),
            truncated: Vec::new(),
        };
        self.print(&Event::Stop(Box::new(stop)))
    }

    /// Whether the output still keeps a line that it could not write.
    pub fn is_stalled(&self) -> bool {
        self.sink.waits_for().is_some()
    }

    /// Writes what the output had to keep.
    ///
    /// # Errors
    /// Why it still keeps something.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        self.sink.flush()
    }

    /// Waits until the output has all lines, for so long at the most. True if it has.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn settle(&mut self, limit: Duration) -> Result<bool, SinkError> {
        let began = Instant::now();
        loop {
            match self.sink.flush() {
                Ok(()) => return Ok(true),
                Err(SinkError::Closed) => return Err(SinkError::Closed),
                Err(_) if began.elapsed() >= limit => return Ok(false),
                Err(_) => {}
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let _tried_again_anyway = match self.sink.waits_for() {
                Some(Wait::Reader(fd)) => {
                    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&wait))
                }
                _ => poll(&mut [], Some(&wait)),
            };
        }
    }

    /// Prints a line; one that the output neither writes nor keeps is counted as lost.
    ///
    /// # Errors
    /// Only [`SinkError::Closed`].
    pub fn print(&mut self, event: &Event) -> Result<(), SinkError> {
        if !self.print_or_fail(event)? {
            self.losses.refused();
        }
        Ok(())
    }

    /// Whether the output took the line, to write it now or later.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Filter;
    use crate::event::{Container, RuntimeName};

    #[test]
    fn a_name_means_the_hosts_container_and_a_users_only_with_the_uid() {
        let container = |user| Container {
            id: "0123456789abcdef".into(),
            name: Some("payments-db".into()),
            runtime: RuntimeName { name: "docker".into(), user },
            ..Container::default()
        };
        let takes = |wanted: &str, user| {
            let filter = Filter { container: Some(wanted.into()), scope: None };
            filter.takes_of(Some(&container(user)), None)
        };
        for own in ["payments-db", "0123456789abcdef", "0123456789ab"] {
            assert!(takes(own, None) && !takes(own, Some(4242)), "{own}");
            let hers = format!("4242/{own}");
            assert!(takes(&hers, Some(4242)) && !takes(&hers, Some(4243)) && !takes(&hers, None), "{hers}");
        }
        assert!(!takes("4242/", Some(4242)) && !takes("/payments-db", Some(4242)));
    }
}
