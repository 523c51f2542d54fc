//! What a kill is counted under: the service, by the first name that stays when a container is made anew.

use std::{borrow::Cow, collections::BTreeSet};

use super::row::{Container, Row};
use crate::event::name_of_user;

/// Hosts of one service that are told apart.
const HOSTS: usize = 256;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Service {
    /// What names it: `compose`, `swarm`, `k8s`, a runtime, `unit`, `cgroup`.
    pub(super) kind: Cow<'static, str>,
    pub(super) name: String,
}

impl Service {
    /// That of a kill, or of a cgroup that ran out.
    pub(super) fn of(row: &Row<'_>) -> Self {
        if let Some(k8s) = row.k8s.as_ref().filter(|k8s| !k8s.container.name.is_empty()) {
            return Self::new("k8s", format!("{}/{}", k8s.namespace.name, k8s.container.name));
        }
        if let Some(service) = row.container.as_ref().and_then(Self::of_container) {
            return service;
        }
        if let Some(systemd) = row.systemd.as_ref().filter(|systemd| !systemd.unit.is_empty()) {
            return Self::new("unit", name_of_user(systemd.user, &systemd.unit).into_owned());
        }
        let cgroup = row.victim.as_ref().and_then(|victim| victim.cgroup.as_ref()).or(row.cgroup.as_ref());
        match cgroup.filter(|cgroup| !cgroup.path.is_empty()) {
            Some(cgroup) => Self::new("cgroup", cgroup.path.clone().into_owned()),
            None => Self::new("cgroup", "(unknown)".into()),
        }
    }

    /// That of a container: its service's name, else its own, else its id.
    pub(super) fn of_container(container: &Container<'_>) -> Option<Self> {
        let label = &container.label;
        let user = container.runtime.user;
        let of_user = |name: &str| name_of_user(user, name).into_owned();
        if !label.compose_project.is_empty() && !label.compose_service.is_empty() {
            return Some(Self::new(
                "compose",
                of_user(&format!("{}/{}", label.compose_project, label.compose_service)),
            ));
        }
        if !label.swarm_service.is_empty() {
            return Some(Self::new("swarm", of_user(&label.swarm_service)));
        }
        let name = [&container.name, &container.id].into_iter().find(|name| !name.is_empty())?;
        Some(Self { kind: container.runtime.name.clone().into_owned().into(), name: of_user(name) })
    }

    fn new(kind: &'static str, name: String) -> Self {
        Self { kind: kind.into(), name }
    }
}

/// The kills of a service.
#[derive(Debug, Default)]
pub(super) struct Kills {
    pub(super) kills: u64,
    /// Time of the first and of the last.
    pub(super) first: String,
    pub(super) last: String,
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
    pub(super) fn add(&mut self, row: &Row<'_>, time: &str, host: usize) {
        self.kills += 1;
        if self.first.is_empty() || time < &*self.first {
            time.clone_into(&mut self.first);
        }
        if time > &*self.last {
            time.clone_into(&mut self.last);
        }
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
                if own.id.is_empty() || own.id != fired.id {
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
