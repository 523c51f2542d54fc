//! Decides which events are printed, by the options of the command line. `run`, `log` and `show` use the same
//! filter.

mod pattern;

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

use pattern::Pattern;

use crate::{
    cli::Filters,
    event::{Container, Event, K8s, Owner, Scope, Systemd},
};

/// The most kills that are remembered for the lines that refer to them. More kills than can wait for a
/// verdict.
const KEPT: usize = 16_384;

/// Decides which events are printed. A filtered event does not count as lost.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    container: Vec<Pattern>,
    pod: Vec<Pattern>,
    namespace: Vec<Pattern>,
    unit: Vec<Pattern>,
    image: Vec<Pattern>,
    comm: Vec<Pattern>,
    scope: Vec<Scope>,
    kinds: Vec<String>,
    /// Kills that were printed: hashes of stream and number.
    kept: VecDeque<u64>,
}

impl From<&Filters> for Filter {
    fn from(typed: &Filters) -> Self {
        let patterns = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        Self {
            container: patterns(&typed.container),
            pod: patterns(&typed.pod),
            namespace: patterns(&typed.namespace),
            unit: patterns(&typed.unit),
            image: patterns(&typed.image),
            comm: patterns(&typed.comm),
            scope: typed.scope.iter().copied().map(Into::into).collect(),
            kinds: typed.kind.clone(),
            kept: VecDeque::new(),
        }
    }
}

impl Filter {
    /// Whether the event is printed. An event that is not about a kill can only be filtered by its type.
    pub fn takes(&mut self, event: &Event) -> bool {
        let owner = event.owner();
        let matches = match event {
            Event::OomKill(kill) => {
                let comm = kill.victim.comm.as_deref();
                let matches =
                    kill.oom.scope.is_none_or(|scope| self.takes_scope(scope)) && self.takes_of(owner, comm);
                if matches {
                    self.keep(event);
                }
                matches
            }
            Event::SharedMmKill(kill) => {
                // The line of the victim with which it died came before and has the scope.
                (self.scope.is_empty() || self.has_kept(event))
                    && self.takes_of(owner, kill.victim.comm.as_deref())
            }
            Event::MemcgOom(_) => self.takes_scope(Scope::Memcg) && self.takes_of(owner, None),
            // Nothing ran out: no scope is its.
            Event::SignalKill(kill) => {
                self.scope.is_empty() && self.takes_of(owner, kill.target.comm.as_deref())
            }
            // Nothing was killed: no process and no scope is theirs.
            Event::LimitNear(_) | Event::LimitFar(_) | Event::Usage(_) => {
                self.scope.is_empty() && self.takes_of(owner, None)
            }
            Event::Incident(_) | Event::HostMemory(_) | Event::Stuck(_) | Event::Verdict(_) => {
                !self.is_about_kills() || self.has_kept(event)
            }
            _ => true,
        };
        matches && self.takes_kind(event.kind())
    }

    /// Whether events of this type are printed.
    pub fn takes_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind)
    }

    /// Whether any option filters kills.
    pub fn is_about_kills(&self) -> bool {
        let Self { container, pod, namespace, unit, image, comm, scope, .. } = self;
        let names = [container, pod, namespace, unit, image, comm];
        !scope.is_empty() || names.iter().any(|patterns| !patterns.is_empty())
    }

    fn takes_scope(&self, scope: Scope) -> bool {
        self.scope.is_empty() || self.scope.contains(&scope)
    }

    fn takes_of(&self, owner: Owner<'_>, comm: Option<&str>) -> bool {
        let any = |patterns: &[Pattern], matches: &dyn Fn(&Pattern) -> bool| {
            patterns.is_empty() || patterns.iter().any(matches)
        };
        let is = |name: Option<&str>, pattern: &Pattern| name.is_some_and(|name| pattern.matches(name));
        let Owner { container, k8s, systemd } = owner;
        let pod = k8s.map(|k8s| &k8s.pod);
        let namespace = k8s.and_then(|k8s| k8s.namespace.as_ref()).map(|namespace| namespace.name.as_str());
        let image = container.and_then(|container| container.image.as_ref()).map(|image| image.name.as_str());
        let pod_is = |pattern: &Pattern| {
            pod.is_some_and(|pod| is(pod.name.as_deref(), pattern) || is(pod.uid.as_deref(), pattern))
        };
        any(&self.container, &|pattern| is_container(pattern, container, k8s))
            && any(&self.pod, &pod_is)
            && any(&self.namespace, &|pattern| is(namespace, pattern))
            && any(&self.unit, &|pattern| is_unit(pattern, systemd))
            && any(&self.image, &|pattern| is(image, pattern))
            && any(&self.comm, &|pattern| is(comm, pattern))
    }

    fn keep(&mut self, kill: &Event) {
        let Some(seq) = kill.envelope().seq.filter(|_| self.is_about_kills()) else { return };
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(name_of(kill, seq));
    }

    /// Whether a kill to which the event refers was printed.
    fn has_kept(&self, event: &Event) -> bool {
        event.of().iter().any(|seq| self.kept.contains(&name_of(event, *seq)))
    }
}

