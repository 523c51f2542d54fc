//! Killers of user space, as Debian packages them, end a container: named as such, with how full the host and the cgroup were. And
//! runtimes.

use anyhow::{Result, ensure};
use oomtrace_tests::containers::{DEAF, expect, expect_end_by_runtime};
use oomtrace_tests::counters::meminfo_bytes;
use oomtrace_tests::patience::until;
use oomtrace_tests::tracer::Line;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{World, of_docker, run};

pub(crate) const CASES: &[Case] = &[
    ("earlyoom_ends_a_container", earlyoom),
    ("systemd_oomd_ends_a_container", systemd_oomd),
    ("a_container_called_earlyoom_is_not_the_hosts", called_earlyoom),
    ("docker_and_podman_end_what_hears_no_sigterm", deaf),
];

/// Ends at a SIGTERM. Nobody else in the guest does this.
const OBEDIENT: &str = "trap 'exit 3' TERM; while :; do sleep 0.1; done";

/// A killer's units, the service last. They run as long as this lives.
struct Started(&'static [&'static str]);

impl Started {
    fn start(units: &'static [&'static str]) -> Result<Self> {
        let started = Self(units);
        for act in ["unmask", "start"] {
            run("systemctl", &[&[act], units].concat())?;
        }
        Ok(started)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Self(units) = self;
        let _ignored = run("systemctl", &[&["kill", "-s", "KILL"], *units].concat());
        let _ignored = run("systemctl", &[&["mask", "--now"], *units].concat());
    }
}

/// The host's memory as a line has it: shares of what the kernel says now.
fn host_is_told(line: &Line) -> Result<()> {
    let total = meminfo_bytes("MemTotal")?;
    expect(
        line,
        &[
            ("host_memory.total_bytes", json!(total)),
            ("host_memory.swap_total_bytes", json!(0)),
            ("host_memory.swap_free_bytes", json!(0)),
        ],
    )?;
    let available = line.number("host_memory.available_bytes");
    ensure!(
        available.is_some_and(|bytes| (1..total).contains(&bytes)),
        "field available_bytes: {}",
        line.text
    );
    ensure!(line.number("host_memory.after_ns").is_some_and(|ns| ns > 0), "field after_ns: {}", line.text);
    Ok(())
}

fn by(line: &Line, killer: &str, program: &str, id: &str, name: &str) -> Result<()> {
    expect(
        line,
        &[
            ("killer", json!(killer)),
            ("severity", json!("error")),
            ("how", json!("kill")),
            ("sender.comm", json!(program.rsplit('/').next())),
            ("sender.executable", json!(program)),
            ("sender.systemd.unit", json!(format!("{killer}.service"))),
            ("sender.container", Value::Null),
            ("container", of_docker(id, name)),
            ("cgroup.path", json!(line.get("target.cgroup.path"))),
        ],
    )?;
    ensure!(line.number("cgroup.usage_bytes").is_some_and(|bytes| bytes > 0), "field usage: {}", line.text);
    let message = line.get("message").and_then(Value::as_str).unwrap_or_default();
    ensure!(
        message.contains(killer) && !message.contains("NOT out of memory"),
        "field message: {}",
        line.text
    );
    host_is_told(line)
}

/// So large that the host has little memory left, and enough again once it has ended.
const LARGE: &str = "dd if=/dev/zero of=/dev/null bs=300M count=1000000; exit 3";

