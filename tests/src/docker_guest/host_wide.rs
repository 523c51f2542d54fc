//! The whole machine runs out of memory, and the largest process is in a container.

use anyhow::{Context, Result, ensure};
use oomtrace_tests::containers::expect;
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
];

fn fill(world: &mut World) -> Result<()> {
    let name = world.case.replace('_', "-");
    // An allocation larger than the memory must not fail at once.
    std::fs::write("/proc/sys/vm/overcommit_memory", "1").context("overcommit_memory")?;
    let bytes = 2 * memory_bytes()?;
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

fn memory_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("MemTotal")?;
    let kilobytes: u64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(kilobytes * 1024)
}
