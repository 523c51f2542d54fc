//! Shared by the tests with real container runtimes, on a host and in a guest: an image whose containers can
//! run out of memory, functions to call programs, and oomtrace's lines, each claimed by the case that caused
//! it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::tracer::{Line, Tracer};

/// Uses more memory than any limit here, as a buffer.
pub const EAT: &str = "dd if=/dev/zero of=/dev/null bs=256M count=1";
/// Hears no SIGTERM.
pub const DEAF: &str = "trap '' TERM; while :; do sleep 1; done";
/// The name of the image of all containers: a static busybox, which can run out of memory.
pub const IMAGE: &str = "oomtrace-test:1";

/// Makes the root file system of that image as `DIR/rootfs.tar`.
pub fn rootfs(dir: &Path) -> Result<PathBuf> {
    let (root, tar) = (dir.join("rootfs"), dir.join("rootfs.tar"));
    for sub in ["bin", "gate", "proc", "sys", "dev", "etc", "tmp", "run"] {
        std::fs::create_dir_all(root.join(sub))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("copy /bin/busybox, of Debian's busybox-static: cargo xtask setup --containers")?;
    for applet in ["sh", "dd", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    output(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."))?;
    Ok(tar)
}

/// A script that runs `then` after the test opens the gate `name`.
pub fn gated(name: &str, then: &str) -> String {
    format!("until [ -e /gate/{name} ]; do sleep 0.02; done; {then}")
}

/// A running oomtrace, and which of its kills were already claimed.
#[derive(Debug)]
pub struct Watch {
    /// The program under test.
    pub tracer: Tracer,
    /// By `seq`.
    claimed: BTreeSet<u64>,
    /// How many times longer to wait than on a real host.
    slowness: u32,
}

impl Watch {
    /// For a running tracer.
    pub fn over(tracer: Tracer) -> Self {
        Self { tracer, claimed: BTreeSet::new(), slowness: 1 }
    }

    /// On an emulated machine, which is this many times slower.
    pub fn emulated(self, slowness: u32) -> Self {
        Self { slowness, ..self }
    }

    fn wait_for<T>(&mut self, what: &str, find: impl Fn(&[Line]) -> Option<T>) -> Result<T> {
        for _ in 1..self.slowness {
            if let Ok(found) = self.tracer.wait_for(what, &find) {
                return Ok(found);
            }
        }
        self.tracer.wait_for(what, &find)
    }

    /// The next `oom_kill` line of a victim whose cgroup's path holds `part`.
    pub fn kill_in(&mut self, part: &str) -> Result<Line> {
        let claimed = self.claimed.clone();
        let line = self.wait_for(&format!("a line for the kill in {part}"), |lines| {
            let mut free = lines.iter().filter(|line| {
                line.kind() == "oom_kill" && line.number("seq").is_some_and(|seq| !claimed.contains(&seq))
            });
            free.find(|line| is_in(line, part)).cloned()
        })?;
        self.claimed.extend(line.number("seq"));
        Ok(line)
    }

    /// The `signal_kill` line of a container's first process, whose cgroup's path holds `part`.
    pub fn signal_in(&mut self, part: &str) -> Result<Line> {
        let first = |line: &&Line| {
            let path = line.get("target.cgroup.path").and_then(Value::as_str);
            line.kind() == "signal_kill"
                && line.number("target.namespace_pid") == Some(1)
                && path.is_some_and(|path| path.contains(part))
        };
        self.wait_for(&format!("a line for the signal in {part}"), |lines| lines.iter().find(first).cloned())
    }

    /// The first `signal_kill` line of a target in the cgroup of this path.
    pub fn signal_to(&mut self, path: &str) -> Result<Line> {
        let is_it = |line: &&Line| {
            line.kind() == "signal_kill" && line.get("target.cgroup.path") == Some(&Value::from(path))
        };
        self.wait_for(&format!("a line for the signal to {path}"), |lines| lines.iter().find(is_it).cloned())
    }

    /// The line of this type that follows a kill.
    pub fn line_of(&mut self, kind: &str, kill: &Line) -> Result<Line> {
        let what = format!("the {kind} of {:?}", kill.number("seq"));
        let is_it = |line: &&Line| line.kind() == kind && is_of(line, kill);
        self.wait_for(&what, |lines| lines.iter().find(is_it).cloned())
    }

    /// The `verdict` line of a kill.
    pub fn verdict_of(&mut self, kill: &Line) -> Result<Line> {
        self.line_of("verdict", kill)
    }

    /// What the `incident` line of a kill finds with this id; `None` if it does not.
    pub fn finding_of(&mut self, kill: &Line, id: &str) -> Result<Option<Value>> {
        let incident = self.line_of("incident", kill)?;
        let findings = incident.get("findings").and_then(Value::as_array);
        Ok(findings.into_iter().flatten().find(|finding| finding.get("id") == Some(&id.into())).cloned())
    }

    /// Stops the tracer with SIGSTOP, or continues it.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.tracer.freeze(frozen)
    }

    /// Whether it has arrived.
    pub fn has_verdict(&self, kill: &Line) -> bool {
        self.tracer.lines().iter().any(|line| is_verdict_on(line, kill))
    }

    /// How many victims were reported whose cgroup's path contains `part`.
    pub fn kills_in(&self, part: &str) -> usize {
        self.tracer.lines().iter().filter(|line| line.kind() == "oom_kill" && is_in(line, part)).count()
    }
}

fn is_verdict_on(line: &Line, kill: &Line) -> bool {
    line.kind() == "verdict" && is_of(line, kill)
}

/// Whether `of` contains the number of that kill.
fn is_of(line: &Line, kill: &Line) -> bool {
    let of = line.get("of").and_then(Value::as_array);
    of.zip(kill.get("seq")).is_some_and(|(of, seq)| of.contains(seq))
}

fn is_in(line: &Line, part: &str) -> bool {
    line.get("victim.cgroup.path").and_then(Value::as_str).is_some_and(|path| path.contains(part))
}

/// The line says that a runtime ended the first process of this container, which was never full.
pub fn expect_end_by_runtime(line: &Line, id: &str, limit_bytes: u64) -> Result<()> {
    expect(
        line,
        &[
            ("signal", json!("SIGKILL")),
            ("how", json!("kill")),
            ("killer", json!("runtime")),
            ("severity", json!("info")),
            ("target.namespace_pid", json!(1)),
            ("container.id", json!(id)),
            ("cgroup.limit_bytes", json!(limit_bytes)),
            ("cgroup.events.oom_kill", json!(0)),
            ("host_memory", Value::Null),
        ],
    )?;
    let message = line.get("message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains("NOT out of memory"), "field message: {}", line.text);
    Ok(())
}

/// Fails unless the line has these values at their dotted paths. Null means that the key must be absent.
pub fn expect(line: &Line, values: &[(&str, Value)]) -> Result<()> {
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

/// Runs a program to its end. Returns its output.
pub fn output(command: &mut Command) -> Result<String> {
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
