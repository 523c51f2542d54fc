//! From a cgroup to a container's name: a place in the cgroup tree in, what the runtime's
//! own files say about the container out.
//!
//! - [`grammar`]: what the names of cgroups claim by their shape.
//! - [`mod@unit`]: which systemd unit they are.
//! - [`discover`]: where the runtimes keep their state.
//! - [`files`]: how it is read. State files are input: bounded, and no link is followed.
//! - [`docker`], [`oci`], [`podman`]: what the files of each runtime mean.
//! - [`owner`]: which of several claims on one path holds.
//!
//! It never asks a daemon: a daemon that is stopped would stop the tracer with it.

pub mod discover;
pub mod docker;
pub mod files;
pub mod grammar;
pub mod oci;
pub mod owner;
pub mod podman;
pub mod unit;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Reason, Why};
use crate::host::root::Root;
use discover::{StateDirs, UserDirs};
use files::{FileError, StateDir};
use grammar::Shape;
use oci::Seat;

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd: `ctr`, nerdctl, Kubernetes.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// LXC, Incus.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
}

impl Runtime {
    /// As `container.runtime.name` says it.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Podman => "podman",
            Runtime::Lxc => "lxc",
            Runtime::Nspawn => "systemd-nspawn",
        }
    }

    /// A runtime that has files, by its name.
    pub fn with_files(name: &str) -> Option<Self> {
        [Runtime::Docker, Runtime::Containerd, Runtime::CriO, Runtime::Podman]
            .into_iter()
            .find(|runtime| runtime.name() == name)
    }
}

/// What a runtime says about one of its containers. Kept for every container of the host,
/// so texts that many of them have are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose container it is.
    pub runtime: Runtime,
    /// The runtime's name for it.
    pub name: Option<Box<str>>,
    /// The image, as it was asked for.
    pub image: Option<Arc<str>>,
    /// How often the runtime has restarted it.
    pub restart_count: Option<u32>,
    /// Compose's and Swarm's labels.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its pod.
    pub pod: Option<Box<PodFacts>>,
    /// Where its runtime says that its cgroup is.
    pub seat: Seat,
    /// The files are those of an unprivileged user.
    pub of_user: bool,
}

/// What a CRI runtime says about a container's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The namespace.
    pub namespace: Option<Arc<str>>,
    /// The pod.
    pub name: Option<Arc<str>>,
    /// The pod's uid.
    pub uid: Option<Arc<str>>,
    /// The container, in the pod's spec. `None` for the sandbox.
    pub container: Option<Arc<str>>,
    /// How often the kubelet has restarted it.
    pub restart_count: Option<u32>,
    /// It is the pod's sandbox, not one of its containers.
    pub sandbox: bool,
}

/// Longest text that is kept; a longer one is absent rather than wrong.
const TEXT_MAX: usize = 1024;

/// Texts that are kept once, however many containers have them.
#[derive(Debug, Default)]
pub struct Texts(HashSet<Arc<str>>);

impl Texts {
    /// How many texts there may be before those no longer used are dropped.
    const SWEEP_AT: usize = 4096;

    /// `text`, shared; `None` if it is longer than is kept.
    pub fn shared(&mut self, text: &str) -> Option<Arc<str>> {
        if text.len() > TEXT_MAX {
            return None;
        }
        if let Some(known) = self.0.get(text) {
            return Some(Arc::clone(known));
        }
        if self.0.len() >= Self::SWEEP_AT && self.0.len().is_power_of_two() {
            self.0.retain(|text| Arc::strong_count(text) > 1);
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        Some(text)
    }
}

/// `text`, unless it is longer than is kept.
pub fn kept(text: &str) -> Option<Box<str>> {
    (!text.is_empty() && text.len() <= TEXT_MAX).then(|| text.into())
}

/// The runtimes of this host.
#[derive(Debug)]
pub struct Runtimes {
    root: Root,
    dirs: StateDirs,
    closed: Option<String>,
    texts: Texts,
    no_scan_before: Option<Instant>,
}

/// A search of `/proc` for daemons is not repeated sooner: no daemon starts and runs a container within that.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// And not sooner than this many times as long as the last one took: 5 % of the time is the most it may cost.
const SCAN_PAUSE_FACTOR: u32 = 20;

/// Where a container is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The path of the container's cgroup.
    pub path: &'a [u8],
    /// The user in whose cgroup it is.
    pub user: Option<u32>,
}

