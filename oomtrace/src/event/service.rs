//! What a kill is counted under: the service, by the first name that stays when a container is made anew.

use crate::event::{Container, K8s, Owner, name_of_user};

/// `KIND:NAME` of the service of a cgroup; `None` if nothing names it. `recorded::Service` names it the same.
pub fn service(owner: Owner<'_>, path: Option<&str>) -> Option<String> {
    if let Some(k8s) = owner.k8s
        && let Some(container) = &k8s.container
    {
        let namespace = k8s.namespace.as_ref().map_or("", |namespace| &namespace.name);
        return Some(format!("k8s:{namespace}/{}", container.name));
    }
    if let Some(container) = owner.container {
        return Some(of_container(container));
    }
    if let Some(systemd) = owner.systemd {
        return Some(format!("unit:{}", name_of_user(systemd.user, &systemd.unit)));
    }
    path.map(|path| format!("cgroup:{path}"))
}

fn of_container(container: &Container) -> String {
    let label = |key: &str| container.label.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let user = container.runtime.user;
    if let (Some(project), Some(service)) =
        (label("com.docker.compose.project"), label("com.docker.compose.service"))
    {
        return format!("compose:{}", name_of_user(user, &format!("{project}/{service}")));
    }
    if let Some(service) = label("com.docker.swarm.service.name") {
        return format!("swarm:{}", name_of_user(user, service));
    }
    let name = container.name.as_ref().unwrap_or(&container.id);
    format!("{}:{}", container.runtime.name, name_of_user(user, name))
}

impl<'a> Owner<'a> {
    /// That of an identity.
    pub fn new(
        container: Option<&'a Container>,
        k8s: Option<&'a K8s>,
        systemd: Option<&'a super::Systemd>,
    ) -> Self {
        Self { container, k8s, systemd }
    }
}
