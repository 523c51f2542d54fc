//! Which of the claims on one path holds: claims and what the runtimes' files say in, the
//! container out.
//!
//! A container with a cgroup tree of its own may call the cgroups in it what it likes, also
//! `docker-<another's id>.scope`; so may a service with `Delegate=`. Names alone therefore
//! count only where such a one cannot reach:
//!
//! 1. A runtime that says, in its own files, that the container's cgroup is exactly here is
//!    believed anywhere; of several, the innermost.
//! 2. Else the **outermost** claim decides, and all below it belongs to that container: ids
//!    there are only told as `nested`. It does not hold if the runtime's files put that
//!    container elsewhere, or if it is below a service or scope, unless it is a user's own
//!    container below that user's slice.
//! 3. An outermost claim that no file knows gives the id and the runtime, and no name.
//! 4. Below `user.slice/user-UID.slice` a user makes the cgroups and writes the files. What these
//!    say is that user's (`container.runtime.user`), and nothing there is a pod's or a CRI
//!    runtime's: no kubelet runs there. Of the host's own containers only those are there whose
//!    runtime says exactly that.
//!
//! "Exactly" is from the root of the tree that this host's runtimes see. Where oomtrace runs
//! with them in a container (a node of kind), that is the cgroup at `base`, and names
//! above it are nobody's claim.

use crate::{
    containers::{
        Facts, LeftOut, PodFacts, Runtime,
        grammar::{self, Shape},
        oci::RuntimeCgroup,
        unit,
    },
    event::{
        Absence, Container, Image, K8s, K8sContainer, Missing, Name, Pod, Reason, RuntimeName, Systemd, Why,
    },
};

/// Claims on one path that are looked up; deeper ones are only `nested`.
pub const CLAIMS_MAX: usize = 6;
/// Ids in `nested` at most.
const NESTED_MAX: usize = 8;
/// `user.slice/user-UID.slice/user@UID.service`: where a user's own runtimes see their root.
const USER_MANAGER_DEPTH: usize = 3;

/// Whose a cgroup is.
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

/// A cgroup on the path that claims to be a container's.
#[derive(Debug)]
pub struct Claim<'a> {
    /// How many names its path has.
    pub depth: usize,
    /// What it claims.
    pub shape: Shape<'a>,
    /// What the runtime's files say, or why they say nothing.
    pub found: Result<Facts, Why>,
}

/// The claims on a path of `names`, the outermost first, as their depths and shapes. Names
/// above `base` make none.
pub fn claims<'a>(names: &[&'a [u8]], base: usize) -> Vec<(usize, Shape<'a>)> {
    let names = names.get(base..).unwrap_or_default();
    (1..=names.len())
        .filter_map(|depth| {
            let (name, above) = names.get(..depth)?.split_last()?;
            Some((base + depth, grammar::shape(above, name, names.get(depth).copied())?))
        })
        .collect()
}

/// How much a claim is worth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// The runtime says that it is here.
    Exact,
    /// Nothing speaks against it, if nobody above owns the place.
    Fair,
    /// It is not the container that it claims to be, or nothing shows that it is.
    None,
}

struct Judge<'a> {
    names: &'a [&'a [u8]],
    base: usize,
}

