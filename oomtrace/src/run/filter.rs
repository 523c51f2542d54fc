//! Which events are printed.

use crate::event::{Container, Event, K8s, Scope};

/// Decides which kills are printed. A kill that is filtered out is not counted as lost.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Print only kills of the container with this name, `NAMESPACE/POD/NAME`, id, or id prefix of at least
    /// 12 digits. Without `UID/` in front this is a container of the host. With it, it is a container of that
    /// user, who can choose any name and id.
    pub container: Option<String>,
    /// Print only kills in this scope.
    pub scope: Option<Scope>,
    /// The `seq` of the last kill that was not filtered out.
    pub latest: Option<u64>,
}

impl Filter {
    /// Whether to print this event. Lines that are not about kills always pass.
    pub fn takes(&mut self, event: &Event) -> bool {
        match event {
            Event::OomKill(kill) => {
                let scope = self.scope.is_none_or(|scope| kill.oom.scope.is_none_or(|of| of == scope));
                let takes = scope && self.takes_of(kill.container.as_ref(), kill.k8s.as_ref());
                if takes && kill.envelope.seq.is_some() {
                    self.latest = kill.envelope.seq;
                }
                takes
            }
            Event::SharedMmKill(kill) => {
                // This record does not hold the scope. The victim that shared the memory holds it, and it was
                // printed just before.
                let scope =
                    self.scope.is_none() || self.latest.is_some_and(|latest| kill.of.contains(&latest));
                scope && self.takes_of(kill.container.as_ref(), kill.k8s.as_ref())
            }
            Event::MemcgOom(oom) => {
                let scope = self.scope.is_none_or(|scope| scope == Scope::Memcg);
                scope && self.takes_of(oom.container.as_ref(), oom.k8s.as_ref())
            }
            _ => true,
        }
    }

    /// Whether the event happened in the wanted container.
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
            let filter = Filter { container: Some(wanted.into()), ..Filter::default() };
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
