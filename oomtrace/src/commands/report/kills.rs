//! The kills of one service.

use std::collections::BTreeSet;

use super::timeline::Period;
use crate::recorded::Row;

/// Hosts of one service that are told apart.
const HOSTS: usize = 256;

/// The kills of a service.
#[derive(Debug, Default)]
pub(super) struct Kills {
    pub(super) kills: u64,
    /// Time of the first and of the last.
    pub(super) period: Period,
    /// The smallest and the largest limit of its own cgroup at a kill by that limit.
    pub(super) limits: Option<(u64, u64)>,
    /// The highest use that the kernel kept for that cgroup.
    pub(super) peak_bytes: Option<u64>,
    /// The largest victim.
    pub(super) largest: Option<(u64, String)>,
    /// Kills by a limit above its own cgroup.
    pub(super) by_limit_above: u64,
    /// Kills because a host, or a part of its nodes, ran out.
    pub(super) by_host: u64,
    /// The hosts, by their place in the report.
    pub(super) hosts: BTreeSet<usize>,
}

impl Kills {
    /// Adds a kill.
    pub(super) fn add(&mut self, row: &Row<'_>, time: Option<&str>, host: usize) {
        self.kills += 1;
        self.period.see(time);
        if self.hosts.len() < HOSTS {
            self.hosts.insert(host);
        }
        let victim = row.victim.as_ref();
        if let Some(rss) = victim.and_then(|victim| victim.memory.rss_bytes)
            && self.largest.as_ref().is_none_or(|(largest, _)| rss > *largest)
        {
            let comm = victim.map(|victim| victim.comm.clone().into_owned()).unwrap_or_default();
            self.largest = Some((rss, comm));
        }
        self.add_limit(row);
    }

    fn add_limit(&mut self, row: &Row<'_>) {
        let Some(oom) = &row.oom else { return };
        match &*oom.scope {
            "host" | "cpuset" | "mempolicy" => self.by_host += 1,
            "memcg" => {
                let own = row.victim.as_ref().and_then(|victim| victim.cgroup.as_ref());
                let (Some(own), Some(fired)) = (own, &oom.cgroup) else { return };
                if !own.is_same(fired) {
                    self.by_limit_above += 1;
                    return;
                }
                if let Some(limit) = fired.limit_bytes {
                    let (least, most) = self.limits.unwrap_or((limit, limit));
                    self.limits = Some((least.min(limit), most.max(limit)));
                }
                self.peak_bytes = self.peak_bytes.max(fired.peak_bytes);
            }
            _ => {}
        }
    }
}
