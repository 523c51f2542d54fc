//! Whose memory it was when the host, or some of its nodes, ran out: a `host_memory` event for each run of the OOM killer for which no
//! cgroup's limit fired.
//!
//! - `flat`: cgroups whose usage does not contain those below them.
//! - `ranking`: who uses the memory, from a walk over all cgroups.
//! - `told`: the event.
//!
//! At the first kill of a run, `/proc/meminfo` is read through a descriptor that is open, and a walk begins. The line is written with
//! the run's `incident`, when the kernel's report is there: it has the host's memory before the kill.

mod flat;
mod ranking;
#[cfg(test)]
mod tests;
mod told;

use std::{cell::RefCell, collections::VecDeque, path::Path, rc::Rc};

use flat::Flat;
use ranking::{Ranking, rank};
pub(in crate::sources) use told::Told;

use crate::{
    accounting::Account,
    enrich::enricher::Enricher,
    event::{Charged, ChargedEvidence, Event, HostTotals, OomKill, Reason, RemovedCgroups, Scope, Why},
    facts::{BootTime, CgroupId, removed},
    sources::{
        probe::WalkError,
        sampling::{Consumer, SampleEvidence, Walk},
    },
};

/// The most runs that wait for their incident. Host-wide kills come one after the other.
const RUNS_MAX: usize = 32;

/// A run that waits for its incident.
#[derive(Debug)]
struct Run {
    id: u64,
    stream: Option<String>,
    marked: BootTime,
    victim: Vec<(CgroupId, Option<u64>)>,
    oom_score_adj: Option<i32>,
    order: Option<i32>,
    /// What the memory of the host was when the record was read.
    meminfo: Result<HostTotals, String>,
    /// `None` until the walk is done.
    walked: Option<Result<Walked, Why>>,
}

/// What a walk found.
#[derive(Clone, Debug)]
struct Walked {
    ranking: Ranking,
    charged: Charged,
}

/// The runs for which no cgroup's limit fired. Shared by what sees the walk and what writes the line.
#[derive(Clone, Debug, Default)]
pub struct HostRuns {
    runs: Rc<RefCell<VecDeque<Run>>>,
    flat: Rc<Flat>,
}

impl HostRuns {
    /// `mount`: where the memory cgroups are mounted.
    pub fn new(mount: Option<&Path>) -> Self {
        Self { runs: Rc::default(), flat: Rc::new(Flat::new(mount)) }
    }

    /// Takes out a run.
    fn take(&self, id: u64, stream: Option<&str>) -> Option<Run> {
        let mut runs = self.runs.borrow_mut();
        let at = runs.iter().position(|run| run.id == id && run.stream.as_deref() == stream)?;
        runs.remove(at)
    }

    /// Remembers a run at its first kill. Returns whether it was the first.
    fn begin(&self, kill: &OomKill, enricher: &Enricher) -> bool {
        let mut runs = self.runs.borrow_mut();
        let (id, stream) = (kill.run(), kill.envelope.stream.as_deref());
        if runs.iter().any(|run| run.id == id && run.stream.as_deref() == stream) {
            return false;
        }
        if runs.len() >= RUNS_MAX {
            runs.pop_front();
        }
        runs.push_back(Run {
            id,
            stream: stream.map(str::to_owned),
            marked: enricher.last_victim().marked,
            victim: enricher.last_usages().to_vec(),
            oom_score_adj: kill.victim.oom_score_adj,
            order: kill.oom.order,
            meminfo: enricher.host_totals(),
            walked: None,
        });
        true
    }
}

/// Whether the host, or some of its nodes, ran out.
pub(in crate::sources) fn is_of_host(scope: Option<Scope>) -> bool {
    matches!(scope, Some(Scope::Host | Scope::Cpuset | Scope::Mempolicy))
}

impl Consumer for HostRuns {
    fn saw(&mut self, event: &Event, _: bool, enricher: &Enricher, _: &mut Account) -> bool {
        let Event::OomKill(kill) = event else { return false };
        // As for an incident.
        kill.is_live_kill() && is_of_host(kill.oom.scope) && self.begin(kill, enricher)
    }

    fn take(&mut self, walk: &Walk<'_>, enricher: &mut Enricher, _: &mut Account) {
        let mut runs = self.runs.borrow_mut();
        if runs.iter().all(|run| run.walked.is_some()) {
            return;
        }
        let flat = self.flat.of(walk, enricher.tree());
        for run in runs.iter_mut().filter(|run| run.walked.is_none()) {
            let flat = match &flat {
                Ok(flat) => flat,
                Err(error) => {
                    run.walked = Some(Err(Why::with(Reason::CgroupsNotRead, error.clone())));
                    continue;
                }
            };
            let ranking = rank(walk, enricher.tree(), flat, &run.victim);
            let charged = Charged {
                evidence: match walk.evidence {
                    SampleEvidence::Kernel => ChargedEvidence::Kernel,
                    SampleEvidence::Cgroupfs => ChargedEvidence::Cgroupfs,
                },
                after_ns: walk.ended.0.saturating_sub(run.marked.0),
                cgroups: ranking.cgroups,
                usage_bytes: ranking.usage_bytes,
                removed: removed(walk.cgroups())
                    .map(|removed| RemovedCgroups { count: removed.cgroups, usage_bytes: removed.bytes }),
            };
            run.walked = Some(Ok(Walked { ranking, charged }));
        }
    }

    fn failed(&mut self, error: &WalkError, _: &mut Enricher, _: &mut Account) {
        let why = match error {
            WalkError::NoCgroups => Reason::NoMemoryCgroups.into(),
            error => Why::with(Reason::CgroupsNotRead, error.to_string()),
        };
        for run in self.runs.borrow_mut().iter_mut().filter(|run| run.walked.is_none()) {
            run.walked = Some(Err(why.clone()));
        }
    }
}
