//! oomtrace as a systemd service, with the unit that is delivered.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::EAT;
use oomtrace_tests::patience::until;
use oomtrace_tests::tracer::{at, detail};
use serde_json::{Value, json};

use crate::Case;
use crate::world::{LIMIT, World, of_docker, property, run};

/// Runs before all other cases, which the service then sees too.
pub(crate) const BEGIN: &[Case] = &[("service_becomes_active", becomes_active)];
/// Runs after them.
pub(crate) const END: &[Case] = &[
    ("service_sees_as_much_as_a_root_shell", sees_as_much),
    ("service_names_what_a_root_shell_names", names_as_much),
    ("service_is_confined", is_confined),
    ("service_tells_kills_in_the_journal", tells_kills),
    ("service_says_why_it_has_no_word_of_podman", says_why),
    ("service_tells_a_storm_in_the_journal", tells_a_storm),
    ("service_loses_no_line_of_a_burst", loses_no_line),
    ("service_gives_its_file_to_a_group", gives_its_file),
    ("service_is_not_started_again_in_vain", is_not_started_in_vain),
    ("service_keeps_its_watchdog", keeps_its_watchdog),
    ("service_that_hangs_is_started_again", is_started_again),
    ("service_stops_in_order", stops_in_order),
];

const UNIT: &str = "oomtrace.service";

