//! Shared by all cases: the tracer, and functions to call the runtimes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::{IMAGE, Watch, output, rootfs};
use oomtrace_tests::tracer::{Hook, Line, Tracer, at};
use serde_json::{Value, json};

use crate::say;

/// The value of `-m 32m` and `MemoryMax=32M`.
pub(crate) const LIMIT: &str = "32m";
pub(crate) const LIMIT_BYTES: u64 = 32 << 20;

/// Units here are gone after a restart.
const UNITS: &str = "/run/systemd/system";

#[derive(Debug)]
pub(crate) struct World {
    /// oomtrace, run by this program.
    pub(crate) watch: Watch,
    /// The running case.
    pub(crate) case: &'static str,
    /// The program under test, and its unit.
    pub(crate) oomtrace: PathBuf,
    pub(crate) unit: PathBuf,
    /// The root file system of the image.
    pub(crate) tar: PathBuf,
    dir: PathBuf,
}

impl World {
    pub(crate) fn start(oomtrace: &Path, unit: &Path) -> Result<Self> {
        // On the disk: a file in memory would fail first on a machine without memory.
        let dir = PathBuf::from("/var/lib/oomtrace-test");
        std::fs::create_dir_all(dir.join("gate"))?;
        let tar = rootfs(&dir)?;
        run("docker", &["import", &tar.display().to_string(), IMAGE])?;
        run("podman", &["import", &tar.display().to_string(), IMAGE])?;
        let tracer = Tracer::start(oomtrace, Hook::Auto)?;
        let watch = Watch::over(tracer).emulated(10);
        Ok(Self { watch, case: "", oomtrace: oomtrace.into(), unit: unit.into(), tar, dir })
    }

    /// Removes what a failed case left.
    pub(crate) fn tidy(&self) {
        for program in ["docker", "podman"] {
            for id in run(program, &["ps", "-aq"]).unwrap_or_default().lines() {
                let _ignored = run(program, &["rm", "-f", id]);
            }
        }
    }

    /// The directory that containers see as `/gate`, as a volume.
    pub(crate) fn gates(&self) -> String {
        format!("{}:/gate:ro", self.dir.join("gate").display())
    }

    /// Opens a gate: see [`oomtrace_tests::containers::gated`].
    pub(crate) fn open(&self, name: &str) -> Result<()> {
        std::fs::write(self.dir.join("gate").join(name), "").context("open a gate")
    }

    /// Writes a script that everybody can read. Returns its path.
    pub(crate) fn script(&self, name: &str, text: &str) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).context("write a script")?;
        Ok(path.display().to_string())
    }

    /// Writes a unit file.
    pub(crate) fn write_unit(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(Path::new(UNITS).join(name), text).with_context(|| name.to_owned())?;
        run("systemctl", &["daemon-reload"]).map(drop)
    }

    /// Runs a script in a Docker container in the background. Returns its id.
    pub(crate) fn docker(&self, name: &str, options: &[&str], script: &str) -> Result<String> {
        let gates = self.gates();
        let mut arguments =
            vec!["run", "-d", "--pull", "never", "--network", "none", "--name", name, "-v", &gates];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[IMAGE, "/bin/sh", "-c", script]);
        run("docker", &arguments)
    }

    /// The verdict on a kill must equal what Docker says afterwards. Both are printed.
    pub(crate) fn verdict_as_docker_says(&mut self, kill: &Line, id: &str) -> Result<Line> {
        let verdict = self.watch.verdict_of(kill)?;
        let state: Value = serde_json::from_str(&run("docker", &["inspect", "-f", "{{json .State}}", id])?)?;
        self.told("docker inspect", &state, &verdict)?;
        Ok(verdict)
    }

    /// Prints what `who` says about a container's `state`, and the verdict, which must be the same.
    pub(crate) fn told(&self, who: &str, state: &Value, verdict: &Line) -> Result<()> {
        let word = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
        let says = |key: &str| verdict.get(&format!("runtime_says.{key}"));
        say(&format!(
            "says {}: {who}: OOMKilled={} ExitCode={} Status={}; verdict: oom_killed={} exit_code={} status={} missed={}",
            self.case,
            word(at(state, "OOMKilled")),
            word(at(state, "ExitCode")),
            word(at(state, "Status")),
            word(says("oom_killed")),
            word(says("exit_code")),
            word(says("status")),
            word(verdict.get("missed")),
        ));
        let shown = at(state, "OOMKilled");
        ensure!(
            says("oom_killed") == shown,
            "field runtime_says.oom_killed: {who} says {}: {}",
            word(shown),
            verdict.text
        );
        ensure!(
            verdict.get("missed") == Some(&json!(shown != Some(&json!(true)))),
            "field missed: {}",
            verdict.text
        );
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.watch.tracer.stop().map(drop)
    }
}

/// Runs `PROGRAM ARGUMENTS`. Returns its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    output(Command::new(program).args(arguments))
}

/// One property of a unit.
pub(crate) fn property(unit: &str, name: &str) -> Result<String> {
    run("systemctl", &["show", "--value", "-p", name, unit])
}

/// The `container` that oomtrace must report for a Docker container.
pub(crate) fn of_docker(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "runtime": {"name": "docker"}, "image": {"name": IMAGE}, "restart_count": 0})
}

/// The same `container` for a user's own runtime.
pub(crate) fn of_user(mut container: Value, uid: u32) -> Value {
    if let Some(runtime) = container.get_mut("runtime").and_then(Value::as_object_mut) {
        runtime.insert("user".to_owned(), json!(uid));
    }
    container
}
