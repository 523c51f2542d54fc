//! What the runtimes' own files say about the end of a container.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    containers::{
        Runtime, Texts,
        discover::{StateDirs, UserDirs},
        files::{FILE_MAX_BYTES, FileError, LIST_MAX_BYTES, StateDir},
        grammar, podman,
    },
    event::RuntimeSays,
    sources::verdict::Unsaid,
};

/// Where containerd's CRI plugin keeps its containers, below its root.
const CRI: &str = "io.containerd.grpc.v1.cri/containers";
/// The file with the exit code has up to three digits.
const EXIT_MAX_BYTES: u64 = 64;

/// The runtime's directory that holds a container.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// Docker's data-root. If `asked`, its daemon can be asked too.
    Docker {
        /// The data-root.
        dir: StateDir,
        /// It is not an unprivileged user's.
        asked: bool,
    },
    /// A root of containerd with containers of Kubernetes.
    Cri(StateDir),
    /// CRI-O's directories: one is lost at a reboot, another stays.
    CriO(Vec<StateDir>),
    /// Podman's graph root.
    Podman(StateDir),
    /// The graph root of an unprivileged user's Podman.
    UserPodman,
}

/// What the runtime says.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// This will not change: the container ended, or the kill is shown.
    Settled(RuntimeSays),
    /// The container runs and no kill is shown yet.
    Open(RuntimeSays),
    /// There is no such container any more.
    Gone,
    /// Nothing could be read, for this reason.
    Unknown(String),
}

/// Whether this runtime shows OOM kills in a form that can be read.
pub(super) fn has_verdicts(runtime: Runtime, in_pod: bool) -> bool {
    has_flags(runtime, in_pod) || runtime == Runtime::Podman
}

/// Whether a file of this runtime shows them, so that checking bystanders is cheap.
pub(super) fn has_flags(runtime: Runtime, in_pod: bool) -> bool {
    matches!(runtime, Runtime::Docker | Runtime::CriO) || runtime == Runtime::Containerd && in_pod
}

/// Podman has no such file, so it is asked at once.
pub(super) fn is_asked_first(home: &Home) -> bool {
    matches!(home, Home::Podman(_))
}

/// The directory of the host's own runtime that has the container. `known`: its state was read before.
pub(super) fn home(dirs: &StateDirs, runtime: Runtime, id: &str, known: bool) -> Result<Home, Unsaid> {
    is_an_id(id)?;
    // Whether a directory exists that could have the container, and the one that has it.
    let (there, found) = match runtime {
        Runtime::Docker => {
            let file = docker_file(id);
            let dir = first(&dirs.docker, |dir| dir.find(&file));
            let home = dir.map(|dir| Home::Docker { dir: dir.clone(), asked: true });
            (dirs.docker.iter().any(|dir| dir.holds(Path::new("containers"))), home)
        }
        Runtime::Containerd => {
            let found = first(&dirs.containerd_roots, |dir| dir.find(&cri_file(id)));
            let home = found.map(|dir| Home::Cri(dir.clone()));
            (dirs.containerd_roots.iter().any(|dir| dir.holds(Path::new(CRI))), home)
        }
        Runtime::CriO => {
            let found = first(&dirs.crio, |dir| dir.find(&crio_file(id, "")));
            (!dirs.crio.is_empty(), found.map(|_| Home::CriO(dirs.crio.clone())))
        }
        Runtime::Podman => {
            let found = first(&dirs.podman, |dir| listed(dir, id));
            let home = found.map(|dir| Home::Podman(dir.clone()));
            (dirs.podman.iter().any(|dir| podman::is_store(dir, true)), home)
        }
        Runtime::Lxc | Runtime::Nspawn => return Err(no_directory()),
    };
    // A container that was never read may be in an unknown directory.
    found.map_err(|why| not_found(&why, known && there))
}

/// The first directory in which something is found; else the error of one that could not be read.
fn first(
    dirs: &[StateDir],
    find: impl Fn(&StateDir) -> Result<(), FileError>,
) -> Result<&StateDir, FileError> {
    let mut worst = FileError::Absent;
    for dir in dirs {
        match find(dir) {
            Ok(()) => return Ok(dir),
            Err(FileError::Absent) => {}
            Err(why) => worst = why,
        }
    }
    Err(worst)
}

