//! Docker: the settings of its containers, and all the ways in which they are killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::cgroup::Scratch;
use oomtrace_tests::containers::{EAT, IMAGE, expect, gated, output};
use oomtrace_tests::patience::until;
use oomtrace_tests::tracer::{self, Hook, Line, Tracer};
use serde_json::{Value, json};

use crate::Case;
use crate::daemon::Daemon;
use crate::lives;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    ("docker_pid_1_over_its_limit", pid_1),
    ("docker_removed_at_once", removed),
    ("docker_renamed_before_the_kill", renamed),
    ("docker_restarted_on_failure", restarted),
    ("docker_limit_on_the_parent", limit_on_the_parent),
    ("docker_nested_cgroup", nested_cgroup),
    ("docker_started_before_the_tracer", before_the_tracer),
    ("docker_in_docker", docker_in_docker),
    ("docker_another_data_root", another_data_root),
    ("docker_daemon_stopped", daemon_stopped),
    ("docker_daemon_dead_during_the_kill", daemon_dead),
];

/// The value of `-m 32m`.
pub(crate) const LIMIT: &str = "32m";
/// The image of a pod's sandbox, which only sleeps.
const PAUSE: &str = "oomtrace-test:pause";
const LIMIT_BYTES: u64 = 32 << 20;
/// The finding of a limit that is not the container's own.
const ABOVE: &str = "limit_above_victim";

/// dockerd and its client.
#[derive(Debug)]
pub(crate) struct Docker {
    dir: PathBuf,
    name: &'static str,
    containerd: PathBuf,
    options: Vec<String>,
    daemon: Option<Daemon>,
    gates: PathBuf,
}

impl Docker {
    /// Starts one with `DIR/NAME` as its data-root, unless `options` set another.
    pub(crate) fn start(dir: &Path, name: &'static str, containerd: &Path, options: &[&str]) -> Result<Self> {
        let mut docker = Self {
            dir: dir.to_owned(),
            name,
            containerd: containerd.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            daemon: None,
            gates: dir.join("gate"),
        };
        docker.start_again()?;
        Ok(docker)
    }

    fn socket(&self) -> String {
        format!("unix://{}/{}.sock", self.dir.display(), self.name)
    }

    /// Starts the daemon, also after it was killed.
    fn start_again(&mut self) -> Result<()> {
        let at = self.dir.join(self.name);
        let with = |tail: &str| format!("{}{tail}", at.display());
        let mut command = Command::new("dockerd");
        // Nothing in the host's network is changed.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["-H", &self.socket(), "--exec-root", &with("-exec"), "--pidfile", &with(".pid")]);
        command.arg("--containerd").arg(&self.containerd);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]).args(&self.options);
        if !self.options.iter().any(|option| option.contains("config-file")) {
            command.args(["--data-root", &with("")]);
        }
        let ready = || self.cli(&["version"]).is_ok();
        self.daemon = Some(Daemon::start("dockerd", &self.dir, &mut command, ready)?);
        Ok(())
    }

    /// Imports the image.
    pub(crate) fn import(&self, tar: &Path) -> Result<()> {
        self.cli(&["import", &tar.display().to_string(), IMAGE])?;
        Ok(())
    }

    /// Writes the image and that of a pod's sandbox to a file for containerd.
    pub(crate) fn save(&self, tar: &Path, saved: &Path) -> Result<()> {
        let sleep = "ENTRYPOINT [\"/bin/sleep\", \"86400\"]";
        self.cli(&["import", "--change", sleep, &tar.display().to_string(), PAUSE])?;
        self.cli(&["save", "-o", &saved.display().to_string(), IMAGE, PAUSE])?;
        Ok(())
    }

    /// Runs `docker ARGUMENTS`. Returns the output.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        // The daemon in the caller's environment must not be used.
        output(
            Command::new("docker").env_remove("DOCKER_CONTEXT").args(["-H", &self.socket()]).args(arguments),
        )
    }

    /// Runs a script in a new container in the background. Returns the container's id.
    pub(crate) fn run(&self, name: &str, options: &[&str], script: &str) -> Result<String> {
        let gates = format!("{}:/gate:ro", self.gates.display());
        let mut arguments =
            vec!["run", "-d", "--pull", "never", "--network", "none", "--name", name, "-v", &gates];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[IMAGE, "/bin/sh", "-c", script]);
        self.cli(&arguments)
    }

    /// What Docker says about the container's state.
    pub(crate) fn state(&self, id: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.cli(&["inspect", "-f", "{{json .State}}", id])?)?)
    }

    /// Removes containers, running or not.
    pub(crate) fn remove(&self, ids: &[&str]) -> Result<()> {
        self.cli(&[&["rm", "-f"], ids].concat()).map(drop)
    }

    fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("dockerd does not run")
    }
}

/// The `container` that oomtrace must report.
pub(crate) fn told(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "runtime": {"name": "docker"}, "image": {"name": IMAGE}, "restart_count": 0})
}

