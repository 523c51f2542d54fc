//! What all cases share: the daemons, the tracer and its lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use oomtrace_tests::cgroup::Hierarchy;
use oomtrace_tests::hog::PATIENCE;
use oomtrace_tests::tracer::{self, Hook, Line, Tracer};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::docker::Docker;
use crate::image;
use crate::podman;

/// The daemons and the tracer. Dropped from the top: the tracer first, the directory last.
#[derive(Debug)]
pub(crate) struct World {
    /// The program under test.
    pub(crate) tracer: Tracer,
    containers: Containers,
    /// Docker, by its defaults but for the directories.
    pub(crate) docker: Docker,
    /// What runs Docker's containers, and is driven by itself as well.
    pub(crate) containerd: Containerd,
    /// Where memory cgroups are.
    pub(crate) hierarchy: Hierarchy,
    /// Kills that a case has asked for, by `seq`.
    claimed: BTreeSet<u64>,
    mounts: Mounts,
    dir: TempDir,
}

/// What failed cases leave running, ended while its daemons still are there.
#[derive(Debug)]
struct Containers {
    socket: PathBuf,
    dir: PathBuf,
}

impl Drop for Containers {
    fn drop(&mut self) {
        let ctr =
            |arguments: &[&str]| output(Command::new("ctr").arg("-a").arg(&self.socket).args(arguments));
        // Whatever cannot be ended shows as a mount or a cgroup that stays.
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

/// What runtimes mounted in the directory of the run, and left.
#[derive(Debug)]
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        // The last one mounted may be inside of an earlier one.
        for target in targets.filter(|target| Path::new(target).starts_with(&self.0)).rev() {
            let _stays = output(Command::new("umount").arg(target));
        }
    }
}

/// containerd, with its CRI plugin.
#[derive(Debug)]
pub(crate) struct Containerd {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    _daemon: Daemon,
}

impl Containerd {
    fn start(dir: &Path) -> Result<Self> {
        let (config, socket) = (dir.join("containerd.toml"), dir.join("containerd.sock"));
        let at = dir.display();
        // No device, no network plugin, no profile of the host's is needed.
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
        image::rootfs(dir.path())?;
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
        let podman = format!("podman={}", dir.path().join("podman").display());
        let tracer = Tracer::start_with(&binary, Hook::Auto, &["--runtime-root", &podman])?;
        Ok(Self {
            tracer,
            containers: Containers { socket: containerd.socket.clone(), dir: dir.path().to_owned() },
            docker,
            containerd,
            hierarchy,
            claimed: BTreeSet::new(),
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

    /// The image, as a file that containerd takes in.
    pub(crate) fn saved(&self) -> PathBuf {
        self.dir().join("image.tar")
    }

    /// Removes what runtimes left of this run's own cgroups in the other hierarchies of cgroup v1.
    pub(crate) fn tidy(&self) {
        let own = format!("oomtrace-test-{}", std::process::id());
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_empty(&hierarchy.path().join(&own));
        }
    }

    /// Opens a gate: see [`image::gated`].
    pub(crate) fn open(&self, name: &str) -> Result<()> {
        std::fs::write(self.gates().join(name), "").context("open a gate")
    }

    /// The next `oom_kill` line of a victim whose cgroup's path holds `part`.
    pub(crate) fn kill_in(&mut self, part: &str) -> Result<Line> {
        let claimed = &self.claimed;
        let line = self.tracer.wait_for(&format!("a line for the kill in {part}"), |lines| {
            let mut free = lines.iter().filter(|line| {
                line.kind() == "oom_kill" && line.number("seq").is_some_and(|seq| !claimed.contains(&seq))
            });
            free.find(|line| is_in(line, part)).cloned()
        })?;
        self.claimed.extend(line.number("seq"));
        Ok(line)
    }

    /// The `verdict` line of a kill.
    pub(crate) fn verdict_of(&mut self, kill: &Line) -> Result<Line> {
        let of = kill.number("seq");
        self.tracer.wait_for(&format!("the verdict on {of:?}"), |lines| {
            lines.iter().find(|line| line.kind() == "verdict" && line.number("of") == of).cloned()
        })
    }

    /// How many kills were told of victims whose cgroup's path holds `part`.
    pub(crate) fn kills_in(&self, part: &str) -> usize {
        self.tracer.lines().iter().filter(|line| line.kind() == "oom_kill" && is_in(line, part)).count()
    }

    /// Ends everything in order.
    pub(crate) fn finish(self) -> Result<()> {
        self.tracer.stop()?;
        let dir = self.dir.path().to_owned();
        drop((self.containers, self.docker, self.containerd, self.mounts));
        self.dir.close().with_context(|| format!("remove {}", dir.display()))
    }
}

/// Removes a cgroup and those below it, where no process is in them.
fn remove_empty(dir: &Path) {
    for below in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&below.path());
        }
    }
    // Not there, or the scratch cgroup itself, which its owner removes.
    let _left = std::fs::remove_dir(dir);
}

fn is_in(line: &Line, part: &str) -> bool {
    line.get("victim.cgroup.path").and_then(Value::as_str).is_some_and(|path| path.contains(part))
}

/// Fails unless the line has these values, each at its dotted path.
pub(crate) fn expect(line: &Line, values: &[(&str, Value)]) -> Result<()> {
    for (path, value) in values {
        let told = line.get(path);
        ensure!(
            told == Some(value) || told.is_none() && value.is_null(),
            "field {path}: expected {value}, oomtrace {}: {}",
            told.unwrap_or(&Value::Null),
            line.text
        );
    }
    Ok(())
}

/// Runs a program to its end; what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {said} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(said)
}

/// Waits until `find` finds something.
pub(crate) fn until<T>(what: &str, mut find: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what} did not come in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
