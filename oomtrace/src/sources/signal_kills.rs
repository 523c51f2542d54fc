//! Signals that end processes: records of their ring in, at most one event for each cgroup and second out.
//!
//! A record is the first signal of a group. The programs go on counting the group for a second, so its event waits as long:
//! meanwhile the record stays in the ring, and the next run finds it there if this one is killed.

mod confirmation;

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use oomtrace_common::record::{SIGNAL_GROUP_NS, SignalKey};

use crate::{
    accounting::Account,
    enrich::enricher::{Enricher, Signalled},
    event::{Event, How, Killer, Signal, SignalKill},
    facts::{BootTime, SignalKillFacts},
    host::clock,
    sources::{
        Next, Source,
        kills::Records,
        probe::{Ring, SignalGroups, Signals},
    },
};
use confirmation::{Confirmation, Seen};

/// Which signals get a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SignalChoice {
    /// Those that ended the first process of a container, that came from outside of the container or unit, or from a killer that
    /// acts because memory is short.
    #[default]
    Auto,
    /// Every SIGKILL that ended a process.
    All,
    /// None.
    Off,
}

/// Lines that are remembered for a second: more than the ring has room for.
const RECENT_MAX: usize = 512;

/// The ring of signals.
pub struct SignalKills {
    ring: Ring,
    groups: SignalGroups,
    records: Records,
    choice: SignalChoice,
    /// Below which the cgroups are.
    mount: Option<PathBuf>,
    held: Option<Held>,
    recent: VecDeque<Printed>,
    seen: Seen,
    /// When this run began.
    began: BootTime,
    /// The run ends: nothing waits any more.
    ending: bool,
}

/// An event whose group is still counted. Its record is the oldest of the ring.
struct Held {
    event: Box<SignalKill>,
    group: SignalKey,
    time: BootTime,
    /// When the group is complete; `None` once that has come.
    due: Option<Instant>,
    confirmation: Confirmation,
}

/// A line that was printed.
struct Printed {
    cgroup: u64,
    time: BootTime,
    first_process: bool,
}

impl SignalKills {
    /// Of these programs; `mount` is where the cgroups are.
    pub fn new(signals: Signals, records: Records, choice: SignalChoice, mount: Option<PathBuf>) -> Self {
        let Signals { ring, groups } = signals;
        let (held, recent, seen) = (None, VecDeque::new(), Seen::default());
        let (began, ending) = (BootTime(0), false);
        Self { ring, groups, records, choice, mount, held, recent, seen, began, ending }
    }

    /// Reads the oldest record, which stays where it is.
    fn hold(&mut self, enricher: &mut Enricher, account: &mut Account) -> Next {
        let Some(record) = self.ring.next() else { return Next::Nothing };
        let signalled = self.records.signal(&record, enricher);
        Ring::leave(record);
        account.saw_signals(0);
        match signalled.filter(|(facts, signalled)| is_wanted(self.choice, facts, signalled)) {
            Some((facts, signalled)) => {
                self.held = Some(self.held(&facts, signalled));
                Next::Nothing
            }
            // Nobody wants it, or it is of another version: it leaves the ring at once.
            None => Next::Silent,
        }
    }

    fn held(&self, facts: &SignalKillFacts, signalled: Signalled) -> Held {
        let age = Duration::from_nanos(clock::boot_time().0.saturating_sub(facts.time.0));
        let left = Duration::from_nanos(SIGNAL_GROUP_NS).saturating_sub(age);
        let confirmation =
            self.seen.before(signalled.event.killer, self.mount.as_deref(), &signalled.cgroups);
        Held {
            event: Box::new(signalled.event),
            group: facts.group,
            time: facts.time,
            due: Some(Instant::now() + left),
            confirmation,
        }
    }

    /// What becomes of the event whose group is complete.
    fn decide(&mut self, mut held: Held, account: &mut Account) -> Next {
        if !self.is_first_in_its_second(&held) {
            return Next::Silent;
        }
        let count = self.groups.count(&held.group, held.time);
        if held.event.signal == Signal::Kill && held.time >= self.began {
            account.saw_signals(count.unwrap_or(1));
        }
        let event = &mut held.event;
        event.processes = count;
        if count.is_some() {
            event.missing.retain(|absence| absence.key != "processes");
        }
        self.seen.compare(held.confirmation, event);
        self.recent.push_back(Printed {
            cgroup: held.group.cgroup_id,
            time: held.time,
            first_process: held.group.first_process != 0,
        });
        Next::Event(Event::SignalKill(held.event))
    }

    /// One line for each cgroup and second; the first process of a container is never hidden behind others.
    fn is_first_in_its_second(&mut self, held: &Held) -> bool {
        let now = held.time.0;
        self.recent.retain(|printed| now.saturating_sub(printed.time.0) < SIGNAL_GROUP_NS);
        while self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        let first_process = held.group.first_process != 0;
        let hides = |printed: &Printed| {
            printed.cgroup == held.group.cgroup_id && (printed.first_process || !first_process)
        };
        !self.recent.iter().any(hides)
    }
}

/// Whether the operator wants a line of it.
fn is_wanted(choice: SignalChoice, facts: &SignalKillFacts, signalled: &Signalled) -> bool {
    let killer = signalled.event.killer;
    if facts.signal == Some(Signal::Term) {
        return choice != SignalChoice::Off && matches!(killer, Some(Killer::Earlyoom | Killer::Nohang));
    }
    match choice {
        SignalChoice::Off => false,
        SignalChoice::All => true,
        // What dies with the first process is its consequence.
        SignalChoice::Auto if facts.how == Some(How::PidNamespaceEnded) => false,
        SignalChoice::Auto => {
            facts.is_first_process()
                || signalled.inside == Some(false)
                || killer.is_some_and(Killer::is_for_memory)
        }
    }
}

impl Source for SignalKills {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.as_fd())
    }

    fn begin(&mut self, _: &mut Enricher, account: &mut Account) {
        self.began = clock::boot_time();
        account.follow_signals();
    }

    fn due(&self) -> Option<Instant> {
        self.held.as_ref()?.due
    }

    fn learn(&mut self, _: &mut Enricher, _: &mut Account) -> bool {
        if let Some(held) = &mut self.held
            && held.due.is_some_and(|due| due <= Instant::now())
        {
            held.due = None;
        }
        false
    }

    fn next(&mut self, enricher: &mut Enricher, account: &mut Account) -> Next {
        if self.held.is_none() && matches!(self.hold(enricher, account), Next::Silent) {
            return Next::Silent;
        }
        let complete = |held: &mut Held| self.ending || held.due.is_none_or(|due| due <= Instant::now());
        match self.held.take_if(complete) {
            Some(held) => self.decide(held, account),
            None => Next::Nothing,
        }
    }

    fn written(&mut self) {
        drop(self.ring.next());
    }

    fn ending(&mut self) {
        self.ending = true;
    }
}
