//! Finds the directories where the container runtimes of this host keep their state, from configuration
//! files, the command lines of daemons, and defaults. No daemon is asked.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::Deserialize;

use crate::{
    containers::{
        Runtime,
        configuration::{self, Containerd},
        files::{FileError, StateDir, command_line, host_file, process_file},
        oci,
        owner::claims,
        podman,
    },
    host::{process::fields::status_words, root::Root},
};

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
/// containerd's default, the containerd that dockerd starts, k3s and rke2, microk8s.
const CONTAINERD_STATES: [&str; 4] = [
    "/run/containerd",
    "/run/docker/containerd/daemon",
    "/run/k3s/containerd",
    "/var/snap/microk8s/common/run/containerd",
];
/// Where containerd keeps what survives a reboot: its default, k3s and rke2, microk8s.
const CONTAINERD_ROOTS: [&str; 3] = [
    "/var/lib/containerd",
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/snap/microk8s/common/var/lib/containerd",
];
/// Exists where CRI-O runs.
pub(super) const CRIO_RUN: &str = "/run/crio";
const DOCKER_SOCKET: &str = "/run/docker.sock";
const DOCKER_DATA_ROOT: &str = "/var/lib/docker";
const STORAGE_GRAPH_ROOT: &str = "/var/lib/containers/storage";
const STORAGE_RUN_ROOT: &str = "/run/containers/storage";
/// The pid files of daemons. The command line shows if the pid still belongs to the daemon.
const PID_FILES: [&str; 3] =
    ["/run/docker.pid", "/run/containerd/containerd.pid", "/run/docker/containerd/containerd.pid"];
/// The most directories of one runtime.
const DIRS_MAX: usize = 16;

/// The directories of each runtime.
#[derive(Clone, Debug, Default)]
pub struct StateDirs {
    /// Docker's data-roots: `containers/ID/config.v2.json`.
    pub docker: Vec<StateDir>,
    /// containerd's state: `io.containerd.runtime.v2.task/NAMESPACE/ID/config.json`.
    pub containerd: Vec<StateDir>,
    /// CRI-O's: `overlay-containers/ID/userdata/config.json`.
    pub crio: Vec<StateDir>,
    /// Podman's graph roots: `overlay-containers/containers.json`.
    pub podman: Vec<StateDir>,
    /// containerd's roots: `io.containerd.grpc.v1.cri/containers/ID/status`.
    pub containerd_roots: Vec<StateDir>,
    /// The sockets of Docker's daemons.
    pub docker_sockets: Vec<PathBuf>,
}

impl StateDirs {
    /// The directories of `extra`, which the operator named, then those of the configuration, the pid files
    /// and the defaults.
    pub fn configured(root: &Root, extra: &[(Runtime, PathBuf)]) -> Self {
        let mut dirs = Self::default();
        for (runtime, path) in extra {
            dirs.add(*runtime, path.clone());
        }
        let docker = host_file(&root.path("/etc/docker/daemon.json"));
        if let Some(data_root) = docker.as_deref().and_then(data_root_of_json) {
            dirs.add_docker(root.path(data_root));
        }
        dirs.add_containerd(root, configuration::containerd(root, CONTAINERD_CONFIG));
        for pid_file in PID_FILES {
            let pid = host_file(&root.path(pid_file)).and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some(pid) = pid.and_then(|pid| pid.trim().parse::<u32>().ok()) {
                dirs.add_daemon(root, &pid.to_string());
            }
        }
        let storage = configuration::storage(root);
        let graph_root = storage.graph_root.unwrap_or_else(|| STORAGE_GRAPH_ROOT.into());
        let run_root = storage.run_root.unwrap_or_else(|| STORAGE_RUN_ROOT.into());
        dirs.add_docker(root.path(DOCKER_DATA_ROOT));
        for state in CONTAINERD_STATES {
            dirs.add(Runtime::Containerd, root.path(state));
        }
        for path in CONTAINERD_ROOTS {
            add(&mut dirs.containerd_roots, StateDir::system(root.path(path)));
        }
        add(&mut dirs.docker_sockets, root.path(DOCKER_SOCKET));
        dirs.add(Runtime::Podman, root.path(&graph_root));
        for path in [run_root.as_str(), STORAGE_RUN_ROOT, &graph_root, STORAGE_GRAPH_ROOT] {
            dirs.add(Runtime::CriO, root.path(path));
        }
        dirs
    }

