//! Turns the records of the kill ring into events.
//!
//! A record that cannot be read, or a fact that is missing, stops nothing. It is counted.

use std::os::fd::{AsFd, BorrowedFd};

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, Signalled},
    event::{Event, Kill},
    facts::{BootTime, Decoder, Found, Record, SignalKillFacts, recording},
    sources::{
        Next, Rank, Source,
        probe::{MissedRuns, Ring},
        recorder::Recorder,
    },
};

/// Turns records into events.
#[derive(Clone, Debug)]
pub struct Records {
    decoder: Decoder,
    recorder: Option<Recorder>,
}

impl Records {
    /// For a host with pages of this size. If there is a recorder, raw records are also written to it.
    pub fn new(page_bytes: u64, recorder: Option<Recorder>) -> Self {
        Self { decoder: Decoder::new(page_bytes), recorder }
    }

    /// The event of a record.
    ///
    /// `missed`: how often the kernel skipped the program that follows signals. After that, a mark without a
    /// SIGKILL may only mean that the program missed the SIGKILL.
    pub fn event(
        &self,
        record: &[u8],
        missed: Option<&MissedRuns>,
        enricher: &mut Enricher,
        account: &mut Account,
    ) -> Next {
        let read = self.decoder.record(record);
        if !matches!(read, Ok(Record::OomKill(_))) {
            self.record(record, None);
        }
        match read {
            Ok(Record::OomKill(mut facts)) => {
                facts.signalled = signalled(facts.signalled, || missed.is_some_and(MissedRuns::any));
                let found = enricher.find_on_stack(&facts);
                self.record(record, found.as_ref());
                if let Some(Found { oom, run }) = found {
                    facts.oom = self.decoder.oom_control(&oom);
                    facts.run = Some(run);
                }
                account.saw_number(facts.seq);
                let kill = enricher.oom_kill(&facts);
                if kill.oom.kill != Some(Kill::AlreadyExiting) {
                    account.saw_kill(&facts.lineage, facts.time);
                }
                Next::Event(Event::OomKill(Box::new(kill)))
            }
            Ok(Record::SharedMmKill(facts)) => {
                account.saw_number(facts.seq);
                Next::Event(Event::SharedMmKill(Box::new(enricher.shared_mm_kill(&facts))))
            }
            Ok(Record::MemcgOom(facts)) => {
                if let Some(seq) = facts.seq {
                    account.saw_number(seq);
                }
                Next::Event(Event::MemcgOom(Box::new(enricher.memcg_oom(&facts))))
            }
            Ok(Record::SignalKill(facts)) => match enricher.signal_kill(&facts) {
                Some(signalled) => Next::Event(Event::SignalKill(Box::new(signalled.event))),
                None => Next::Silent,
            },
            Ok(Record::Cgroup(change)) => {
                enricher.cgroup_changed(&change);
                Next::Silent
            }
            Err(_) => {
                account.unreadable(1);
                Next::Silent
            }
        }
    }

    /// The event of a record of the ring of signals. It goes to no recorder: that has kills.
    pub fn signal(&self, record: &[u8], enricher: &mut Enricher) -> Option<(SignalKillFacts, Signalled)> {
        match self.decoder.record(record) {
            Ok(Record::SignalKill(facts)) => {
                let signalled = enricher.signal_kill(&facts)?;
                Some((*facts, signalled))
            }
            _ => None,
        }
    }

    /// Takes in a change of the cgroup tree. If it cannot be read, a name may be missing, but no event.
    pub fn cgroup(&self, record: &[u8], enricher: &mut Enricher) {
        self.record(record, None);
        if let Ok(Record::Cgroup(change)) = self.decoder.record(record) {
            enricher.cgroup_changed(&change);
        }
    }

    fn record(&self, record: &[u8], found: Option<&Found>) {
        if let Some(recorder) = &self.recorder {
            recorder.write(&recording(record, found));
        }
    }

    /// The thread and the time of the event in a record.
    fn moment(&self, record: &[u8]) -> Option<(Option<u32>, BootTime)> {
        match self.decoder.record(record).ok()? {
            Record::OomKill(facts) => Some((facts.victim.tid, facts.time)),
            Record::SharedMmKill(facts) => Some((None, facts.time)),
            Record::MemcgOom(facts) => Some((None, facts.time)),
            Record::SignalKill(_) | Record::Cgroup(_) => None,
        }
    }
}

/// Whether a victim got a SIGKILL. That it got none is not known if the program that follows signals was skipped.
fn signalled(seen: Option<bool>, skipped: impl FnOnce() -> bool) -> Option<bool> {
    seen.filter(|killed| *killed || !skipped())
}

/// The ring of kills.
pub struct Kills {
    ring: Ring,
    missed_signals: Option<MissedRuns>,
    records: Records,
}

impl Kills {
    /// Reads this ring. `missed_signals` belongs to the programs that fill it.
    pub fn new(ring: Ring, missed_signals: Option<MissedRuns>, records: Records) -> Self {
        Self { ring, missed_signals, records }
    }

    /// The thread and the time of the oldest event. The event stays in the ring.
    pub fn first(&mut self) -> Option<(Option<u32>, BootTime)> {
        let record = self.ring.next()?;
        let moment = self.records.moment(&record);
        Ring::leave(record);
        moment
    }
}

impl Source for Kills {
    fn rank(&self) -> Rank {
        Rank::First
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    fn next(&mut self, enricher: &mut Enricher, account: &mut Account) -> Next {
        let Some(record) = self.ring.next() else { return Next::Nothing };
        let next = self.records.event(&record, self.missed_signals.as_ref(), enricher, account);
        // The record leaves the ring after its line is written.
        Ring::leave(record);
        next
    }

    fn written(&mut self) {
        drop(self.ring.next());
    }
}

#[cfg(test)]
mod tests {
    use super::signalled;

    #[test]
    fn a_victim_without_a_signal_is_unknown_once_the_program_was_skipped() {
        for (seen, skipped, known) in [
            (Some(true), false, Some(true)),
            (Some(true), true, Some(true)),
            (Some(false), false, Some(false)),
            (Some(false), true, None),
            (None, false, None),
        ] {
            assert_eq!(signalled(seen, || skipped), known, "{seen:?} {skipped}");
        }
    }
}