/// Ends the largest process as soon as less memory is available than now, and a tenth more.
fn earlyoom(world: &mut World) -> Result<()> {
    let id = world.docker("large", &["-m", "400m", "--oom-score-adj", "1000"], LARGE)?;
    let scope = format!("/system.slice/docker-{id}.scope");
    until("a container of 300 MiB", || {
        let usage = std::fs::read_to_string(format!("/sys/fs/cgroup{scope}/memory.current"))?;
        Ok((usage.trim().parse::<u64>()? > 300 << 20).then_some(()))
    })?;
    let (total, available) = (meminfo_bytes("MemTotal")?, meminfo_bytes("MemAvailable")?);
    let enough = available * 100 / total + 10;
    std::fs::write("/etc/default/earlyoom", format!("EARLYOOM_ARGS=\"-m {enough},1 -r 0\"\n"))?;
    let killer = Started::start(&["earlyoom.service"])?;
    let line = world.watch.signal_to(&scope)?;
    drop(killer);
    expect(
        &line,
        &[
            ("signal", json!("SIGTERM")),
            ("target.comm", json!("dd")),
            ("cgroup.limit_bytes", json!(400 << 20)),
        ],
    )?;
    by(&line, "earlyoom", "/usr/bin/earlyoom", &id, "large")?;
    let state = run("docker", &["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", &id])?;
    ensure!(state == "3 false", "docker inspect: {state}");
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// A container that reads more than its limit has room for, again and again: its slice waits for memory.
fn systemd_oomd(world: &mut World) -> Result<()> {
    const SLICE: &str = "[Slice]\nManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=1%\n";
    let dir = std::path::Path::new("/run/systemd/oomd.conf.d");
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("quick.conf"), "[OOM]\nDefaultMemoryPressureDurationSec=2s\n")?;
    world.write_unit("pressed.slice", SLICE)?;
    let script =
        "dd if=/dev/zero of=/tmp/file bs=1M count=48; while :; do dd if=/tmp/file of=/dev/null bs=1M; done";
    let under = ["--cgroup-parent", "pressed.slice", "-m", "32m"];
    let id = world.docker("pressed", &under, script)?;
    let killer = Started::start(&["systemd-oomd.socket", "systemd-oomd.service"])?;
    let line = world.watch.signal_in(&id)?;
    drop(killer);
    expect(
        &line,
        &[
            ("signal", json!("SIGKILL")),
            ("target.namespace_pid", json!(1)),
            ("target.cgroup.path", json!(format!("/pressed.slice/docker-{id}.scope"))),
            ("cgroup.limit_bytes", json!(32 << 20)),
        ],
    )?;
    by(&line, "systemd-oomd", "/usr/lib/systemd/systemd-oomd", &id, "pressed")?;
    let state = run("docker", &["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", &id])?;
    ensure!(state == "137 false", "docker inspect: {state}");
    ensure!(world.watch.kills_in(&id) == 0, "no OOM killer of the kernel's");
    // Docker made the container's cgroup while oomtrace ran, so its count before the kill is known.
    expect(&line, &[("killer_confirmed", json!(true))])?;
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// A container with the host's pids runs a program of that name, and ends another container.
fn called_earlyoom(world: &mut World) -> Result<()> {
    let id = world.docker("quiet", &["-m", "64m"], OBEDIENT)?;
    let pid = run("docker", &["inspect", "-f", "{{.State.Pid}}", &id])?;
    let script = format!(
        "/bin/busybox cp /bin/busybox /tmp/earlyoom; exec -a sh /tmp/earlyoom -c 'echo -n earlyoom >/proc/$$/comm; kill -9 {pid}; sleep 3600'"
    );
    let forger = world.docker("earlyoom.service", &["--pid", "host"], &script)?;
    let line = world.watch.signal_in(&id)?;
    expect(
        &line,
        &[
            ("killer", json!("other")),
            ("severity", json!("info")),
            ("sender.comm", json!("earlyoom")),
            ("sender.executable", json!("/tmp/earlyoom")),
            ("sender.container.id", json!(forger)),
            ("host_memory", Value::Null),
            ("container", of_docker(&id, "quiet")),
        ],
    )?;
    run("docker", &["rm", "-f", &id, &forger]).map(drop)
}

fn by_the_runtime(line: &Line, id: &str, stopped: bool) -> Result<()> {
    expect_end_by_runtime(line, id, 64 << 20)?;
    let before = line.number("sigterm_before_ns");
    ensure!(before.is_some() == stopped, "field sigterm_before_ns: {}", line.text);
    Ok(())
}

fn deaf(world: &mut World) -> Result<()> {
    for (name, act) in [("killed", &["kill"][..]), ("stopped", &["stop", "-t", "1"])] {
        let id = world.docker(name, &["-m", "64m"], DEAF)?;
        run("docker", &[act, &[&id]].concat())?;
        by_the_runtime(&world.watch.signal_in(&id)?, &id, name == "stopped")?;
        let state = run("docker", &["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", &id])?;
        ensure!(state == "137 false", "docker inspect: {state}");
        run("docker", &["rm", "-f", &id])?;
    }
    let options =
        ["run", "-d", "--network", "none", "-m", "64m", crate::podman::IMAGE, "/bin/sh", "-c", DEAF];
    let id = run("podman", &options)?;
    run("podman", &["stop", "-t", "1", &id])?;
    by_the_runtime(&world.watch.signal_in(&id)?, &id, true)?;
    let state = run("podman", &["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", &id])?;
    ensure!(state == "137 false", "podman inspect: {state}");
    run("podman", &["rm", "-f", &id]).map(drop)
}
