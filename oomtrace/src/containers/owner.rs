//! Decides which of the claims on one path holds, with what the runtimes' files say.
//!
//! A container with its own cgroup tree can give its cgroups any name, also `docker-<another's id>.scope`. A
//! service with `Delegate=` can do the same. So names alone count only where such an owner has no access:
//!
//! 1. If a runtime's own files say that the container's cgroup is exactly here, the claim holds anywhere. Of
//!    several such claims the innermost holds.
//! 2. Else the **outermost** claim decides, and everything below it belongs to that container: ids there are
//!    only reported as `nested`. The claim fails if the runtime's files put that container elsewhere. It also
//!    fails below a service or scope, unless it is a user's own container below that user's slice.
//! 3. An outermost claim that no file knows gives the id and the runtime, and no name.
//! 4. Below `user.slice/user-UID.slice` a user makes the cgroups and writes the files. What these files say
//!    belongs to that user (`container.runtime.user`). Nothing there belongs to a pod or a CRI runtime,
//!    because no kubelet runs there. The host's own containers are accepted there only if their runtime says
//!    exactly that place.
//!
//! "Exactly" is measured from the root of the tree that this host's runtimes see. If oomtrace runs with them
//! in a container (a node of kind), this is the cgroup at `base`, and names above it make no claims.

use crate::{
    containers::{
        Facts, LeftOut, PodFacts, Runtime,
        grammar::{self, Shape},
        oci::RuntimeCgroup,
        unit,
    },
    event::{
        Absence, Container, Image, K8s, K8sContainer, Missing, Name, Pod, Qos, Reason, RuntimeName, Systemd,
        Why,
    },
};

/// The most claims on one path that are looked up. Deeper ones are only `nested`.
pub const CLAIMS_MAX: usize = 6;
/// The most ids in `nested`.
const NESTED_MAX: usize = 8;
/// `user.slice/user-UID.slice/user@UID.service`: the root that a user's own runtimes see.
const USER_MANAGER_DEPTH: usize = 3;

/// Who owns a cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Its container.
    pub container: Option<Container>,
    /// Its pod.
    pub k8s: Option<K8s>,
    /// Its systemd unit.
    pub systemd: Option<Systemd>,
    /// What is not known, and why.
    pub missing: Missing,
}

/// A cgroup on the path that looks like a container's.
#[derive(Debug)]
pub struct Claim<'a> {
    /// How many names its path has.
    pub depth: usize,
    /// What it claims to be.
    pub shape: Shape<'a>,
    /// What the runtime's files say, or why they say nothing.
    pub found: Result<Facts, Why>,
}

/// The claims on the path `names` as depths and shapes, the outermost first. Names above `base` make no
/// claims.
pub fn claims<'a>(names: &[&'a [u8]], base: usize) -> Vec<(usize, Shape<'a>)> {
    let names = names.get(base..).unwrap_or_default();
    (1..=names.len())
        .filter_map(|depth| {
            let (name, above) = names.get(..depth)?.split_last()?;
            Some((base + depth, grammar::shape(above, name, names.get(depth).copied())?))
        })
        .collect()
}

/// How far a claim is believed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// The runtime says that its container is here.
    Exact,
    /// Nothing contradicts it, if no owner is above.
    Fair,
    /// It is not the container that it claims to be, or nothing shows that it is.
    None,
}

struct Judge<'a> {
    names: &'a [&'a [u8]],
    base: usize,
}