impl Runtimes {
    /// The runtimes that the configuration of this host, its running daemons and `extra`,
    /// directories named by the operator, tell of.
    pub fn discover(root: Root, extra: &[(Runtime, PathBuf)]) -> Self {
        let mut dirs = StateDirs::configured(&root, extra);
        dirs.add_running(&root);
        let closed = dirs.closed();
        Self { root, dirs, closed, texts: Texts::default(), no_scan_before: None }
    }

    /// The host that they are on.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where their state is.
    pub fn dirs(&self) -> &StateDirs {
        &self.dirs
    }

    /// The runtimes whose state is there, as `docker=/var/lib/docker`.
    pub fn found(&self) -> Vec<String> {
        // CRI-O and Podman share a store: each has a directory of its own besides.
        let crio = self.root.path("/run/crio").exists();
        let all = [
            (Runtime::Docker, &self.dirs.docker),
            (Runtime::Containerd, &self.dirs.containerd),
            (Runtime::CriO, &self.dirs.crio),
            (Runtime::Podman, &self.dirs.podman),
        ];
        let there = |runtime: Runtime, dir: &StateDir| match runtime {
            Runtime::Docker => dir.holds(Path::new("containers")),
            Runtime::Containerd => dir.holds(Path::new(oci::TASKS)),
            Runtime::CriO => crio && dir.holds(Path::new("overlay-containers")),
            Runtime::Podman => podman::is_store(dir, !crio),
            Runtime::Lxc | Runtime::Nspawn => false,
        };
        all.into_iter()
            .flat_map(|(runtime, dirs)| dirs.iter().map(move |dir| (runtime, dir)))
            .filter(|(runtime, dir)| there(*runtime, dir))
            .map(|(runtime, dir)| format!("{}={}", runtime.name(), dir.path().display()))
            .collect()
    }

    /// Why containers may be unknown: directories of runtimes that may not be looked into.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// What the runtime's files say about the container that `shape` claims, or why they
    /// say nothing. A container that is not found makes it look for daemons with other
    /// directories, unless it did so a moment ago.
    pub fn look_up(&mut self, shape: &Shape<'_>, place: Place<'_>) -> Result<Facts, Why> {
        let mut answer = self.look_up_once(shape, place);
        let stale = self.no_scan_before.is_none_or(|before| Instant::now() >= before);
        let searchable =
            !matches!(shape, Shape::Lxc(_) | Shape::Nspawn(_) | Shape::Podman(_) | Shape::CriO(_))
                && (shape.is_plain() || grammar::is_hex_id(shape.id()));
        if answer.is_err() && stale && searchable {
            let began = Instant::now();
            self.dirs.add_running(&self.root);
            self.closed = self.dirs.closed();
            let pause = SCAN_PAUSE.max(began.elapsed().saturating_mul(SCAN_PAUSE_FACTOR));
            self.no_scan_before = Instant::now().checked_add(pause);
            answer = self.look_up_once(shape, place);
        }
        answer
    }

    /// What may have changed since `known` was read, as the runtime's files say now: a
    /// container can be renamed at any time. `None` where they are gone or cannot change.
    pub fn look_again(&mut self, known: &Facts, id: &str, place: Place<'_>) -> Option<Facts> {
        let fresh = match (known.runtime, known.of_user) {
            (Runtime::Docker, false) => {
                let mut dirs = self.dirs.docker.iter();
                dirs.find_map(|dir| docker::container(dir, id, &mut self.texts).ok())
            }
            (Runtime::Docker, true) => self.docker(id, place).ok(),
            (Runtime::Podman, _) => self.podman(id, place).ok(),
            _ => None,
        }?;
        // Where the cgroup is was said when it was made.
        (fresh.of_user == known.of_user).then_some(Facts { seat: known.seat, ..fresh })
    }

