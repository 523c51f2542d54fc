//! OCI bundles: reads the `config.json` that containerd and CRI-O write for a container, and where the
//! runtime should put the container's cgroup.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    containers::{
        Facts, LeftOut, PodFacts, Runtime, Texts,
        files::{FILE_MAX_BYTES, FileError, StateDir},
        grammar::{is_free_id, is_hex_id},
        kept,
        labels::kept_labels,
        unit::slice_path,
    },
    host::root::Root,
};

/// Where containerd keeps the bundles of running tasks, below its state directory.
pub const TASKS: &str = "io.containerd.runtime.v2.task";
/// The same for the first shim: containerd 1.x with `io.containerd.runtime.v1.linux`.
const TASKS_V1: &str = "io.containerd.runtime.v1.linux";
/// Both.
pub const ALL_TASKS: [&str; 2] = [TASKS, TASKS_V1];
/// The namespace of Docker's containers in containerd.
pub const DOCKER_NAMESPACE: &str = "moby";
/// The most namespaces that are searched if the cgroup does not name one.
pub const NAMESPACES_MAX: usize = 32;

/// Whether a container's own runtime says that its cgroup is at the path where it was found. Whoever makes a
/// cgroup can choose its name, but not this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeCgroup {
    /// The path ends as the runtime says, after `above` more names. Zero if the runtime sees the whole tree.
    Here {
        /// The number of names.
        above: u16,
    },
    /// The runtime says another path.
    Elsewhere,
    /// The runtime's files do not say a path.
    NotSaid,
}

impl RuntimeCgroup {
    /// Compares the `cgroups_path` of an OCI spec with the path of the cgroup. The systemd driver writes
    /// `SLICE:PREFIX:NAME`.
    pub fn of(cgroups_path: &str, path: &[u8]) -> Self {
        let mut parts = cgroups_path.split(':');
        let said = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(slice), Some(prefix), Some(name), None) => {
                let slice = if slice.is_empty() { "system.slice" } else { slice };
                let Some(slice) = slice_path(slice) else { return Self::NotSaid };
                format!("{slice}/{prefix}-{name}.scope")
            }
            _ => cgroups_path.trim_end_matches('/').to_owned(),
        };
        // Relative to the cgroup of a process that is gone, so nothing is known.
        if !said.starts_with('/') {
            return Self::NotSaid;
        }
        match path.strip_suffix(said.as_bytes()) {
            Some(above) => Self::Here { above: u16::try_from(names_in(above)).unwrap_or(u16::MAX) },
            None => Self::Elsewhere,
        }
    }
}

fn names_in(path: &[u8]) -> usize {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).count()
}

#[derive(Deserialize)]
struct Spec {
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

impl Spec {
    fn runtime_cgroup(&self, path: &[u8]) -> RuntimeCgroup {
        let said = self.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
        said.filter(|said| !said.is_empty())
            .map_or(RuntimeCgroup::NotSaid, |said| RuntimeCgroup::of(said, path))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// Compares the path in the bundle `file` below `dir` with the path of the cgroup.
pub fn runtime_cgroup_in(dir: &StateDir, file: &Path, path: &[u8]) -> Result<RuntimeCgroup, FileError> {
    Ok(dir.json::<Spec>(file, FILE_MAX_BYTES)?.runtime_cgroup(path))
}

/// The bundle of Docker's container `id`, below containerd's state directory.
pub fn docker_bundle(id: &str) -> PathBuf {
    [TASKS, DOCKER_NAMESPACE, id, "config.json"].iter().collect()
}

/// containerd's container of this namespace and id. Without a namespace, the first one with this id.
pub fn containerd(
    root: &Root,
    dir: &StateDir,
    (namespace, id): (Option<&str>, &str),
    path: &[u8],
    texts: &mut Texts,
) -> Result<Facts, FileError> {
    if !is_free_id(id) || !namespace.is_none_or(is_free_id) {
        return Err(FileError::Absent);
    }
    let mut worst = FileError::Absent;
    for tasks in ALL_TASKS {
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.to_owned()],
            None => dir.list(Path::new(tasks), NAMESPACES_MAX),
        };
        for namespace in namespaces.iter().filter(|name| is_free_id(name) && *name != DOCKER_NAMESPACE) {
            let file: PathBuf = [tasks, namespace, id, "config.json"].iter().collect();
            match dir.json::<Spec>(&file, FILE_MAX_BYTES) {
                Ok(spec) => {
                    let restarts = restarts(root, dir, &[tasks, namespace], &spec);
                    return Ok(containerd_facts(&spec, id, path, restarts, texts));
                }
                Err(FileError::Absent) => {}
                Err(why) => worst = why,
            }
        }
    }
    Err(worst)
}

/// The most log files of one container that are looked at. A kubelet keeps a few, and rotated ones.
const LOGS_MAX: usize = 256;

/// How often the kubelet has restarted the container of `spec`. containerd writes this into no file. But each
/// start has a log `CONTAINER/RESTARTS.log`, from which the kubelet itself counts after it was restarted. It
/// is opened before the container's cgroup is made. The pod's sandbox knows the directory of the logs.
fn restarts(root: &Root, dir: &StateDir, bundles: &[&str; 2], spec: &Spec) -> Option<u32> {
    let sandbox = spec.annotation("io.kubernetes.cri.sandbox-id").filter(|id| is_hex_id(id))?;
    let container = spec.annotation("io.kubernetes.cri.container-name").filter(|name| is_free_id(name))?;
    let file = bundles.iter().collect::<PathBuf>().join(sandbox).join("config.json");
    let sandbox: Spec = dir.json(&file, FILE_MAX_BYTES).ok()?;
    let logs =
        sandbox.annotation("io.kubernetes.cri.sandbox-log-directory").filter(|dir| dir.starts_with('/'))?;
    let names = StateDir::system(root.path(logs)).list(Path::new(container), LOGS_MAX);
    names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).max()
}