    /// A message about the first directory that this process cannot read.
    pub fn closed(&self) -> Option<String> {
        let Self { docker, containerd, crio, podman, .. } = self;
        let dirs = [docker, containerd, crio, podman].into_iter().flatten();
        let (dir, why) = dirs.into_iter().find_map(|dir| Some((dir.path(), dir.closed()?)))?;
        let dir = dir.display();
        Some(match why {
            FileError::Served(_) => format!("{dir} is {why} and is not read: containers may be unknown"),
            _ => format!("{dir} may not be read (CAP_DAC_READ_SEARCH): containers may be unknown"),
        })
    }

    /// The directories that change when a container is added.
    pub fn with_containers(&self) -> Vec<PathBuf> {
        let in_each = |dirs: &[StateDir], names: &[&str]| -> Vec<PathBuf> {
            dirs.iter()
                .flat_map(|dir| names.iter().map(|name| dir.path().join(name)).collect::<Vec<_>>())
                .collect()
        };
        let mut all = in_each(&self.docker, &["containers"]);
        all.extend(in_each(&self.containerd, &oci::ALL_TASKS));
        for dir in &self.containerd {
            for tasks in oci::ALL_TASKS {
                let namespaces = dir.list(Path::new(tasks), oci::NAMESPACES_MAX);
                all.extend(namespaces.iter().map(|namespace| dir.path().join(tasks).join(namespace)));
            }
        }
        all.extend(in_each(&self.crio, &["overlay-containers"]));
        all.extend(in_each(&self.podman, &podman::STORES));
        all
    }

    /// The number of directories.
    fn count(&self) -> usize {
        let Self { docker, containerd, crio, podman, containerd_roots, docker_sockets } = self;
        let dirs = [docker, containerd, crio, podman, containerd_roots];
        dirs.into_iter().map(Vec::len).sum::<usize>() + docker_sockets.len()
    }

    /// Adds the directories in the command lines of running daemons, from a scan of `/proc`. Returns whether
    /// one was new.
    pub fn add_running(&mut self, root: &Root) -> bool {
        let before = self.count();
        let Ok(entries) = std::fs::read_dir(root.path("/proc")) else { return false };
        for entry in entries.flatten() {
            let Ok(pid) = entry.file_name().into_string() else { continue };
            if pid.bytes().all(|b| b.is_ascii_digit()) {
                self.add_daemon(root, &pid);
            }
        }
        self.count() > before
    }

    /// Adds the directories in the command line of `pid`, if it is a runtime's daemon.
    fn add_daemon(&mut self, root: &Root, pid: &str) {
        let comm = process_file(root, pid, "comm").unwrap_or_default();
        let comm = comm.trim_ascii_end();
        if !matches!(comm, b"dockerd" | b"containerd") {
            return;
        }
        // Any process can choose this name and its arguments.
        if !is_of_this_host(root, pid) {
            return;
        }
        let line = command_line(root, pid).unwrap_or_default();
        let words: Vec<&str> =
            line.split(|b| *b == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
        if comm == b"dockerd" {
            let said = option(&words, &["--data-root", "--graph", "-g"]).map(str::to_owned);
            let config = || option(&words, &["--config-file"]).and_then(|path| host_file(&root.path(path)));
            if let Some(data_root) = said.or_else(|| data_root_of_json(&config()?)) {
                self.add_docker(root.path(data_root));
            }
            for socket in words.iter().filter_map(|word| word.rsplit_once("unix://")) {
                if socket.1.starts_with('/') {
                    add(&mut self.docker_sockets, root.path(socket.1));
                }
            }
        } else {
            let config = option(&words, &["--config", "-c"]);
            let config = config.map(|file| configuration::containerd(root, file)).unwrap_or_default();
            let said = |name: &str| option(&words, &[name]).map(str::to_owned);
            let said =
                Containerd { state: said("--state").or(config.state), root: said("--root").or(config.root) };
            self.add_containerd(root, said);
        }
    }

    fn add_containerd(&mut self, root: &Root, said: Containerd) {
        if let Some(state) = said.state {
            self.add(Runtime::Containerd, root.path(state));
        }
        if let Some(path) = said.root {
            add(&mut self.containerd_roots, StateDir::system(root.path(path)));
        }
    }

    /// A data-root, and those that user-namespace remapping makes in it (`UID.GID`).
    fn add_docker(&mut self, data_root: PathBuf) {
        let remapped = StateDir::system(&data_root).list(Path::new("."), 64);
        self.add(Runtime::Docker, data_root.clone());
        for name in remapped {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if name.split_once('.').is_some_and(|(uid, gid)| digits(uid) && digits(gid)) {
                self.add(Runtime::Docker, data_root.join(name));
            }
        }
    }

    fn add(&mut self, runtime: Runtime, path: PathBuf) {
        let dirs = match runtime {
            Runtime::Docker => &mut self.docker,
            Runtime::Containerd => &mut self.containerd,
            Runtime::CriO => &mut self.crio,
            Runtime::Podman => &mut self.podman,
            Runtime::Lxc | Runtime::Nspawn => return,
        };
        add(dirs, StateDir::system(path));
    }
}

/// Whether a process was started by root on the host, not in a container. A container may share the host's
/// process ids and user namespace. Then it shows by its root directory, or by being in a container's cgroup.
fn is_of_this_host(root: &Root, pid: &str) -> bool {
    process_file(root, pid, "status").is_some_and(|status| is_hosts_root(&status))
        && process_file(root, pid, "cgroup").is_some_and(|cgroups| {
            let own = process_file(root, "self", "cgroup").unwrap_or_default();
            let own = containers_of(&own);
            containers_of(&cgroups).iter().all(|container| own.contains(container))
        })
        && is_same_root(root, &Path::new("/proc").join(pid))
}

/// Whether paths lead the process at `proc` to the same files as this process.
fn is_same_root(root: &Root, proc: &Path) -> bool {
    // Only what the kernel has cached: the file system might not answer.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let of = |path: PathBuf| {
        let stat = statx(CWD, path, flags, StatxFlags::INO).ok()?;
        Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    };
    let ours = of(root.path("/"));
    ours.is_some() && of(root.path(proc.join("root"))) == ours
}