/// What is said of a container that was not found. `known`: its state was read before, in a directory that is there.
fn not_found(why: &FileError, known: bool) -> Unsaid {
    match why {
        FileError::Absent if known => Unsaid::Gone,
        FileError::Absent => no_directory(),
        // A file that could not be read, perhaps in time, says nothing of the container.
        why => Unsaid::Unknown(unreadable(why)),
    }
}

/// The same for a user's own runtime.
pub(super) fn home_of_user(
    dirs: Option<&UserDirs>,
    runtime: Runtime,
    id: &str,
    known: bool,
) -> Result<Home, Unsaid> {
    is_an_id(id)?;
    let dirs = dirs.ok_or_else(no_directory)?;
    let found = match runtime {
        Runtime::Docker => {
            let home = |()| Home::Docker { dir: dirs.docker.clone(), asked: false };
            dirs.docker.find(&docker_file(id)).map(home)
        }
        Runtime::Podman => listed(&dirs.podman, id).map(|()| Home::UserPodman),
        Runtime::Containerd | Runtime::CriO | Runtime::Lxc | Runtime::Nspawn => return Err(no_directory()),
    };
    found.map_err(|why| not_found(&why, known))
}

fn is_an_id(id: &str) -> Result<(), Unsaid> {
    let why = "the container's id has another form than its runtime's ids";
    if grammar::is_hex_id(id) { Ok(()) } else { Err(Unsaid::Unknown(why.to_owned())) }
}

fn no_directory() -> Unsaid {
    Unsaid::Unknown("no known directory of its runtime has its state".to_owned())
}

/// Finds the container in Podman's list in `dir`.
fn listed(dir: &StateDir, id: &str) -> Result<(), FileError> {
    podman::container(dir, id, &mut podman::Lists::default(), &mut Texts::unshared()).map(drop)
}

fn unreadable(why: &FileError) -> String {
    format!("cannot read the runtime's file: {why}")
}

/// What the files say now.
pub(super) fn read(home: &Home, id: &str) -> Says {
    let read = match home {
        Home::Docker { dir, .. } => {
            dir.json(&docker_file(id), FILE_MAX_BYTES).map(|file: DockerFile| file.state.says())
        }
        Home::Cri(dir) => dir.json(&cri_file(id), FILE_MAX_BYTES).map(|status: CriStatus| status.says()),
        Home::CriO(dirs) => crio(dirs, id),
        // The list has no state. If it cannot be read, that does not mean that the container ended.
        Home::Podman(dir) => {
            podman::container(dir, id, &mut podman::Lists::default(), &mut Texts::unshared())
                .map(|_| Says::Unknown("its files do not say".to_owned()))
        }
        Home::UserPodman => Ok(Says::Unknown(
            "it is in a database that an unprivileged user can write, so it is not read".to_owned(),
        )),
    };
    match read {
        Ok(says) => says,
        Err(FileError::Absent) => Says::Gone,
        Err(why) => Says::Unknown(unreadable(&why)),
    }
}

/// Whether the files show an OOM kill.
pub(super) fn is_flagged(home: &Home, id: &str) -> bool {
    matches!(read(home, id), Says::Settled(says) | Says::Open(says) if says.oom_killed == Some(true))
}

/// How late the clock of file times can be: a tick of the slowest kernels.
const TICK_NS: i128 = 10_000_000;

/// Whether the files showed an OOM kill before `kill_ns`, a calendar time. The runtime may write sooner than
/// it is asked.
pub(super) fn was_flagged_before(home: &Home, id: &str, kill_ns: i128) -> bool {
    let written = match home {
        Home::Docker { dir, .. } => dir.modified_ns(&docker_file(id)),
        Home::Cri(dir) => dir.modified_ns(&cri_file(id)),
        // The flag needs both files, so the later one counts.
        Home::CriO(dirs) => dirs
            .iter()
            .flat_map(|dir| {
                ["exit", "oom"].into_iter().filter_map(|name| dir.modified_ns(&crio_file(id, name)))
            })
            .max(),
        Home::Podman(_) | Home::UserPodman => None,
    };
    is_flagged(home, id) && written.is_none_or(|written| written < kill_ns - TICK_NS)
}

