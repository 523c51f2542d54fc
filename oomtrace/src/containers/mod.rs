//! From a cgroup to a container: takes a place in the cgroup tree, returns what the runtime's own files say
//! about the container.
//!
//! - [`Runtime`]: which runtimes there are.
//! - [`grammar`]: what the names of cgroups claim by their shape.
//! - [`mod@unit`]: which systemd unit they belong to.
//! - [`discover`]: where the runtimes keep their state.
//! - [`changes`]: whether that state has changed.
//! - [`files`]: how it is read. State files are input: their size is limited and no link is followed.
//! - [`docker`], [`oci`], [`podman`]: what the files of each runtime mean.
//! - [`facts`]: what is kept of them.
//! - [`labels`]: which labels an event has.
//! - [`owner`]: which of several claims on one path holds.
//!
//! No daemon is asked: if a daemon is stopped, asking it would stop the tracer too.

pub mod changes;
mod configuration;
pub mod discover;
pub mod docker;
pub mod facts;
pub mod files;
pub mod grammar;
pub mod labels;
pub mod oci;
pub mod owner;
pub mod podman;
mod runtime;
pub mod unit;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Reason, Why};
use crate::host::{files::readers::Readers, root::Root};
use changes::Changes;
use discover::{StateDirs, UserDirs};
pub use facts::{Facts, LeftOut, PodFacts, Texts, kept};
use files::{FileError, StateDir};
use grammar::Shape;
use labels::LabelKeys;
use oci::RuntimeCgroup;
pub use runtime::Runtime;

/// The runtimes of this host.
#[derive(Debug)]
pub struct Runtimes {
    /// `None` in a replay: this host's files say nothing about the cgroups of another.
    root: Option<Root>,
    dirs: Arc<StateDirs>,
    changes: Changes,
    closed: Option<String>,
    texts: Texts,
    lists: podman::Lists,
    no_scan_before: Option<Instant>,
}

/// The shortest pause between two scans of `/proc` for daemons. A daemon needs longer to start and run a
/// container.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// The pause is also at least this many times the length of the last scan, so that scans take at most 5 % of
/// the time.
const SCAN_PAUSE_FACTOR: u32 = 20;

/// Where a container is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The path of the container's cgroup.
    pub path: &'a [u8],
    /// The user whose slice contains the cgroup.
    pub user: Option<u32>,
    /// It is inside the cgroup of a user, a service or another container.
    pub within: bool,
}

/// A container about which its runtime's files say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// The reason.
    pub why: Why,
    /// It has no file, and this stays so until a directory changes.
    pub lasting: bool,
}

impl Unnamed {
    fn because(why: Why) -> Self {
        Self { why, lasting: false }
    }
}

impl Runtimes {
    /// Finds the runtimes in the configuration of this host, in its running daemons and in `extra`, the
    /// directories that the operator named.
    pub fn discover(root: Root, extra: &[(Runtime, PathBuf)]) -> Self {
        let mut dirs = StateDirs::configured(&root, extra);
        dirs.add_running(&root);
        let mut runtimes = Self { root: Some(root), closed: dirs.closed(), ..Self::none() };
        runtimes.changes.watch(dirs.with_containers());
        runtimes.dirs = Arc::new(dirs);
        runtimes
    }

    /// No runtimes: only the names of cgroups are used.
    pub fn none() -> Self {
        Self {
            root: None,
            dirs: Arc::default(),
            changes: Changes::none(),
            closed: None,
            texts: Texts::default(),
            lists: podman::Lists::default(),
            no_scan_before: None,
        }
    }

    /// Sets the keys of the labels that are kept.
    pub fn with_labels(mut self, labels: LabelKeys) -> Self {
        self.texts = Texts::default().keeping(labels);
        self
    }

    /// The host on which they run.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// How long the starts of processes took that read for it, since the last call.
    pub fn take_starts(&self) -> Duration {
        self.root.as_ref().and_then(Root::readers).map_or(Duration::ZERO, Readers::take_starts)
    }