fn containerd_facts(spec: &Spec, id: &str, path: &[u8], restarts: Option<u32>, texts: &mut Texts) -> Facts {
    let cri = |key: &str| spec.annotation(&format!("io.kubernetes.cri.{key}"));
    let pod = cri("sandbox-name").or(cri("sandbox-uid")).or(cri("container-type")).map(|_| {
        let sandbox = cri("container-type") == Some("sandbox");
        Box::new(PodFacts {
            namespace: cri("sandbox-namespace").and_then(|text| texts.shared(text)),
            name: cri("sandbox-name").and_then(|text| texts.shared(text)),
            uid: cri("sandbox-uid").and_then(|text| texts.shared(text)),
            container: cri("container-name").filter(|_| !sandbox).and_then(|text| texts.shared(text)),
            restart_count: count(spec.annotation("io.kubernetes.container.restartCount")).or(restarts),
            sandbox,
        })
    });
    let name = match &pod {
        Some(pod) => pod.container.as_deref(),
        // `ctr` uses the id as the name, and whoever made the container chose it.
        None => spec.annotation("nerdctl/name").or_else(|| (!is_hex_id(id)).then_some(id)),
    };
    Facts {
        runtime: Runtime::Containerd,
        name: name.and_then(kept),
        image: cri("image-name").and_then(|text| texts.shared(text)),
        restart_count: None,
        labels: kept_labels(spec.annotations.iter().flatten(), texts),
        pod,
        runtime_cgroup: spec.runtime_cgroup(path),
        of_user: false,
        left_out: LeftOut::Nothing,
    }
}

/// CRI-O's container `id`.
pub fn crio(dir: &StateDir, id: &str, path: &[u8], texts: &mut Texts) -> Result<Facts, FileError> {
    if !is_hex_id(id) {
        return Err(FileError::Absent);
    }
    let file: PathBuf = ["overlay-containers", id, "userdata", "config.json"].iter().collect();
    let spec: Spec = dir.json(&file, FILE_MAX_BYTES)?;
    let own = |key: &str| spec.annotation(&format!("io.kubernetes.cri-o.{key}"));
    let kubelet = |key: &str| spec.annotation(&format!("io.kubernetes.{key}"));
    let sandbox = own("ContainerType") == Some("sandbox");
    let container = kubelet("container.name").or(own("ContainerName")).filter(|_| !sandbox);
    let attempt = own("Metadata").filter(|_| !sandbox).and_then(|text| {
        #[derive(Deserialize)]
        struct Metadata {
            attempt: Option<u32>,
        }
        // For the first attempt CRI-O leaves the key out.
        serde_json::from_str::<Metadata>(text).ok().map(|metadata| metadata.attempt.unwrap_or(0))
    });
    let pod = PodFacts {
        namespace: kubelet("pod.namespace").or(own("Namespace")).and_then(|text| texts.shared(text)),
        name: kubelet("pod.name").or(own("KubeName")).and_then(|text| texts.shared(text)),
        uid: kubelet("pod.uid").and_then(|text| texts.shared(text)),
        container: container.and_then(|text| texts.shared(text)),
        restart_count: count(kubelet("container.restartCount")).or(attempt),
        sandbox,
    };
    Ok(Facts {
        runtime: Runtime::CriO,
        name: container.and_then(kept),
        image: own("UserRequestedImage").or(own("ImageName")).and_then(|text| texts.shared(text)),
        restart_count: None,
        labels: kept_labels(spec.annotations.iter().flatten(), texts),
        pod: Some(Box::new(pod)),
        runtime_cgroup: spec.runtime_cgroup(path),
        of_user: false,
        left_out: LeftOut::Nothing,
    })
}

/// A number that a runtime keeps as text.
pub fn count(text: Option<&str>) -> Option<u32> {
    text?.parse().ok()
}