/// Checks a kill by the container's own limit.
pub(crate) fn by_own_limit(line: &Line, id: &str, container: &Value) -> Result<()> {
    let path = format!("/docker/{id}");
    expect(
        line,
        &[
            ("container", container.clone()),
            ("victim.comm", json!("dd")),
            ("oom.scope", json!("memcg")),
            ("oom.cgroup.path", json!(path)),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("k8s", Value::Null),
            ("missing.container", Value::Null),
        ],
    )
}

/// The verdict must say what `docker inspect` says.
pub(crate) fn verdict_as_inspected(world: &mut World, kill: &Line, id: &str) -> Result<()> {
    let verdict = world.watch.verdict_of(kill)?;
    let state = world.docker.state(id)?;
    let field = |key: &str| state.get(key).cloned().unwrap_or_default();
    expect(
        &verdict,
        &[
            ("container.id", json!(id)),
            ("container.name", kill.get("container.name").cloned().unwrap_or_default()),
            ("runtime_says.oom_killed", field("OOMKilled")),
            ("runtime_says.status", field("Status")),
            ("missed", json!(field("OOMKilled") != json!(true))),
            ("false_positive", Value::Null),
        ],
    )?;
    if field("Status") == json!("exited") {
        expect(&verdict, &[("runtime_says.exit_code", field("ExitCode"))])?;
    }
    Ok(())
}

fn pid_1(world: &mut World) -> Result<()> {
    let labels = [
        "-m",
        LIMIT,
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=api",
        "--label",
        "com.docker.swarm.service.name=shop_api",
        "--label",
        "secret=x",
    ];
    let id = world.docker.run("shop-api-1", &labels, &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    let mut container = told(&id, "shop-api-1");
    if let Some(container) = container.as_object_mut() {
        let labels = json!({"com.docker.compose.project": "shop", "com.docker.compose.service": "api",
            "com.docker.swarm.service.name": "shop_api"});
        container.insert("label".into(), labels);
    }
    by_own_limit(&line, &id, &container)?;
    expect(&line, &[("victim.namespace_pid", json!(1))])?;
    let lives = world.watch.finding_of(&line, lives::LIVES)?;
    ensure!(lives.is_none(), "the container has ended: {lives:?}");
    let above = world.watch.finding_of(&line, ABOVE)?;
    ensure!(above.is_none(), "the limit is the container's own: {above:?}");
    verdict_as_inspected(world, &line, &id)?;
    world.docker.remove(&[&id])
}

fn removed(world: &mut World) -> Result<()> {
    let id = world.docker.run("short", &["-m", LIMIT, "--rm"], &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "short"))?;
    let verdict = world.watch.verdict_of(&line)?;
    ensure!(world.docker.state(&id).is_err(), "Docker still knows a container that was run with --rm");
    expect(
        &verdict,
        &[
            ("container.name", json!("short")),
            ("runtime_says", Value::Null),
            ("missed", json!(true)),
            ("missing.runtime_says", json!("container_gone")),
        ],
    )
}

fn renamed(world: &mut World) -> Result<()> {
    let script = gated("renamed", &format!("exec {EAT}"));
    let id = world.docker.run("before", &["-m", LIMIT], &script)?;
    world.docker.cli(&["rename", "before", "after"])?;
    world.open("renamed")?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "after"))?;
    world.docker.remove(&[&id])
}

fn restarted(world: &mut World) -> Result<()> {
    let id =
        world.docker.run("again", &["-m", LIMIT, "--restart", "on-failure:2"], &format!("exec {EAT}"))?;
    for restarts in 0..=2 {
        let line = world.watch.kill_in(&id)?;
        let mut container = told(&id, "again");
        if let Some(container) = container.as_object_mut() {
            container.insert("restart_count".into(), json!(restarts));
        }
        by_own_limit(&line, &id, &container)?;
    }
    let count = world.docker.cli(&["inspect", "-f", "{{.RestartCount}}", &id])?;
    ensure!(count == "2", "Docker counts {count} restarts");
    world.docker.remove(&[&id])
}