    /// The directories of their state.
    pub fn dirs(&self) -> &Arc<StateDirs> {
        &self.dirs
    }

    /// Heap bytes of the texts that the host's containers share.
    pub fn texts_bytes(&self) -> usize {
        self.texts.bytes()
    }

    /// A number that differs after each change in a directory with the host's containers. `None` if changes
    /// are unknown. In a replay nothing changes.
    pub fn generation(&mut self) -> Option<u32> {
        if self.root.is_none() {
            return Some(0);
        }
        let dirs = &self.dirs;
        self.changes.generation(|| dirs.with_containers())
    }

    /// The runtimes whose state exists, as `docker=/var/lib/docker`.
    pub fn found(&self) -> Vec<String> {
        // CRI-O and Podman share a store, so each is also checked for a directory of its own.
        let crio = self.root.as_ref().is_some_and(|root| root.path(discover::CRIO_RUN).exists());
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

    /// Why containers may be unknown: a directory of a runtime cannot be read.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// What the runtime's files say about the container that `shape` claims, or why they say nothing. If the
    /// container is not found, running daemons are searched for other directories, unless that was done just
    /// before. No daemon of the host runs containers inside an owner's cgroup, so no search is made there.
    pub fn look_up(&mut self, shape: &Shape<'_>, place: Place<'_>) -> Result<Facts, Unnamed> {
        let mut answer = self.look_up_once(shape, place);
        let searchable = !place.within
            && !matches!(shape, Shape::Lxc(_) | Shape::Nspawn(_) | Shape::Podman(_) | Shape::CriO(_))
            && (shape.is_plain() || grammar::is_hex_id(shape.id()));
        let Some(root) = self.root.as_ref().filter(|_| answer.is_err() && searchable) else { return answer };
        if self.no_scan_before.is_some_and(|before| Instant::now() < before) {
            return answer.map_err(|unnamed| Unnamed::because(unnamed.why));
        }
        let began = Instant::now();
        let dirs = Arc::make_mut(&mut self.dirs);
        if dirs.add_running(root) {
            self.closed = dirs.closed();
            self.changes.watch(dirs.with_containers());
            answer = self.look_up_once(shape, place);
        }
        let pause = SCAN_PAUSE.max(began.elapsed().saturating_mul(SCAN_PAUSE_FACTOR));
        self.no_scan_before = Instant::now().checked_add(pause);
        answer
    }

    /// Why a container without files has no name.
    pub fn absent(&self, shape: &Shape<'_>) -> Why {
        match (shape, self.closed()) {
            (Shape::Perhaps { .. }, Some(closed)) => {
                Why::with(Reason::RuntimeFileUnreadable, closed.to_owned())
            }
            (Shape::Perhaps { .. }, None) => Reason::ContainerUnknown.into(),
            _ => {
                let which = format!("{} {}", shape.runtime().name(), shape.id());
                Why::with(Reason::ContainerUnknown, which)
            }
        }
    }

    /// Reads again what may have changed since `known` was read: a container can be renamed at any time.
    /// `None` if the files are gone or cannot change.
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
        // The cgroup's place was read when it was made, and it stays.
        (fresh.of_user == known.of_user).then_some(Facts { runtime_cgroup: known.runtime_cgroup, ..fresh })
    }

    fn look_up_once(&mut self, shape: &Shape<'_>, place: Place<'_>) -> Result<Facts, Unnamed> {
        let found = match shape {
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
        };
        found.map_err(|why| match why {
            Some(why) => Unnamed::because(why),
            None => Unnamed { why: self.absent(shape), lasting: true },
        })
    }

    fn perhaps(&mut self, namespace: Option<&str>, id: &str, place: Place<'_>) -> Result<Facts, Option<Why>> {
        let mut answer = Err(None);
        if namespace.is_some() {
            answer = self.containerd(namespace, id, place);
        }
        if answer.is_err() && grammar::is_hex_id(id) {
            answer = self.docker(id, place).or_else(|_| self.containerd(None, id, place));
        }
        // An error in another runtime's file of that name is not the reason.
        answer.map_err(|_| None)
    }