fn docker_file(id: &str) -> PathBuf {
    ["containers", id, "config.v2.json"].iter().collect()
}

fn cri_file(id: &str) -> PathBuf {
    Path::new(CRI).join(id).join("status")
}

fn crio_file(id: &str, name: &str) -> PathBuf {
    ["overlay-containers", id, "userdata", name].iter().collect()
}

/// CRI-O derives its state from two files that the container's monitor leaves: `exit`, with the exit code,
/// and `oom`, if an OOM kill was counted. It checks the second once the first exists
/// (`UpdateContainerStatus`), and writes its own state only when the container is stopped or CRI-O restarts.
fn crio(dirs: &[StateDir], id: &str) -> Result<Says, FileError> {
    if !dirs.iter().any(|dir| dir.holds(&crio_file(id, ""))) {
        return Ok(Says::Gone);
    }
    let exit = dirs.iter().find_map(|dir| match dir.read(&crio_file(id, "exit"), EXIT_MAX_BYTES) {
        Err(FileError::Absent) => None,
        read => Some(read),
    });
    let Some(exit) = exit.transpose()? else {
        let status = Some("CONTAINER_RUNNING".to_owned());
        return Ok(Says::Open(RuntimeSays { oom_killed: Some(false), exit_code: None, status }));
    };
    let oom_killed = dirs.iter().any(|dir| dir.holds(&crio_file(id, "oom")));
    let exit_code = std::str::from_utf8(&exit).ok().and_then(|text| text.trim().parse().ok());
    let status = Some("CONTAINER_EXITED".to_owned());
    Ok(Says::Settled(RuntimeSays { oom_killed: Some(oom_killed), exit_code, status }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerFile {
    state: DockerState,
}

/// Docker's state. The API gives `status`, the file does not.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerState {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    restarting: bool,
    #[serde(default)]
    dead: bool,
    #[serde(default)]
    removal_in_progress: bool,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
    #[serde(default)]
    exit_code: i64,
    status: Option<String>,
}

impl DockerState {
    /// The meaning of this state.
    pub(super) fn says(self) -> Says {
        let lives = self.running || self.restarting;
        let word = match &self {
            Self { running: true, paused: true, .. } => "paused",
            Self { restarting: true, .. } => "restarting",
            Self { running: true, .. } => "running",
            Self { removal_in_progress: true, .. } => "removing",
            Self { dead: true, .. } => "dead",
            _ => "exited",
        };
        let says = RuntimeSays {
            oom_killed: Some(self.oom_killed),
            // While a container runs, the code is from an earlier run, or there is none.
            exit_code: (!self.running || self.restarting).then_some(self.exit_code),
            status: Some(self.status.unwrap_or_else(|| word.to_owned())),
        };
        if lives && !self.oom_killed { Says::Open(says) } else { Says::Settled(says) }
    }
}

/// The state in the checkpoint of containerd's CRI plugin.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CriStatus {
    /// Calendar time in nanoseconds; 0 while it runs.
    finished_at: i64,
    exit_code: i64,
    reason: Option<String>,
}

impl CriStatus {
    fn says(self) -> Says {
        let ended = self.finished_at != 0;
        let flagged = self.reason.as_deref() == Some("OOMKilled");
        let says = RuntimeSays {
            oom_killed: Some(flagged),
            exit_code: ended.then_some(self.exit_code),
            status: Some(if ended { "CONTAINER_EXITED" } else { "CONTAINER_RUNNING" }.to_owned()),
        };
        if ended || flagged { Says::Settled(says) } else { Says::Open(says) }
    }
}

/// Parses the output of `podman container inspect`, formatted as its state.
pub(super) fn podman_says(output: &[u8]) -> Says {
    if u64::try_from(output.len()).is_ok_and(|len| len > LIST_MAX_BYTES) {
        return Says::Unknown("podman's answer is too long".to_owned());
    }
    match serde_json::from_slice::<DockerState>(output) {
        Ok(state) => state.says(),
        Err(why) => Says::Unknown(format!("podman's answer is not a state: {why}")),
    }
}

#[cfg(test)]
mod tests;