impl Judge<'_> {
    /// The names above the cgroup at `depth`, as this host's runtimes see them.
    fn above(&self, depth: usize) -> &[&[u8]] {
        self.names.get(self.base..depth.saturating_sub(1)).unwrap_or_default()
    }

    /// Whether it is below a service or scope, whose processes can make cgroups of any name.
    fn delegated(&self, depth: usize) -> bool {
        self.above(depth).iter().any(|name| name.ends_with(b".service") || name.ends_with(b".scope"))
    }

    /// The user whose slice contains the cgroup at `depth`.
    fn user(&self, depth: usize) -> Option<u32> {
        grammar::user_of(self.above(depth))
    }

    /// The user who owns the container, if there is one. In a user's slice, a container that no file knows is
    /// that user's.
    fn user_of(&self, claim: &Claim<'_>) -> Option<u32> {
        let of_user = claim.found.as_ref().map_or(true, |facts| facts.of_user);
        self.user(claim.depth).filter(|_| of_user)
    }

    /// The uid and the class of the pod whose cgroup contains the one at `depth`. Below a service or scope any process can
    /// make such a cgroup, so there the runtime must say that its container is exactly there.
    fn pod(&self, depth: usize, exact: bool) -> Option<(String, Qos)> {
        let believed = self.user(depth).is_none() && (exact || !self.delegated(depth));
        grammar::pod(self.above(depth)).filter(|_| believed)
    }

    fn worth(&self, claim: &Claim<'_>) -> Worth {
        let of_user = claim.found.as_ref().is_ok_and(|facts| facts.of_user);
        let users = self.user(claim.depth).is_some();
        if users && is_kubelets(&claim.shape) {
            return Worth::None;
        }
        let free = !self.delegated(claim.depth) && !users;
        match &claim.found {
            Ok(facts) => {
                // An unprivileged user's files count only in that user's slice.
                match facts.runtime_cgroup {
                    RuntimeCgroup::Here { above } => {
                        let above = usize::from(above);
                        if above == self.base || of_user && above == self.base + USER_MANAGER_DEPTH {
                            Worth::Exact
                        } else if of_user {
                            Worth::Fair
                        } else {
                            Worth::None
                        }
                    }
                    RuntimeCgroup::Elsewhere => Worth::None,
                    RuntimeCgroup::NotSaid if free || of_user => Worth::Fair,
                    RuntimeCgroup::NotSaid => Worth::None,
                }
            }
            Err(_) if claim.shape.is_plain() && (free || users) => Worth::Fair,
            Err(_) => Worth::None,
        }
    }

    fn why_not(&self, claim: &Claim<'_>) -> Why {
        let of_user = self.user(claim.depth).is_some() && is_kubelets(&claim.shape);
        let reason = match &claim.found {
            _ if of_user => Reason::CgroupOfUser,
            Ok(facts) if facts.runtime_cgroup != RuntimeCgroup::NotSaid => Reason::ContainerElsewhere,
            Ok(_) => Reason::CgroupDelegated,
            Err(why) => return why.clone(),
        };
        Why::with(reason, claim.shape.id().to_owned())
    }
}

/// Only a kubelet starts such containers.
fn is_kubelets(shape: &Shape<'_>) -> bool {
    matches!(shape, Shape::PodMember(_) | Shape::CriContainerd(_) | Shape::CriO(_))
}

/// The identity of the cgroup at the path `names`, from its `claims`, the outermost first.
pub fn decide(names: &[&[u8]], base: usize, claims: Vec<Claim<'_>>) -> Identity {
    let judge = Judge { names, base };
    let worths: Vec<Worth> = claims.iter().map(|claim| judge.worth(claim)).collect();
    let exact = worths.iter().rposition(|worth| *worth == Worth::Exact);
    // Nothing below the outermost real claim counts, whether that claim holds or not.
    let outermost = claims.iter().position(|claim| claim.shape.is_plain() || claim.found.is_ok());
    let fair = outermost.filter(|at| worths.get(*at) == Some(&Worth::Fair));
    // Nested containers are those without files on this host: a cgroup named like another container of this
    // host is not that container. A runtime without files knows none of them.
    let unknown = |claim: &Claim<'_>| claim.found.is_err() || claim.shape.is_by_path();
    let is_nested = |claim: &&Claim<'_>| claim.shape.is_plain() && unknown(claim);
    let nested: Vec<&Claim<'_>> = claims.iter().filter(is_nested).collect();

    let mut identity = Identity::default();
    // A unit inside a container is not a unit of this host.
    let mut reach = names.len();
    if let Some(owner) = exact.or(fair).and_then(|at| claims.get(at)) {
        reach = owner.depth;
        let nested = nested
            .iter()
            .filter(|claim| claim.depth > owner.depth)
            .map(|claim| claim.shape.id().to_owned())
            .take(NESTED_MAX)
            .collect();
        let pod = judge.pod(owner.depth, exact.is_some());
        identity = identified(owner, pod, judge.user_of(owner), nested);
    } else if let Some(claim) = outermost.and_then(|at| claims.get(at)) {
        identity.missing.push(Absence::new("container", judge.why_not(claim)));
    } else if let Some(pod) = judge.pod(names.len() + 1, false) {
        identity.k8s = Some(of_path(pod));
        identity.missing.push(Absence::new("container", Reason::PodCgroup));
    }
    let within = names.get(base..reach).unwrap_or_default();
    identity.systemd = unit::innermost(within);
    if identity.container.is_none() && identity.systemd.is_none() && identity.missing.is_empty() {
        let why = claims.first().and_then(|claim| claim.found.as_ref().err().cloned());
        identity.missing.push(Absence::new("container", why.unwrap_or(Reason::NotAContainer.into())));
    }
    identity
}