    fn docker(&mut self, id: &str, place: Place<'_>) -> Result<Facts, Option<Why>> {
        let own = place.user.and_then(|uid| UserDirs::of(self.root.as_ref()?, uid)).map(|own| own.docker);
        let labels = self.texts.labels().clone();
        let of_user = first(own.as_slice(), Runtime::Docker, id, |dir| {
            let facts = docker::container(dir, id, &mut Texts::unshared().keeping(labels.clone()))?;
            Ok(Facts {
                of_user: true,
                runtime_cgroup: docker::runtime_cgroup(dir, &[], id, place.path),
                ..facts
            })
        });
        let containerd = &self.dirs.containerd;
        or_else(of_user, || {
            first(&self.dirs.docker, Runtime::Docker, id, |dir| {
                let facts = docker::container(dir, id, &mut self.texts)?;
                Ok(Facts { runtime_cgroup: docker::runtime_cgroup(dir, containerd, id, place.path), ..facts })
            })
        })
    }

    fn containerd(
        &mut self,
        namespace: Option<&str>,
        id: &str,
        place: Place<'_>,
    ) -> Result<Facts, Option<Why>> {
        let root = self.root.as_ref().ok_or(None)?;
        first(&self.dirs.containerd, Runtime::Containerd, id, |dir| {
            oci::containerd(root, dir, (namespace, id), place.path, &mut self.texts)
        })
    }

    fn podman(&mut self, id: &str, place: Place<'_>) -> Result<Facts, Option<Why>> {
        let own = place.user.and_then(|uid| UserDirs::of(self.root.as_ref()?, uid)).map(|own| own.podman);
        let Self { lists, texts, .. } = self;
        let of_user = first(own.as_slice(), Runtime::Podman, id, |dir| {
            let facts = podman::container(dir, id, lists, &mut Texts::unshared())?;
            Ok(Facts { of_user: true, runtime_cgroup: podman::runtime_cgroup(dir, id, place.path), ..facts })
        });
        or_else(of_user, || {
            first(&self.dirs.podman, Runtime::Podman, id, |dir| {
                let facts = podman::container(dir, id, lists, texts)?;
                Ok(Facts { runtime_cgroup: podman::runtime_cgroup(dir, id, place.path), ..facts })
            })
        })
    }
}

/// The facts from the first directory that knows the container. Else the first error, if there was one.
fn first(
    dirs: &[StateDir],
    runtime: Runtime,
    id: &str,
    mut read: impl FnMut(&StateDir) -> Result<Facts, FileError>,
) -> Result<Facts, Option<Why>> {
    let mut reason = None;
    for dir in dirs {
        match read(dir) {
            Ok(facts) => return Ok(facts),
            Err(FileError::Absent) => {}
            Err(why) => {
                reason.get_or_insert_with(|| {
                    let what = format!("{} {id} in {}: {why}", runtime.name(), dir.path().display());
                    Why::with(Reason::RuntimeFileUnreadable, what)
                });
            }
        }
    }
    Err(reason)
}

/// The user's own container, else the host's. If neither is known, an error in the user's files comes first.
fn or_else(
    of_user: Result<Facts, Option<Why>>,
    of_host: impl FnOnce() -> Result<Facts, Option<Why>>,
) -> Result<Facts, Option<Why>> {
    let Err(unread) = of_user else { return of_user };
    of_host().map_err(|why| unread.or(why))
}

/// LXC and nspawn: the container is named like its cgroup.
fn by_path(runtime: Runtime, name: &str) -> Facts {
    Facts {
        runtime,
        name: kept(name),
        image: None,
        restart_count: None,
        labels: Box::default(),
        pod: None,
        runtime_cgroup: RuntimeCgroup::NotSaid,
        of_user: false,
        left_out: LeftOut::Nothing,
    }
}
