//! What the runtimes' own files say of a container's end.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::enrich::containers::discover::StateDirs;
use crate::enrich::containers::files::{FILE_MAX_BYTES, FileError, LIST_MAX_BYTES, StateDir};
use crate::enrich::containers::{Runtime, Texts, grammar, podman};
use crate::event::RuntimeSays;

/// Where containerd's CRI plugin keeps its containers, below its root.
const CRI: &str = "io.containerd.grpc.v1.cri/containers";

/// Which runtime's directory a container is in.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// A data-root of Docker's.
    Docker(StateDir),
    /// A root of a containerd with containers of Kubernetes.
    Cri(StateDir),
    /// A graph root of Podman's.
    Podman(StateDir),
}

/// What is said.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// It stays so: the container ended, or the kill is shown.
    Settled(RuntimeSays),
    /// The container runs and no kill is shown: it may be yet.
    Open(RuntimeSays),
    /// No such container any more.
    Gone,
    /// Nothing can be had.
    Unreadable,
}

/// Does this runtime say anything of OOM kills that can be read?
pub(super) fn has_verdicts(runtime: Runtime, in_pod: bool) -> bool {
    has_flags(runtime, in_pod) || runtime == Runtime::Podman
}

/// Does a file of its say so, cheaply enough to look at bystanders?
pub(super) fn has_flags(runtime: Runtime, in_pod: bool) -> bool {
    runtime == Runtime::Docker || runtime == Runtime::Containerd && in_pod
}

/// Podman has no file that says it: it is asked at once.
pub(super) fn is_asked_first(home: &Home) -> bool {
    matches!(home, Home::Podman(_))
}

/// The directory that knows the container now.
pub(super) fn home(dirs: &StateDirs, runtime: Runtime, id: &str) -> Option<Home> {
    if !grammar::is_hex_id(id) {
        return None;
    }
    match runtime {
        Runtime::Docker => {
            dirs.docker.iter().find(|dir| dir.holds(&docker_file(id))).cloned().map(Home::Docker)
        }
        Runtime::Containerd => {
            dirs.containerd_roots.iter().find(|dir| dir.holds(&cri_file(id))).cloned().map(Home::Cri)
        }
        Runtime::Podman => {
            let mut texts = Texts::default();
            let mut dirs = dirs.podman.iter();
            dirs.find(|dir| podman::container(dir, id, b"", &mut texts).is_ok()).cloned().map(Home::Podman)
        }
        Runtime::CriO | Runtime::Lxc | Runtime::Nspawn => None,
    }
}

/// What the files say now.
pub(super) fn read(home: &Home, id: &str) -> Says {
    let read = match home {
        Home::Docker(dir) => {
            dir.json(&docker_file(id), FILE_MAX_BYTES).map(|file: DockerFile| file.state.says())
        }
        Home::Cri(dir) => dir.json(&cri_file(id), FILE_MAX_BYTES).map(|status: CriStatus| status.says()),
        // The list has no state; that it cannot be read would be no sign of the container's end.
        Home::Podman(dir) => podman::container(dir, id, b"", &mut Texts::default()).map(|_| Says::Unreadable),
    };
    match read {
        Ok(says) => says,
        Err(FileError::Absent) => Says::Gone,
        Err(_) => Says::Unreadable,
    }
}

/// Do the files show an OOM kill?
pub(super) fn is_flagged(home: &Home, id: &str) -> bool {
    matches!(read(home, id), Says::Settled(says) | Says::Open(says) if says.oom_killed == Some(true))
}

/// How far the clock of file times is behind: a tick of the slowest kernels.
const TICK_NS: i128 = 10_000_000;

/// Were they flagged before `kill_ns`, of the calendar? A runtime may be quicker than who asks after the kill.
pub(super) fn was_flagged_before(home: &Home, id: &str, kill_ns: i128) -> bool {
    let written = match home {
        Home::Docker(dir) => dir.modified_ns(&docker_file(id)),
        Home::Cri(dir) => dir.modified_ns(&cri_file(id)),
        Home::Podman(_) => None,
    };
    is_flagged(home, id) && written.is_none_or(|written| written < kill_ns - TICK_NS)
}