/// The identity from the claim that holds, in the cgroup of the pod `in_pod`, of the runtime of `user`.
fn identified(
    owner: &Claim<'_>,
    in_pod: Option<(String, Qos)>,
    user: Option<u32>,
    nested: Vec<String>,
) -> Identity {
    let mut identity = Identity::default();
    let uid = in_pod.as_ref().map(|(uid, _)| uid.as_str());
    let container = Container {
        id: owner.shape.id().to_owned(),
        runtime: RuntimeName { name: runtime(owner).name().to_owned(), user },
        nested,
        ..Container::default()
    };
    match &owner.found {
        Ok(facts) => {
            // An image can set any label, so Docker's are believed only if the cgroup belongs to that pod.
            let is_its_pod = |pod: &&PodFacts| {
                facts.runtime != Runtime::Docker || uid.is_some() && uid == pod.uid.as_deref()
            };
            let pod = facts.pod.as_deref().filter(is_its_pod);
            if facts.name.is_none() {
                let sandbox = pod.is_some_and(|pod| pod.sandbox);
                let reason = if sandbox { Reason::Sandbox } else { Reason::NotInRuntimeFiles };
                identity.missing.push(Absence::new("container.name", reason));
            }
            let no_room = || Why::with(Reason::ShareUsedUp, "memory");
            if facts.left_out >= LeftOut::Labels {
                identity.missing.push(Absence::new("container.label", no_room()));
            }
            if facts.left_out == LeftOut::LabelsAndImage {
                identity.missing.push(Absence::new("container.image.name", no_room()));
            }
            let counted = pod.is_none_or(|pod| pod.container.is_none() || pod.restart_count.is_some());
            identity.k8s = k8s(pod, in_pod);
            if identity.k8s.as_ref().is_some_and(|k8s| k8s.qos.is_none()) {
                identity.missing.push(Absence::new("k8s.qos", Reason::NotRead));
            }
            if !counted {
                let absence = Absence::new("k8s.container.restart_count", Reason::NotInRuntimeFiles);
                identity.missing.push(absence);
            }
            identity.container = Some(Container {
                name: facts.name.as_deref().map(str::to_owned),
                image: facts.image.as_deref().map(|name| Image { name: name.to_owned() }),
                restart_count: facts.restart_count.map(u64::from),
                label: facts.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
                ..container
            });
        }
        Err(why) => {
            identity.missing.push(Absence::new("container.name", why.clone()));
            if let Some(pod) = in_pod {
                identity.missing.push(Absence::new("k8s.pod.name", why.clone()));
                identity.k8s = Some(of_path(pod));
            }
            identity.container = Some(container);
        }
    }
    identity
}

/// A pod of which only the path of its cgroup is known.
fn of_path((uid, qos): (String, Qos)) -> K8s {
    K8s { pod: Pod { name: None, uid: Some(uid) }, qos: Some(qos), ..K8s::default() }
}

fn k8s(pod: Option<&PodFacts>, in_pod: Option<(String, Qos)>) -> Option<K8s> {
    let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    let Some(pod) = pod else {
        return in_pod.map(of_path);
    };
    let (uid_of_path, qos) = in_pod.unzip();
    Some(K8s {
        namespace: owned(&pod.namespace).map(|name| Name { name }),
        pod: Pod { name: owned(&pod.name), uid: owned(&pod.uid).or(uid_of_path) },
        qos,
        container: owned(&pod.container)
            .map(|name| K8sContainer { name, restart_count: pod.restart_count.map(u64::from) }),
    })
}

/// The runtime of a claim: from the files, else from the shape.
fn runtime(claim: &Claim<'_>) -> Runtime {
    claim.found.as_ref().map_or(claim.shape.runtime(), |facts| facts.runtime)
}