/// A key for a kill of the event's stream.
fn name_of(event: &Event, seq: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&event.envelope().stream, seq).hash(&mut hasher);
    hasher.finish()
}

fn is_container(pattern: &Pattern, container: Option<&Container>, k8s: Option<&K8s>) -> bool {
    container.is_some_and(|container| {
        let Some(wanted) = pattern.of_user(container.runtime.user) else { return false };
        container.name.as_deref().is_some_and(|name| wanted.matches(name))
            || k8s.and_then(K8s::names).is_some_and(|names| wanted.matches(&names.join("/")))
            || wanted.matches(&container.id)
            || wanted.shortens(&container.id)
    })
}

fn is_unit(pattern: &Pattern, systemd: Option<&Systemd>) -> bool {
    systemd.is_some_and(|systemd| {
        pattern.of_user(systemd.user).is_some_and(|wanted| wanted.matches(&systemd.unit))
    })
}

/// Whether a name that was typed is that of the container, the pod or the unit.
pub fn is_name_of(name: &str, owner: Owner<'_>) -> bool {
    let pattern = Pattern::from(name);
    let is = |name: Option<&String>| name.is_some_and(|name| pattern.matches(name));
    is_container(&pattern, owner.container, owner.k8s)
        || is_unit(&pattern, owner.systemd)
        || owner.k8s.is_some_and(|k8s| is(k8s.pod.name.as_ref()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::event::RuntimeName;

    fn takes(filters: Filters, owner: Owner<'_>) -> bool {
        Filter::from(&filters).takes_of(owner, None)
    }

    #[test]
    fn a_name_means_the_hosts_container_and_a_users_only_with_the_uid() {
        let container = |user| Container {
            id: "0123456789abcdef".into(),
            name: Some("payments-db".into()),
            runtime: RuntimeName { name: "docker".into(), user },
            ..Container::default()
        };
        let takes = |wanted: &str, user| {
            let filters = Filters { container: vec!["other".into(), wanted.into()], ..Filters::default() };
            takes(filters, Owner { container: Some(&container(user)), ..Owner::default() })
        };
        for own in ["payments-db", "0123456789abcdef", "0123456789ab", "pay*"] {
            assert!(takes(own, None) && !takes(own, Some(4242)), "{own}");
            let hers = format!("4242/{own}");
            assert!(takes(&hers, Some(4242)) && !takes(&hers, Some(4243)) && !takes(&hers, None), "{hers}");
        }
        assert!(!takes("4242/", Some(4242)) && !takes("/payments-db", Some(4242)) && !takes("*", Some(4242)));
        assert!(!takes("0123456789a", None), "an id shorter than 12 digits is a name");
    }

    #[test]
    fn a_unit_of_a_user_is_not_the_hosts() {
        let takes = |wanted: &str, user| {
            let filters = Filters { unit: vec![wanted.into()], ..Filters::default() };
            let systemd = Systemd { unit: "sshd.service".into(), user };
            takes(filters, Owner { systemd: Some(&systemd), ..Owner::default() })
        };
        assert!(takes("sshd.service", None) && takes("ssh*", None) && takes("7/sshd.service", Some(7)));
        assert!(!takes("sshd.service", Some(7)) && !takes("*", Some(7)) && !takes("8/sshd.service", Some(7)));
    }
}