fn docker_file(id: &str) -> PathBuf {
    ["containers", id, "config.v2.json"].iter().collect()
}

fn cri_file(id: &str) -> PathBuf {
    Path::new(CRI).join(id).join("status")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerFile {
    state: DockerState,
}

/// Docker's own view: in its file without, over its API with a word for the state.
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
    /// What it means.
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
            // Of a container that runs it is that of an earlier run, or none.
            exit_code: (!self.running || self.restarting).then_some(self.exit_code),
            status: Some(self.status.unwrap_or_else(|| word.to_owned())),
        };
        if lives && !self.oom_killed { Says::Open(says) } else { Says::Settled(says) }
    }
}

/// containerd's CRI plugin's own view, as its checkpoint has it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CriStatus {
    /// Nanoseconds of the calendar; 0 while it runs.
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

/// What `podman container inspect` prints with its state's format.
pub(super) fn podman_says(output: &[u8]) -> Says {
    if u64::try_from(output.len()).is_ok_and(|len| len > LIST_MAX_BYTES) {
        return Says::Unreadable;
    }
    serde_json::from_slice::<DockerState>(output).map_or(Says::Unreadable, DockerState::says)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// What is said of a container whose file holds `text`.
    fn said(runtime: Runtime, file: &Path, text: &str) -> Says {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        let state = vec![StateDir::system(dir.path())];
        let dirs = StateDirs { docker: state.clone(), containerd_roots: state, ..StateDirs::default() };
        let home = home(&dirs, runtime, ID).unwrap();
        read(&home, ID)
    }

    fn docker(state: &str) -> Says {
        said(Runtime::Docker, &docker_file(ID), &format!(r#"{{"State":{{{state}}}}}"#))
    }

    fn says(oom_killed: bool, exit_code: Option<i64>, status: &str) -> RuntimeSays {
        RuntimeSays { oom_killed: Some(oom_killed), exit_code, status: Some(status.to_owned()) }
    }

    #[track_caller]
    fn settled(said: Says, expected: RuntimeSays) {
        let Says::Settled(said) = said else { panic!("{said:?}") };
        assert_eq!(said, expected);
    }

    #[track_caller]
    fn open(said: Says, expected: RuntimeSays) {
        let Says::Open(said) = said else { panic!("{said:?}") };
        assert_eq!(said, expected);
    }

    #[test]
    fn docker_settles_when_the_container_ended_or_is_flagged() {
        settled(docker(r#""OOMKilled":true,"ExitCode":137"#), says(true, Some(137), "exited"));
        settled(docker(r#""OOMKilled":false,"ExitCode":137"#), says(false, Some(137), "exited"));
        settled(docker(r#""Running":true,"OOMKilled":true"#), says(true, None, "running"));
        open(docker(r#""Running":true,"OOMKilled":false"#), says(false, None, "running"));
        open(docker(r#""Running":true,"Paused":true"#), says(false, None, "paused"));
        open(docker(r#""Running":true,"Restarting":true,"ExitCode":1"#), says(false, Some(1), "restarting"));
    }

    #[test]
    fn a_pod_s_container_is_flagged_by_its_reason() {
        let file = cri_file(ID);
        let cri = |text: &str| said(Runtime::Containerd, &file, text);
        let killed = r#"{"Version":"v1","FinishedAt":7,"ExitCode":137,"Reason":"OOMKilled"}"#;
        settled(cri(killed), says(true, Some(137), "CONTAINER_EXITED"));
        let missed = r#"{"Version":"v1","FinishedAt":7,"ExitCode":137,"Reason":""}"#;
        settled(cri(missed), says(false, Some(137), "CONTAINER_EXITED"));
        let running = r#"{"Version":"v1","FinishedAt":0,"ExitCode":0,"Reason":""}"#;
        open(cri(running), says(false, None, "CONTAINER_RUNNING"));
    }

    #[test]
    fn what_cannot_be_read_is_not_gone() {
        assert!(matches!(docker(r#""Running":7"#), Says::Unreadable));
        let dir = tempfile::tempdir().unwrap();
        let home = Home::Docker(StateDir::system(dir.path()));
        assert!(matches!(read(&home, ID), Says::Gone));
    }
}