/// Its lines since its last start.
fn lines() -> Result<Vec<Value>> {
    let invocation = format!("_SYSTEMD_INVOCATION_ID={}", property(UNIT, "InvocationID")?);
    let journal = run("journalctl", &["--no-pager", "-o", "cat", &invocation])?;
    Ok(journal.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Option<&'a Value> {
    lines.iter().find(|line| at(line, "type") == Some(&json!(kind)))
}

fn expect_property(name: &str, value: &str) -> Result<()> {
    let is = property(UNIT, name)?;
    ensure!(is == value, "property {name}: expected {value}, systemd says {is}: {}", last_words());
    Ok(())
}

fn last_words() -> String {
    let words = run("systemctl", &["--no-pager", "-l", "-n", "12", "status", UNIT]);
    words.unwrap_or_else(|error| error.to_string())
}

fn becomes_active(world: &mut World) -> Result<()> {
    std::fs::copy(&world.oomtrace, "/usr/local/bin/oomtrace").context("install oomtrace")?;
    std::fs::copy(&world.unit, Path::new("/etc/systemd/system").join(UNIT)).context("install the unit")?;
    // For a unit without its own limit the journal drops lines above a low rate.
    std::fs::create_dir_all("/etc/systemd/journald.conf.d")?;
    std::fs::write(
        "/etc/systemd/journald.conf.d/rate.conf",
        "[Journal]\nRateLimitIntervalSec=1h\nRateLimitBurst=2\n",
    )?;
    run("systemctl", &["restart", "systemd-journald.service"])?;
    run("systemctl", &["daemon-reload"])?;
    // Type=notify: this returns when oomtrace has reported that it is ready.
    run("systemctl", &["start", UNIT]).with_context(last_words)?;
    expect_property("ActiveState", "active")?;
    expect_property("Type", "notify")?;
    expect_property("NRestarts", "0")
}

/// The service's sandbox must not hide anything that oomtrace uses.
fn sees_as_much(world: &mut World) -> Result<()> {
    let lines = lines()?;
    let start = of_type(&lines, "start").with_context(last_words)?;
    for key in ["hooks", "cgroup_version", "runtimes", "limits"] {
        let (service, shell) = (at(start, key), world.watch.tracer.start_line().get(key));
        let show = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
        ensure!(
            service == shell || key == "runtimes" && service.is_some(),
            "field {key} of start: {} by root, {} as a service",
            show(shell),
            show(service)
        );
    }
    Ok(())
}

/// Compares all kills since its start, including those in users' containers, whose files another process
/// reads.
fn names_as_much(world: &mut World) -> Result<()> {
    let of = |line: &Value, key: &str| at(line, key).cloned().unwrap_or_default();
    let kills =
        |lines: Vec<Value>| lines.into_iter().filter(|line| at(line, "type") == Some(&json!("oom_kill")));
    let served: Vec<Value> = kills(lines()?).collect();
    let mut users = 0;
    for shell in kills(world.watch.tracer.lines().into_iter().map(|line| line.value).collect()) {
        let same = |line: &&Value| {
            ["victim.pid", "victim.comm", "victim.cgroup.path"]
                .iter()
                .all(|key| of(line, key) == of(&shell, key))
        };
        let Some(service) = served.iter().find(same) else { continue };
        for key in ["container", "k8s", "systemd"] {
            ensure!(
                of(service, key) == of(&shell, key),
                "field {key}: {shell} by root, {service} as a service"
            );
        }
        users += usize::from(
            at(service, "container.runtime.user").is_some() && at(service, "container.name").is_some(),
        );
    }
    ensure!(users > 0, "no user's container is among {} kills", served.len());
    Ok(())
}

/// Checks systemd's own measure of the sandbox.
fn is_confined(world: &mut World) -> Result<()> {
    let said = run("systemd-analyze", &["--no-pager", "security", UNIT])?;
    let overall =
        said.lines().find_map(|line| line.split_once("Overall exposure level for oomtrace.service: "));
    let figure = overall.and_then(|(_, rest)| rest.split(' ').next());
    let figure = figure.with_context(|| format!("systemd-analyze says: {said}"))?;
    crate::say(&format!("says {}: the unit's exposure is {figure}", world.case));
    ensure!(figure.parse::<f64>()? <= 2.5, "exposure {figure}: {said}");
    Ok(())
}

/// More lines than the journal accepts from a unit without its own limit.
fn tells_a_storm(world: &mut World) -> Result<()> {
    const KILLS: usize = 40;
    let script = format!("i=0; while [ $i -lt {KILLS} ]; do {EAT}; i=$((i+1)); done; exec sleep 1000");
    let id = world.docker("storm", &["-m", LIMIT], &script)?;
    until("every kill of a storm in the journal", || {
        let told = lines()?.into_iter().filter(|line| {
            at(line, "type") == Some(&json!("oom_kill")) && at(line, "container.id") == Some(&json!(id))
        });
        let told = told.count();
        Ok((told >= KILLS).then_some(()))
    })?;
    let dropped = run("journalctl", &["--no-pager", "-o", "cat", "-u", "systemd-journald.service"])?;
    ensure!(
        !dropped.lines().any(|line| line.starts_with("Suppressed") && line.contains("oomtrace")),
        "the journal dropped lines"
    );
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// Puts another program into the unit, which writes thousands of lines at once. The journal must accept each
/// of them.
fn loses_no_line(_: &mut World) -> Result<()> {
    const LINES: usize = 5000;
    let added = DropIn::add(&format!(
        "Type=exec\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=/usr/bin/seq -f burst-%%g {LINES}\n"
    ))?;
    run("systemctl", &["restart", UNIT]).with_context(last_words)?;
    let told = || -> Result<usize> {
        let journal = run("journalctl", &["--no-pager", "-o", "cat", "-u", UNIT])?;
        Ok(journal.lines().filter(|line| line.starts_with("burst-")).count())
    };
    until("the end of a burst", || Ok((property(UNIT, "ActiveState")? == "inactive").then_some(())))?;
    let told = until("each line of a burst in the journal", || {
        let told = told()?;
        Ok((told >= LINES).then_some(told))
    });
    drop(added);
    run("systemctl", &["restart", UNIT])?;
    told.map(drop)
}

/// An administrator's addition to the unit. A drop removes it.
struct DropIn;

impl DropIn {
    const DIR: &str = "/run/systemd/system/oomtrace.service.d";

    fn add(lines: &str) -> Result<Self> {
        std::fs::create_dir_all(Self::DIR)?;
        std::fs::write(Path::new(Self::DIR).join("test.conf"), format!("[Service]\n{lines}"))?;
        let added = Self;
        run("systemctl", &["daemon-reload"])?;
        Ok(added)
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(Self::DIR);
        let _reloaded = run("systemctl", &["daemon-reload"]);
    }
}

/// It works without CAP_CHOWN, because the process is in that group.
fn gives_its_file(_: &mut World) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let file = "/var/log/oomtrace/oom.jsonl";
    let added = DropIn::add(&format!(
        "SupplementaryGroups=adm\nExecStart=\n\
         ExecStart=/usr/local/bin/oomtrace run --file {file} --file-mode 640 --file-group adm\n"
    ))?;
    run("systemctl", &["restart", UNIT]).with_context(last_words)?;
    let meta = std::fs::metadata(file)?;
    ensure!(meta.mode() & 0o777 == 0o640 && meta.gid() == 4, "mode {:o}, group {}", meta.mode(), meta.gid());
    drop(added);
    run("systemctl", &["restart", UNIT]).map(drop)
}

/// A wrong option fails the same way each time, so systemd must not restart it.
fn is_not_started_in_vain(_: &mut World) -> Result<()> {
    let added = DropIn::add("ExecStart=\nExecStart=/usr/local/bin/oomtrace run --no-such-option\n")?;
    let _refused = run("systemctl", &["restart", UNIT]);
    expect_property("ExecMainStatus", "2")?;
    expect_property("ActiveState", "failed")?;
    expect_property("NRestarts", "0")?;
    drop(added);
    run("systemctl", &["start", UNIT]).with_context(last_words)?;
    expect_property("ActiveState", "active")
}

fn tells_kills(world: &mut World) -> Result<()> {
    let id = world.docker("served", &["-m", LIMIT], &format!("exec {EAT}"))?;
    let shell = world.watch.kill_in(&id)?;
    let told = until("the service's line", || {
        Ok(lines()?.into_iter().find(|line| {
            at(line, "type") == Some(&json!("oom_kill")) && at(line, "container.id") == Some(&json!(id))
        }))
    })?;
    let container = at(&told, "container");
    ensure!(container == Some(&of_docker(&id, "served")), "field container: {told}");
    // Not the victim's start time: each run measures the offset of the clocks itself.
    for key in ["oom.cgroup", "oom.evidence", "victim.executable", "victim.command_line", "missing"] {
        let (service, root) = (at(&told, key), shell.get(key));
        ensure!(service == root, "field {key}: {root:?} by root, {service:?} as a service");
    }
    let verdict = world.watch.verdict_of(&shell)?;
    let served = verdict_on(&id)?;
    for key in ["runtime_says", "missed"] {
        ensure!(at(&served, key) == verdict.get(key), "field {key} of the verdict: {served}");
    }
    run("docker", &["rm", "-f", &id]).map(drop)
}

/// Its verdict on the kill in a container.
fn verdict_on(id: &str) -> Result<Value> {
    until("the service's verdict", || {
        let of_it = |line: &Value| {
            at(line, "type") == Some(&json!("verdict")) && at(line, "container.id") == Some(&json!(id))
        };
        Ok(lines()?.into_iter().find(of_it))
    })
}

/// Podman cannot run in the sandbox, and it has no file with the verdict.
fn says_why(world: &mut World) -> Result<()> {
    let id = crate::podman::start("served-too", &["--network", "none"], &format!("exec {EAT}"))?;
    world.watch.kill_in(&id)?;
    let served = verdict_on(&id)?;
    ensure!(at(&served, "container.name") == Some(&json!("served-too")), "field container: {served}");
    at(&served, "missing.runtime_says").with_context(|| format!("missing.runtime_says: {served}"))?;
    let why = detail(&served, "runtime_says");
    crate::say(&format!("says {}: the service: {why}", world.case));
    ensure!(at(&served, "missed").is_none(), "field missed: {served}");
    run("podman", &["rm", "-f", &id]).map(drop)
}

/// More time than `WatchdogSec=` has passed, and the service was not restarted.
fn keeps_its_watchdog(_: &mut World) -> Result<()> {
    let number = |name: &str| -> Result<u64> { Ok(property(UNIT, name)?.parse()?) };
    let active_since = number("ActiveEnterTimestampMonotonic")?;
    let limit = number("WatchdogUSec").or_else(|_| seconds(&property(UNIT, "WatchdogUSec")?))?;
    ensure!(limit > 0, "no watchdog");
    until("a sign of life after the watchdog's limit", || {
        std::thread::sleep(Duration::from_secs(1));
        Ok((number("WatchdogTimestampMonotonic")? > active_since + limit).then_some(()))
    })?;
    expect_property("NRestarts", "0")?;
    expect_property("ActiveState", "active")
}

/// `30s` in microseconds: systemctl shows a whole number of seconds like this.
fn seconds(text: &str) -> Result<u64> {
    let number = text.strip_suffix('s').with_context(|| format!("WatchdogUSec is {text}"))?;
    Ok(number.parse::<u64>()? * 1_000_000)
}

fn is_started_again(_: &mut World) -> Result<()> {
    run("systemctl", &["kill", "--kill-whom=main", "--signal=SIGSTOP", UNIT])?;
    let restarted = || Ok((property(UNIT, "NRestarts")? == "1").then_some(()));
    until("a restart by the watchdog", restarted).with_context(last_words)?;
    let active = || Ok((property(UNIT, "ActiveState")? == "active").then_some(()));
    until("the service, active again", active)
}

fn stops_in_order(_: &mut World) -> Result<()> {
    // Read before the stop: an inactive unit has no invocation.
    let invocation = format!("_SYSTEMD_INVOCATION_ID={}", property(UNIT, "InvocationID")?);
    run("systemctl", &["stop", UNIT])?;
    expect_property("Result", "success")?;
    expect_property("ExecMainStatus", "0")?;
    expect_property("ActiveState", "inactive")?;
    let journal = run("journalctl", &["--no-pager", "-o", "cat", &invocation])?;
    let last = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
    let last = last.context("no line in the journal")?;
    ensure!(
        at(&last, "type") == Some(&json!("stop")) && at(&last, "reason") == Some(&json!("SIGTERM")),
        "the last line is not stop: {last}"
    );
    Ok(())
}
