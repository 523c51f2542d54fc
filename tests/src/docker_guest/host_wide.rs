//! The whole machine runs out of memory, and the largest process is in a container.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::expect;
use oomtrace_tests::counters::{available_bytes, meminfo_bytes};
use oomtrace_tests::tracer::at;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{World, of_docker, run};

pub(crate) const CASES: &[Case] = &[
    ("host_wide_1", fill),
    ("host_wide_2", fill),
    ("host_wide_3", fill),
    ("host_wide_4", fill),
    ("host_wide_5", fill),
    ("host_wide_6", fill),
    ("host_memory", small_dies),
];

/// One container has the memory, and a small one with a high `oom_score_adj` dies.
fn small_dies(world: &mut World) -> Result<()> {
    const OPEN: &str = "host-memory";
    let poured = (available_bytes()? / 10 * 7) >> 20;
    // `dd` holds its buffer while nobody reads from the pipe.
    let hold = "dd if=/dev/zero bs=48M count=1 | sleep 3600";
    let small = world.docker("small", &["--oom-score-adj", "1000", "-m", "128m"], hold)?;
    let more = "dd if=/dev/zero of=/hold/$n bs=1M count=2; n=$((n+1)); sleep 0.2";
    let eat = format!(
        "dd if=/dev/zero of=/hold/first bs=1M count={poured}; n=0; until [ -e /gate/{OPEN} ]; do {more}; done; exec sleep 3600"
    );
    let eater = world.docker("eater", &["--tmpfs", "/hold:size=100%"], &eat)?;
    let kill = world.watch.kill_in(&small)?;
    world.open(OPEN)?;
    let line = world.watch.line_of("host_memory", &kill)?;
    expect(
        &line,
        &[("scope", json!("host")), ("killed_largest", json!(false)), ("victim.oom_score_adj", json!(1000))],
    )?;
    let first = line.get("top").and_then(|top| top.get(0)).context("no top")?;
    let held = first.get("usage_bytes").and_then(Value::as_u64);
    ensure!(
        at(first, "container.id") == Some(&json!(eater))
            && at(first, "container.name") == Some(&json!("eater"))
            && at(first, "unlimited") == Some(&json!(true))
            && held >= Some(poured << 20),
        "{poured} MiB are in the eater: {}",
        line.text
    );
    run("docker", &["rm", "-f", &small, &eater]).map(drop)
}

fn fill(world: &mut World) -> Result<()> {
    let name = world.case.replace('_', "-");
    // An allocation larger than the memory must not fail at once.
    std::fs::write("/proc/sys/vm/overcommit_memory", "1").context("overcommit_memory")?;
    let bytes = 2 * meminfo_bytes("MemTotal")?;
    let bystander = world.docker("bystander", &[], "exec sleep 3600")?;
    let id = world.docker(&name, &[], &format!("exec dd if=/dev/zero of=/dev/null bs={bytes} count=1"))?;
    let line = world.watch.kill_in(&id)?;
    expect(
        &line,
        &[
            ("container", of_docker(&id, &name)),
            ("oom.scope", json!("host")),
            ("oom.constraint", json!("CONSTRAINT_NONE")),
            ("oom.cgroup", Value::Null),
            ("victim.comm", json!("dd")),
            ("victim.cgroup.path", json!(format!("/system.slice/docker-{id}.scope"))),
            ("systemd.unit", json!(format!("docker-{id}.scope"))),
        ],
    )?;
    world.verdict_as_docker_says(&line, &id)?;
    ensure!(world.watch.kills_in(&bystander) == 0, "oomtrace reported the bystander");
    run("docker", &["rm", "-f", &id, &bystander]).map(drop)
}
