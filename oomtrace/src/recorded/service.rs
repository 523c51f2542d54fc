//! What a kill is counted under: the service, by the first name that stays when a container is made anew.

use std::borrow::Cow;

use crate::{
    event::name_of_user,
    recorded::row::{Container, Row},
};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// What names it: `compose`, `swarm`, `k8s`, a runtime, `unit`, `cgroup`.
    pub kind: Cow<'static, str>,
    /// Its name.
    pub name: String,
}

impl Service {
    /// That of a kill, or of a cgroup that ran out.
    pub fn of(row: &Row<'_>) -> Self {
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
    pub fn of_container(container: &Container<'_>) -> Option<Self> {
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