fn limit_on_the_parent(world: &mut World) -> Result<()> {
    let scratch = Scratch::make(&world.hierarchy)?;
    let parent = scratch.cgroup().child(b"shop")?;
    parent.limit(LIMIT_BYTES)?;
    let path = String::from_utf8_lossy(&parent.place().path).into_owned();
    let under = ["--cgroup-parent", &path];
    let bystander = world.docker.run("bystander", &under, &gated("bystander", "exit 0"))?;
    let id = world.docker.run("eater", &under, &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    expect(
        &line,
        &[
            ("container", told(&id, "eater")),
            ("victim.cgroup.path", json!(format!("{path}/{id}"))),
            ("oom.cgroup.path", json!(path)),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
        ],
    )?;
    // Docker 20.10 shows the flag only when the container has ended. The verdict must come after that.
    let too_early = world.end_before_the_verdict(&line, "bystander", || {
        Ok(world.docker.state(&bystander)?.get("Status") == Some(&json!("exited")))
    })?;
    ensure!(!too_early, "the verdict came before the bystander had ended");
    let above = world.watch.finding_of(&line, ABOVE)?;
    ensure!(above.is_some(), "the limit is above the container, and no finding says so");
    let verdict = world.watch.verdict_of(&line)?;
    let accused = world.docker.state(&bystander)?.get("OOMKilled") == Some(&json!(true));
    let expected = if accused { json!(["bystander"]) } else { Value::Null };
    expect(&verdict, &[("container.name", json!("eater")), ("false_positive", expected)])?;
    ensure!(world.watch.kills_in(&bystander) == 0, "oomtrace reported the bystander");
    world.docker.remove(&[&id, &bystander])?;
    world.tidy();
    Ok(())
}

/// Moves the container's PID 1 into a cgroup below the container's own.
fn put_below(world: &World, id: &str, below: &str) -> Result<()> {
    let pid = world.docker.cli(&["inspect", "-f", "{{.State.Pid}}", id])?;
    let dir = world.hierarchy.mount.join("docker").join(id).join(below);
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    std::fs::write(dir.join("cgroup.procs"), pid).context("enter the nested cgroup")
}

fn nested_cgroup(world: &mut World) -> Result<()> {
    let id = world.docker.run("nesting", &["-m", LIMIT], &gated("nesting", &format!("exec {EAT}")))?;
    put_below(world, &id, "worker")?;
    world.open("nesting")?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "nesting"))?;
    expect(&line, &[("victim.cgroup.path", json!(format!("/docker/{id}/worker")))])?;
    verdict_as_inspected(world, &line, &id)?;
    world.docker.remove(&[&id])
}

fn docker_in_docker(world: &mut World) -> Result<()> {
    let inner = "b".repeat(64);
    let id = world.docker.run("outer", &["-m", LIMIT], &gated("outer", &format!("exec {EAT}")))?;
    put_below(world, &id, &format!("docker/{inner}"))?;
    world.open("outer")?;
    let line = world.watch.kill_in(&id)?;
    let mut container = told(&id, "outer");
    if let Some(container) = container.as_object_mut() {
        container.insert("nested".into(), json!([inner]));
    }
    by_own_limit(&line, &id, &container)?;
    world.docker.remove(&[&id])
}

fn before_the_tracer(world: &mut World) -> Result<()> {
    let id = world.docker.run("early", &["-m", LIMIT], &gated("early", &format!("exec {EAT}")))?;
    let mut late = Tracer::start(&tracer::binary()?, Hook::Auto)?;
    world.open("early")?;
    let is_it = |line: &&Line| line.get("container.id") == Some(&json!(id));
    let line = late.wait_for("a line of the later tracer", |lines| lines.iter().find(is_it).cloned())?;
    by_own_limit(&line, &id, &told(&id, "early"))?;
    late.stop()?;
    world.watch.kill_in(&id)?;
    world.docker.remove(&[&id])
}

/// A second daemon, started while the tracer runs. Only its command line names the file with its data-root.
fn another_data_root(world: &mut World) -> Result<()> {
    let (config, data) = (world.dir().join("elsewhere.json"), world.dir().join("elsewhere-data"));
    std::fs::write(&config, json!({"data-root": data}).to_string())?;
    let option = format!("--config-file={}", config.display());
    let other = Docker::start(world.dir(), "elsewhere", &world.containerd.socket, &[&option])?;
    other.import(&world.dir().join("rootfs.tar"))?;
    let id = other.run("far", &["-m", LIMIT], &format!("exec {EAT}"))?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "far"))?;
    other.remove(&[&id])
}

fn daemon_stopped(world: &mut World) -> Result<()> {
    let id = world.docker.run("stopped", &["-m", LIMIT], &gated("stopped", &format!("exec {EAT}")))?;
    world.docker.daemon()?.signal(libc::SIGSTOP)?;
    world.open("stopped")?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "stopped"))?;
    // While the daemon hangs, its file has the last state that it knew.
    let verdict = world.watch.verdict_of(&line)?;
    world.docker.daemon()?.signal(libc::SIGCONT)?;
    expect(&verdict, &[("runtime_says.status", json!("running")), ("missed", json!(true))])?;
    world.docker.remove(&[&id])
}

/// Kills dockerd, kills a process in one of its containers, then starts it again.
fn daemon_dead(world: &mut World) -> Result<()> {
    let mut docker = Docker::start(world.dir(), "living", &world.containerd.socket, &["--live-restore"])?;
    docker.import(&world.dir().join("rootfs.tar"))?;
    let script = gated("living", &format!("{EAT}; exec sleep 600"));
    let id = docker.run("living", &["-m", LIMIT], &script)?;
    docker.daemon.take().context("dockerd")?.crash()?;
    world.open("living")?;
    let line = world.watch.kill_in(&id)?;
    by_own_limit(&line, &id, &told(&id, "living"))?;
    let verdict = world.watch.verdict_of(&line)?;
    expect(
        &verdict,
        &[
            ("container.name", json!("living")),
            ("runtime_says.oom_killed", json!(false)),
            ("missed", json!(true)),
        ],
    )?;
    docker.start_again()?;
    let state = until("the container's state", || Ok(docker.state(&id).ok()))?;
    ensure!(state.get("OOMKilled") == Some(&json!(false)), "Docker knows of the kill: {state}");
    docker.remove(&[&id])
}