/// The paths of the containers' cgroups in a `/proc/PID/cgroup`.
fn containers_of(cgroups: &[u8]) -> Vec<Vec<u8>> {
    let path_of = |line: &&[u8]| line.splitn(3, |b| *b == b':').nth(2).map(<[u8]>::to_vec);
    let paths =
        cgroups.split(|b| *b == b'\n').collect::<Vec<_>>().iter().filter_map(path_of).collect::<Vec<_>>();
    let mut found = Vec::new();
    for path in &paths {
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect();
        let plain = claims(&names, 0).into_iter().filter(|(_, shape)| shape.is_plain());
        found.extend(plain.filter_map(|(depth, _)| Some(names.get(..depth)?.join(&b'/'))));
    }
    found
}

/// Whether a `/proc/PID/status` shows root in the initial pid namespace, so neither a container nor a user.
fn is_hosts_root(status: &[u8]) -> bool {
    let uids = status_words(status, b"Uid:");
    uids.len() == 4 && uids.iter().all(|uid| *uid == b"0") && status_words(status, b"NSpid:").len() == 1
}

fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if all.len() < DIRS_MAX && !all.contains(&one) {
        all.push(one);
    }
}

/// Where the runtimes of an unprivileged user keep their state, below that user's home.
#[derive(Clone, Debug)]
pub struct UserDirs {
    /// Docker's data-root.
    pub docker: StateDir,
    /// Podman's graph root.
    pub podman: StateDir,
}

impl UserDirs {
    /// The directories of `uid`; `None` where `/etc/passwd` has no home for it.
    pub fn of(root: &Root, uid: u32) -> Option<Self> {
        let home = home_of(root, uid)?;
        Some(Self {
            docker: StateDir::of_user(&home, ".local/share/docker").read_by(root.readers()),
            podman: StateDir::of_user(&home, ".local/share/containers/storage").read_by(root.readers()),
        })
    }
}

/// The home of `uid` in `/etc/passwd`.
fn home_of(root: &Root, uid: u32) -> Option<PathBuf> {
    let passwd = host_file(&root.path("/etc/passwd"))?;
    let line = passwd
        .split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .find(|line| line.split(':').nth(2).and_then(|field| field.parse::<u32>().ok()) == Some(uid))?;
    let home = line.split(':').nth(5).filter(|home| home.starts_with('/') && home.len() > 1)?;
    Some(root.path(home))
}

/// `--name value` or `--name=value`. The last one counts, as for the daemons.
fn option<'a>(words: &[&'a str], names: &[&str]) -> Option<&'a str> {
    let mut found = None;
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        for name in names {
            if word == *name {
                found = words.peek().copied().or(found);
            } else if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                found = Some(value);
            }
        }
    }
    found.filter(|path| path.starts_with('/'))
}

fn data_root_of_json(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Daemon {
        #[serde(rename = "data-root", alias = "graph")]
        data_root: Option<String>,
    }
    serde_json::from_slice::<Daemon>(bytes).ok()?.data_root.filter(|path| path.starts_with('/'))
}
