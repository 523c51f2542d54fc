//! Compares the line of a host that ran out with the kernel's own report of the same run.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::counters::meminfo_bytes;
use crate::kernel_log::LoggedKill;
use crate::tracer::Line;

/// Keys of `memory`, and of which counts of the report each is the sum.
const PARTS: [(&str, &[&str]); 9] = [
    ("free_bytes", &["free", "free_pcp"]),
    ("lru.anon_bytes", &["active_anon", "inactive_anon", "isolated_anon"]),
    ("lru.file_bytes", &["active_file", "inactive_file", "isolated_file"]),
    ("lru.unevictable_bytes", &["unevictable"]),
    ("file_bytes", &["pagecache"]),
    ("shmem_bytes", &["shmem"]),
    ("slab_reclaimable_bytes", &["slab_reclaimable"]),
    ("slab_unreclaimable_bytes", &["slab_unreclaimable"]),
    ("pagetables_bytes", &["pagetables"]),
];

/// Every figure must be that of the report. `page` is the size of a page; `cgroups`: whether there are memory cgroups.
pub fn host_memory(line: &Line, logged: &LoggedKill, page: u64, cgroups: bool) -> Result<()> {
    let evidence = line.get("memory.evidence").and_then(Value::as_str);
    if logged.invoked.is_some() {
        ensure!(evidence == Some("kernel_log"), "the kernel reports {:?}: {}", logged.host_pages, line.text);
        for (key, names) in PARTS {
            let pages: Option<Vec<u64>> =
                names.iter().map(|name| logged.host_pages.get(*name).copied()).collect();
            let expected = pages.map(|pages| pages.iter().sum::<u64>() * page);
            let found = line.number(&format!("memory.{key}"));
            ensure!(expected.is_some(), "no {names:?} in {:?}", logged.host_pages);
            ensure!(found == expected, "field memory.{key}: the kernel {expected:?}, oomtrace {found:?}");
        }
    } else {
        ensure!(evidence == Some("meminfo"), "there is no report: {}", line.text);
    }
    let total = line.number("memory.total_bytes").context("no total")?;
    ensure!(total == meminfo_bytes("MemTotal")?, "field memory.total_bytes: {total}");
    let unexplained = line.number("memory.unexplained_bytes");
    match unexplained {
        Some(bytes) => ensure!(bytes < total, "what is not explained: {}", line.text),
        // A kernel that is built without huge pages does not report that there are none.
        None => {
            ensure!(!Path::new("/sys/kernel/mm/hugepages").exists(), "what is not explained: {}", line.text);
            let hugetlb = line.get("missing.memory.hugetlb_bytes");
            ensure!(hugetlb.is_some(), "why it is not known: {}", line.text);
        }
    }
    if !cgroups {
        ensure!(line.get("charged").is_none() && line.get("top").is_none(), "no cgroups: {}", line.text);
        return Ok(());
    }
    ensure!(line.get("charged.evidence") == Some(&"kernel".into()), "the walk: {}", line.text);
    ensure!(line.number("charged.after_ns") > Some(0), "after the kill: {}", line.text);
    let sizes: Vec<u64> = top(line).iter().filter_map(|user| user.get("usage_bytes")?.as_u64()).collect();
    ensure!(sizes.is_sorted_by(|one, other| one >= other), "the largest first: {}", line.text);
    ensure!(sizes.iter().sum::<u64>() <= total, "more than there is: {}", line.text);
    let first_is_killed = top(line).first().is_some_and(|user| user.get("killed").is_some());
    ensure!(line.get("killed_largest") == Some(&first_is_killed.into()), "the largest: {}", line.text);
    Ok(())
}

/// Who uses most.
pub fn top(line: &Line) -> Vec<Value> {
    line.get("top").and_then(Value::as_array).cloned().unwrap_or_default()
}
