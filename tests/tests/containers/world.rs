//! Shared by all cases: the daemons, the tracer and its lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::cgroup::Hierarchy;
use oomtrace_tests::containers::{Watch, output, rootfs};
use oomtrace_tests::patience::until;
use oomtrace_tests::tracer::{self, Hook, Line, Tracer};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::docker::Docker;
use crate::podman;

/// The image of all containers in containerd's store.
pub(crate) const CRI_IMAGE: &str = "docker.io/library/oomtrace-test:1";

/// The daemons and the tracer. Fields are dropped in order: the tracer first, the directory last.
#[derive(Debug)]
pub(crate) struct World {
    /// The program under test.
    pub(crate) watch: Watch,
    containers: Containers,
    /// Docker with its default settings, except for the directories.
    pub(crate) docker: Docker,
    /// The containerd that runs Docker's containers, also used directly.
    pub(crate) containerd: Containerd,
    /// Where memory cgroups are.
    pub(crate) hierarchy: Hierarchy,
    mounts: Mounts,
    dir: TempDir,
}

/// Ends what failed cases left running, while the daemons still run.
#[derive(Debug)]
struct Containers {
    socket: PathBuf,
    dir: PathBuf,
}

impl Drop for Containers {
    fn drop(&mut self) {
        let ctr =
            |arguments: &[&str]| output(Command::new("ctr").arg("-a").arg(&self.socket).args(arguments));
        // What cannot be ended shows later as a mount or a cgroup that stays.
        for namespace in ctr(&["namespaces", "list", "-q"]).unwrap_or_default().lines() {
            for task in ctr(&["-n", namespace, "tasks", "list", "-q"]).unwrap_or_default().lines() {
                let _ended = ctr(&["-n", namespace, "tasks", "delete", "-f", task]);
            }
        }
        if self.dir.join("podman").exists() {
            let _ended = podman::podman(&self.dir, &["rm", "-f", "-a"]);
        }
    }
}

/// Removes mounts that runtimes left in the run's directory.
#[derive(Debug)]
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        // The last mount may be inside an earlier one, so the order is reversed.
        for target in targets.filter(|target| Path::new(target).starts_with(&self.0)).rev() {
            let _ignored = output(Command::new("umount").arg(target));
        }
    }
}

/// containerd, with its CRI plugin.
#[derive(Debug)]
pub(crate) struct Containerd {
    /// The path of its socket.
    pub(crate) socket: PathBuf,
    _daemon: Daemon,
}

impl Containerd {
    fn start(dir: &Path) -> Result<Self> {
        let (config, socket) = (dir.join("containerd.toml"), dir.join("containerd.sock"));
        let at = dir.display();
        // No device, network plugin or profile of the host is needed.
        std::fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{at}/containerd-root\"\nstate = \"{at}/containerd\"\n\
                 [grpc]\n  address = \"{}\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"docker.io/library/oomtrace-test:pause\"\n  \
                 restrict_oom_score_adj = true\n  disable_apparmor = true\n",
                socket.display()
            ),
        )?;
        let ready = || {
            let asked = Command::new("ctr").arg("-a").arg(&socket).arg("version").output();
            asked.is_ok_and(|output| output.status.success())
        };
        let daemon =
            Daemon::start("containerd", dir, Command::new("containerd").arg("--config").arg(&config), ready)?;
        Ok(Self { socket, _daemon: daemon })
    }
}

impl World {
    /// Starts everything.
    pub(crate) fn start() -> Result<Self> {
        // SAFETY: takes nothing, cannot fail.
        ensure!(unsafe { libc::geteuid() } == 0, "container runtimes need root");
        let binary = tracer::binary()?;
        let hierarchy = Hierarchy::find()?;
        let dir = tempfile::Builder::new().prefix("oomtrace-containers-").tempdir()?;
        rootfs(dir.path())?;
        std::fs::create_dir(dir.path().join("gate"))?;
        let containerd = Containerd::start(dir.path())?;
        let docker = Docker::start(dir.path(), "docker", &containerd.socket, &[])?;
        docker.import(&dir.path().join("rootfs.tar"))?;
        let saved = dir.path().join("image.tar");
        docker.save(&dir.path().join("rootfs.tar"), &saved)?;
        output(
            Command::new("ctr")
                .arg("-a")
                .arg(&containerd.socket)
                .args(["-n", "k8s.io", "images", "import"])
                .arg(saved),
        )?;
        std::fs::write(dir.path().join("containers.conf"), podman::CONFIGURATION)?;
        let podman = format!("podman={}", dir.path().join("podman").display());
        let tracer = Tracer::start_with(&binary, Hook::Auto, &["--runtime-root", &podman])?;
        Ok(Self {
            watch: Watch::over(tracer),
            containers: Containers { socket: containerd.socket.clone(), dir: dir.path().to_owned() },
            docker,
            containerd,
            hierarchy,
            mounts: Mounts(dir.path().to_owned()),
            dir,
        })
    }

    /// The directory of this run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the gates, which containers see as `/gate`.
    pub(crate) fn gates(&self) -> PathBuf {
        self.dir().join("gate")
    }

    /// The image as a file for containerd.
    pub(crate) fn saved(&self) -> PathBuf {
        self.dir().join("image.tar")
    }

    /// Removes what runtimes left of this run's cgroups in the other hierarchies of cgroup v1.
    pub(crate) fn tidy(&self) {
        let own = format!("oomtrace-test-{}", std::process::id());
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_empty(&hierarchy.path().join(&own));
        }
    }

    /// Opens a gate: see [`oomtrace_tests::containers::gated`].
    pub(crate) fn open(&self, name: &str) -> Result<()> {
        std::fs::write(self.gates().join(name), "").context("open a gate")
    }

    /// Opens the gate of a bystander and waits for its end, while the tracer is stopped: a verdict on the kill of this line comes
    /// after that. Returns whether there was one before.
    pub(crate) fn end_before_the_verdict(
        &self,
        line: &Line,
        gate: &str,
        ended: impl Fn() -> Result<bool>,
    ) -> Result<bool> {
        self.watch.freeze(true)?;
        let done = self.open(gate).and_then(|()| until("the bystander's end", || Ok(ended()?.then_some(()))));
        let too_early = self.watch.has_verdict(line);
        // Other cases use this tracer too.
        self.watch.freeze(false)?;
        done?;
        Ok(too_early)
    }

    /// Ends everything normally.
    pub(crate) fn finish(self) -> Result<()> {
        self.watch.tracer.stop()?;
        let dir = self.dir.path().to_owned();
        drop((self.containers, self.docker, self.containerd, self.mounts));
        self.dir.close().with_context(|| format!("remove {}", dir.display()))
    }
}

/// Removes a cgroup and those below it, if no process is in them.
fn remove_empty(dir: &Path) {
    for below in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&below.path());
        }
    }
    // It does not exist, or it is the scratch cgroup itself, which its owner removes.
    let _left = std::fs::remove_dir(dir);
}