impl Judge<'_> {
    /// The names above the cgroup at `depth` that this host's runtimes see.
    fn above(&self, depth: usize) -> &[&[u8]] {
        self.names.get(self.base..depth.saturating_sub(1)).unwrap_or_default()
    }

    /// Below a service or scope, whose processes may make cgroups of any name.
    fn delegated(&self, depth: usize) -> bool {
        self.above(depth).iter().any(|name| name.ends_with(b".service") || name.ends_with(b".scope"))
    }

    /// The user in whose slice the cgroup at `depth` is.
    fn user(&self, depth: usize) -> Option<u32> {
        grammar::user_of(self.above(depth))
    }

    /// The user whose container it is, if it is one. What no file knows is, in a user's slice, that user's.
    fn user_of(&self, claim: &Claim<'_>) -> Option<u32> {
        let of_user = claim.found.as_ref().map_or(true, |facts| facts.of_user);
        self.user(claim.depth).filter(|_| of_user)
    }

    /// The uid of the pod in whose cgroup the one at `depth` is. Below a service or scope any process may have
    /// made that, unless the runtime says that its container is exactly there.
    fn pod_uid(&self, depth: usize, exact: bool) -> Option<String> {
        let believed = self.user(depth).is_none() && (exact || !self.delegated(depth));
        grammar::pod_uid(self.above(depth)).filter(|_| believed)
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
                // What an unprivileged user's files say counts in that user's slice only.
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

/// Only a kubelet has such containers made.
fn is_kubelets(shape: &Shape<'_>) -> bool {
    matches!(shape, Shape::PodMember(_) | Shape::CriContainerd(_) | Shape::CriO(_))
}

/// The identity of the cgroup of `names`, by its `claims`, the outermost first.
pub fn decide(names: &[&[u8]], base: usize, claims: Vec<Claim<'_>>) -> Identity {
    let judge = Judge { names, base };
    let worths: Vec<Worth> = claims.iter().map(|claim| judge.worth(claim)).collect();
    let exact = worths.iter().rposition(|worth| *worth == Worth::Exact);
    // Nothing below the outermost real claim counts, whether that one holds or not.
    let outermost = claims.iter().position(|claim| claim.shape.is_plain() || claim.found.is_ok());
    let fair = outermost.filter(|at| worths.get(*at) == Some(&Worth::Fair));
    // Such as this host has no files of: what has the name of another container of its own is not that one.
    // A runtime without files knows none.
    let unknown = |claim: &Claim<'_>| claim.found.is_err() || claim.shape.is_by_path();
    let is_nested = |claim: &&Claim<'_>| claim.shape.is_plain() && unknown(claim);
    let nested: Vec<&Claim<'_>> = claims.iter().filter(is_nested).collect();

    let mut identity = Identity::default();
    // A unit within a container is not one of this host.
    let mut reach = names.len();
    if let Some(owner) = exact.or(fair).and_then(|at| claims.get(at)) {
        reach = owner.depth;
        let nested = nested
            .iter()
            .filter(|claim| claim.depth > owner.depth)
            .map(|claim| claim.shape.id().to_owned())
            .take(NESTED_MAX)
            .collect();
        let uid = judge.pod_uid(owner.depth, exact.is_some());
        identity = identified(owner, uid, judge.user_of(owner), nested);
    } else if let Some(claim) = outermost.and_then(|at| claims.get(at)) {
        identity.missing.push(Absence::new("container", judge.why_not(claim)));
    } else if let Some(uid) = judge.pod_uid(names.len() + 1, false) {
        identity.k8s = Some(K8s { pod: Pod { name: None, uid: Some(uid) }, ..K8s::default() });
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

/// The identity by the claim that holds: in the cgroup of the pod `uid`, of the runtime of `user`.
fn identified(owner: &Claim<'_>, uid: Option<String>, user: Option<u32>, nested: Vec<String>) -> Identity {
    let mut identity = Identity::default();
    let container = Container {
        id: owner.shape.id().to_owned(),
        runtime: RuntimeName { name: runtime(owner).name().to_owned(), user },
        nested,
        ..Container::default()
    };
    match &owner.found {
        Ok(facts) => {
            // An image may bring any label: Docker's are believed where the cgroup is that pod's.
            let is_its_pod = |pod: &&PodFacts| {
                facts.runtime != Runtime::Docker || uid.is_some() && uid.as_deref() == pod.uid.as_deref()
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
            identity.k8s = k8s(pod, uid);
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
            if uid.is_some() {
                identity.missing.push(Absence::new("k8s.pod.name", why.clone()));
                identity.k8s = Some(K8s { pod: Pod { name: None, uid }, ..K8s::default() });
            }
            identity.container = Some(container);
        }
    }
    identity
}

fn k8s(pod: Option<&PodFacts>, uid_of_path: Option<String>) -> Option<K8s> {
    let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    let Some(pod) = pod else {
        return uid_of_path.map(|uid| K8s { pod: Pod { name: None, uid: Some(uid) }, ..K8s::default() });
    };
    Some(K8s {
        namespace: owned(&pod.namespace).map(|name| Name { name }),
        pod: Pod { name: owned(&pod.name), uid: owned(&pod.uid).or(uid_of_path) },
        container: owned(&pod.container)
            .map(|name| K8sContainer { name, restart_count: pod.restart_count.map(u64::from) }),
    })
}

/// The runtime of a claim: the files' word, else that of the shape.
fn runtime(claim: &Claim<'_>) -> Runtime {
    claim.found.as_ref().map_or(claim.shape.runtime(), |facts| facts.runtime)
}