    fn look_up_once(&mut self, shape: &Shape<'_>, place: Place<'_>) -> Result<Facts, Why> {
        match shape {
            Shape::Docker(id) => self.docker(id, place),
            Shape::CriContainerd(id) => self.containerd(Some("k8s.io"), id, place),
            Shape::PodMember(id) => self
                .containerd(Some("k8s.io"), id, place)
                .or_else(|why| self.docker(id, place).map_err(|_| why)),
            Shape::Nerdctl(id) => self.containerd(None, id, place),
            Shape::CriO(id) => first(&self.dirs.crio, Runtime::CriO, id, |dir| {
                oci::crio(dir, id, place.path, &mut self.texts)
            }),
            Shape::Podman(id) => self.podman(id, place),
            Shape::Perhaps { namespace, id } => self.perhaps(*namespace, id, place),
            Shape::Lxc(name) => Ok(by_path(Runtime::Lxc, name)),
            Shape::Nspawn(name) => Ok(by_path(Runtime::Nspawn, name)),
        }
    }

    fn perhaps(&mut self, namespace: Option<&str>, id: &str, place: Place<'_>) -> Result<Facts, Why> {
        let mut answer = Err(Why::from(Reason::ContainerUnknown));
        if namespace.is_some() {
            answer = self.containerd(namespace, id, place);
        }
        if answer.is_err() && grammar::is_hex_id(id) {
            answer = self.docker(id, place).or_else(|_| self.containerd(None, id, place));
        }
        answer.map_err(|_| match self.closed() {
            Some(closed) => Why::with(Reason::RuntimeFileUnreadable, closed.to_owned()),
            None => Reason::ContainerUnknown.into(),
        })
    }

    fn docker(&mut self, id: &str, place: Place<'_>) -> Result<Facts, Why> {
        let own = place.user.and_then(|uid| UserDirs::of(&self.root, uid));
        if let Some(UserDirs { docker: dir, .. }) = own
            && let Ok(facts) = docker::container(&dir, id, &mut self.texts)
        {
            return Ok(Facts { of_user: true, seat: docker::seat(&dir, &[], id, place.path), ..facts });
        }
        let containerd = &self.dirs.containerd;
        first(&self.dirs.docker, Runtime::Docker, id, |dir| {
            let facts = docker::container(dir, id, &mut self.texts)?;
            Ok(Facts { seat: docker::seat(dir, containerd, id, place.path), ..facts })
        })
    }

    fn containerd(&mut self, namespace: Option<&str>, id: &str, place: Place<'_>) -> Result<Facts, Why> {
        first(&self.dirs.containerd, Runtime::Containerd, id, |dir| {
            oci::containerd(&self.root, dir, namespace, id, place.path, &mut self.texts)
        })
    }

    fn podman(&mut self, id: &str, place: Place<'_>) -> Result<Facts, Why> {
        let own = place.user.and_then(|uid| UserDirs::of(&self.root, uid));
        if let Some(UserDirs { podman: dir, .. }) = own
            && let Ok(facts) = podman::container(&dir, id, place.path, &mut self.texts)
        {
            return Ok(Facts { of_user: true, ..facts });
        }
        first(&self.dirs.podman, Runtime::Podman, id, |dir| {
            podman::container(dir, id, place.path, &mut self.texts)
        })
    }
}

/// The first directory that knows the container, or what kept the most telling one from saying so.
fn first(
    dirs: &[StateDir],
    runtime: Runtime,
    id: &str,
    mut read: impl FnMut(&StateDir) -> Result<Facts, FileError>,
) -> Result<Facts, Why> {
    let mut reason = None;
    for dir in dirs {
        match read(dir) {
            Ok(facts) => return Ok(facts),
            Err(FileError::Absent) => {}
            Err(why) => {
                reason.get_or_insert_with(|| {
                    format!("{} {id} in {}: {why}", runtime.name(), dir.path().display())
                });
            }
        }
    }
    Err(match reason {
        Some(detail) => Why::with(Reason::RuntimeFileUnreadable, detail),
        None => Why::with(Reason::ContainerUnknown, format!("{} {id}", runtime.name())),
    })
}

/// LXC and nspawn: the name of the cgroup is the container's.
fn by_path(runtime: Runtime, name: &str) -> Facts {
    Facts {
        runtime,
        name: kept(name),
        image: None,
        restart_count: None,
        labels: Box::default(),
        pod: None,
        seat: Seat::Unsaid,
        of_user: false,
    }
}
