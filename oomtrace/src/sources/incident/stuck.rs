//! The event of victims that are still there.

use super::late::Found;
use crate::{
    enrich::absent::Absent,
    event::{Absence, Container, Envelope, IncidentVictim, K8s, Missing, Stuck, Systemd},
};

/// What the line says of the run.
#[derive(Clone, Debug)]
pub(super) struct StuckRun {
    pub(super) stream: Option<String>,
    pub(super) of: Vec<u64>,
    pub(super) truncated: Vec<String>,
    pub(super) container: Option<Container>,
    pub(super) k8s: Option<K8s>,
    pub(super) systemd: Option<Systemd>,
    /// Why facts of these are absent.
    pub(super) missing: Missing,
}

impl StuckRun {
    /// The event.
    pub(super) fn told(self, found: Found, envelope: Envelope) -> Stuck {
        let Found { after_ns, still_there, pid, threads, reaper, again } = found;
        let mut absent = Absent::default();
        let is_owner = |absence: &&Absence| {
            ["container", "k8s"].iter().any(|key| absence.key.split('.').next() == Some(*key))
        };
        absent.all(&self.missing.iter().filter(is_owner).cloned().collect::<Missing>());
        let threads = threads.map_err(|why| {
            for key in ["victim.comm", "thread_count", "threads"] {
                absent.because(key, why.clone());
            }
        });
        let threads = threads.ok();
        let reaper = absent.known(reaper, "reaper");
        let first = self.of.first().copied().unwrap_or_default();
        let time = if again { "again" } else { "first" };
        Stuck {
            envelope: Envelope {
                // The next run may report the kill again, and then this too.
                id: self.stream.as_ref().map(|stream| format!("{stream}-stuck-{first}-{time}")),
                stream: self.stream,
                ..envelope
            },
            of: self.of,
            after_ns,
            still_there,
            victim: IncidentVictim { pid, comm: threads.as_ref().map(|threads| threads.comm.clone()) },
            thread_count: threads.as_ref().map(|threads| threads.count),
            threads: threads.map(|threads| threads.told).unwrap_or_default(),
            reaper,
            container: self.container,
            k8s: self.k8s,
            systemd: self.systemd,
            truncated: self.truncated,
            missing: absent.into_missing(),
        }
    }
}
