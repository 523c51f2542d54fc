//! systemd units that are not containers.

use anyhow::Result;
use oomtrace_tests::containers::{EAT, expect};
use serde_json::{Value, json};

use crate::Case;
use crate::rootless::as_user;
use crate::world::{LIMIT_BYTES, World, run};

pub(crate) const CASES: &[Case] = &[
    ("unit_over_its_limit", unit),
    ("unit_in_a_limited_slice", in_a_slice),
    ("unit_of_a_user", of_a_user),
    ("unit_that_ignores_its_stop", ignores_its_stop),
];

fn killed(world: &mut World, unit: &str, path: &str, fired: &str) -> Result<()> {
    let line = world.watch.kill_in(path)?;
    expect(
        &line,
        &[
            ("systemd.unit", json!(unit)),
            ("container", Value::Null),
            ("oom.scope", json!("memcg")),
            ("victim.cgroup.path", json!(path)),
            ("oom.cgroup.path", json!(fired)),
            ("oom.cgroup.limit_bytes", json!(LIMIT_BYTES)),
        ],
    )
}

fn eat(options: &[&str]) -> Vec<String> {
    let eat = format!("exec busybox {EAT}");
    ["-q"].iter().chain(options).chain(&["/bin/sh", "-c", &eat]).map(|word| (*word).to_owned()).collect()
}

fn unit(world: &mut World) -> Result<()> {
    let options = eat(&["--unit=eater", "-p", "MemoryMax=32M"]);
    run("systemd-run", &options.iter().map(String::as_str).collect::<Vec<_>>())?;
    killed(world, "eater.service", "/system.slice/eater.service", "/system.slice/eater.service")
}

fn in_a_slice(world: &mut World) -> Result<()> {
    world.write_unit("tight-jobs.slice", "[Slice]\nMemoryMax=32M\n")?;
    let options = eat(&["--unit=job", "--slice=tight-jobs.slice"]);
    run("systemd-run", &options.iter().map(String::as_str).collect::<Vec<_>>())?;
    let slice = "/tight.slice/tight-jobs.slice";
    killed(world, "job.service", &format!("{slice}/job.service"), slice)
}

/// systemd waits for its end as long as the unit says.
fn ignores_its_stop(world: &mut World) -> Result<()> {
    const DEAF: &str = "trap '' TERM; while :; do sleep 1; done";
    let options =
        ["-q", "--unit=deaf", "-p", "TimeoutStopSec=1", "-p", "MemoryMax=32M", "/bin/sh", "-c", DEAF];
    run("systemd-run", &options)?;
    let path = "/system.slice/deaf.service";
    // Its sleep of a second may get the signal first.
    run("systemctl", &["stop", "deaf.service"])?;
    let line = world.watch.signal_to(path)?;
    expect(
        &line,
        &[
            ("signal", json!("SIGKILL")),
            ("killer", json!("systemd")),
            ("systemd.unit", json!("deaf.service")),
            ("target.cgroup.path", json!(path)),
            ("sender.pid", json!(1)),
            ("sender.systemd.unit", json!("init.scope")),
            ("cgroup.limit_bytes", json!(LIMIT_BYTES)),
            ("container", Value::Null),
        ],
    )
}

fn of_a_user(world: &mut World) -> Result<()> {
    let options = eat(&["--user", "--unit=own", "-p", "MemoryMax=32M"]);
    as_user("systemd-run", &options.iter().map(String::as_str).collect::<Vec<_>>())?;
    let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/own.service";
    killed(world, "own.service", path, path)
}
