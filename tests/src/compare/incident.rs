//! Compares an incident with the kernel's own report of the same run.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::counters::memory_and_swap;
use crate::kernel_log::LoggedKill;
use crate::tracer::Line;

/// Keys of `cgroup.memory`, and of which keys of the report each is the sum: on v2, and on v1.
const PARTS: [(&str, &[&str], &[&str]); 15] = [
    ("anon_bytes", &["anon"], &["total_rss"]),
    ("file_bytes", &["file"], &["total_cache"]),
    ("shmem_bytes", &["shmem"], &["total_shmem"]),
    ("kernel_bytes", &["kernel"], &[]),
    ("kernel_stack_bytes", &["kernel_stack"], &[]),
    ("pagetables_bytes", &["pagetables"], &[]),
    ("slab_reclaimable_bytes", &["slab_reclaimable"], &[]),
    ("slab_unreclaimable_bytes", &["slab_unreclaimable"], &[]),
    ("sock_bytes", &["sock"], &[]),
    ("percpu_bytes", &["percpu"], &[]),
    ("file_dirty_bytes", &["file_dirty"], &["total_dirty"]),
    ("file_writeback_bytes", &["file_writeback"], &["total_writeback"]),
    ("lru.anon_bytes", &["inactive_anon", "active_anon"], &["total_inactive_anon", "total_active_anon"]),
    ("lru.file_bytes", &["inactive_file", "active_file"], &["total_inactive_file", "total_active_file"]),
    ("lru.unevictable_bytes", &["unevictable"], &["total_unevictable"]),
];

/// What an incident has of the memory of its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// As the kernel's report.
    Reported,
    /// From the cgroup's file; the kernel wrote no report.
    Read,
    /// Nothing; the kernel wrote no report.
    Absent,
}

/// Every figure of the incident must be that of the report of its first kill. `page` is the size of a page.
pub fn incident(line: &Line, logged: &LoggedKill, page: u64) -> Result<Split> {
    let evidence = line.get("cgroup.memory.evidence").and_then(Value::as_str);
    if logged.invoked.is_none() {
        ensure!(
            evidence != Some("kernel_log"),
            "there is no report, and the incident has one: {}",
            line.text
        );
        let because = |key: &str| line.get(&format!("missing.{key}")).is_some();
        ensure!(because("process_table"), "no report, and no reason: {}", line.text);
        ensure!(evidence.is_some() || because("cgroup.memory"), "no memory, and no reason: {}", line.text);
        return Ok(if evidence.is_some() { Split::Read } else { Split::Absent });
    }
    table(line, logged, page)?;
    if logged.stats.is_empty() {
        ensure!(line.get("cgroup").is_none(), "a cgroup in a kill of the host: {}", line.text);
        return Ok(Split::Absent);
    }
    if evidence != Some("kernel_log") && is_behind(logged) {
        ensure!(evidence.is_some() || line.get("missing.cgroup.memory") == Some(&"counters_behind".into()));
        return Ok(if evidence.is_some() { Split::Read } else { Split::Absent });
    }
    let (stats, usage_kb) = (&logged.stats, logged.memory_kb);
    ensure!(
        evidence == Some("kernel_log"),
        "of a usage of {usage_kb:?} KiB the kernel reports {stats:?}: {}",
        line.text
    );
    let is_v1 = logged.stats.contains_key("total_rss");
    for (key, v2, v1) in PARTS {
        let keys = if is_v1 { v1 } else { v2 };
        let parts: Option<Vec<u64>> = keys.iter().map(|key| logged.stats.get(*key).copied()).collect();
        let mut expected = parts.filter(|parts| !parts.is_empty()).map(|parts| parts.iter().sum());
        if key == "kernel_bytes" && expected.is_none() {
            expected = logged.kmem_kb.map(|kilobytes| kilobytes * 1024);
        }
        let found = line.number(&format!("cgroup.memory.{key}"));
        ensure!(found == expected, "field cgroup.memory.{key}: the kernel {expected:?}, oomtrace {found:?}");
        let because = line.get(&format!("missing.cgroup.memory.{key}"));
        ensure!(found.is_some() != because.is_some(), "field cgroup.memory.{key}: {because:?}");
    }
    findings(line, logged, is_v1)?;
    Ok(Split::Reported)
}

/// Whether the report itself has far less than the usage: since 7.0 the kernel may print counters that are behind.
fn is_behind(logged: &LoggedKill) -> bool {
    let parts = ["anon", "file", "kernel", "sock"].map(|key| logged.stats.get(key).copied());
    let sum = parts.into_iter().sum::<Option<u64>>();
    sum.zip(logged.memory_kb).is_some_and(|(sum, usage_kb)| sum < usage_kb * 1024 / 4 * 3)
}

/// Which findings there must be, by the kernel's own figures, and which must not.
fn findings(line: &Line, logged: &LoggedKill, is_v1: bool) -> Result<()> {
    let list = line.get("findings").and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |id: &str| list.iter().any(|finding| finding.get("id") == Some(&id.into()));
    let expect = |id: &str, expected: bool| {
        ensure!(has(id) == expected, "finding {id}: expected {expected}: {}", line.text);
        Ok(())
    };
    let limit = line.number("cgroup.limit_bytes").unwrap_or(u64::MAX);
    let of = |v2: &str, v1: &str| logged.stats.get(v1).or(logged.stats.get(v2)).copied();
    let share = |bytes: Option<u64>, percent: u64| bytes.is_some_and(|bytes| bytes >= limit / 100 * percent);
    expect("anon_fills_limit", share(of("anon", "total_rss"), 90))?;
    let shmem = of("shmem", "total_shmem");
    expect("shmem_large", share(shmem, 25))?;
    let kernel = logged.stats.get("kernel").copied().or(logged.kmem_kb.map(|kilobytes| kilobytes * 1024));
    let sock = if is_v1 { 0 } else { logged.stats.get("sock").copied().unwrap_or(0) };
    expect("kernel_large", share(kernel.map(|kernel| kernel + sock), 25))?;
    let kept = [shmem, of("file_dirty", "total_dirty"), of("file_writeback", "total_writeback")];
    let kept = kept.into_iter().sum::<Option<u64>>();
    let clean = of("file", "total_cache").zip(kept).map(|(file, kept)| file.saturating_sub(kept));
    expect("cache_present", share(clean, 25))?;
    if memory_and_swap()?.1 == 0 {
        expect("no_swap", true)?;
    }
    expect("memory_stays", share(line.number("released.usage_bytes"), 50))?;
    let largest = logged.rss_pages.iter().max_by_key(|(_, pages)| **pages);
    let victim = line.number("victim.pid").and_then(|pid| u32::try_from(pid).ok());
    let other = victim.zip(largest).is_some_and(|(victim, (pid, pages))| {
        victim != *pid && logged.rss_pages.get(&victim).is_some_and(|own| own < pages)
    });
    // The kernel compares sizes at another time than oomtrace reads the victim's.
    ensure!(!has("bystander") || other, "finding bystander: the victim is the largest: {}", line.text);
    Ok(())
}

fn table(line: &Line, logged: &LoggedKill, page: u64) -> Result<()> {
    let equal = |key: &str, expected: u64| {
        let found = line.number(&format!("process_table.{key}"));
        ensure!(found == Some(expected), "field process_table.{key}: {expected}, oomtrace {found:?}");
        Ok(())
    };
    let mut sizes: Vec<u64> = logged.rss_pages.values().map(|pages| pages * page).collect();
    equal("count", sizes.len() as u64)?;
    equal("rss_bytes", sizes.iter().sum())?;
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    sizes.truncate(5);
    let largest = line.get("process_table.largest").and_then(Value::as_array);
    let found: Vec<u64> = largest
        .into_iter()
        .flatten()
        .filter_map(|row| row.get("rss_bytes").and_then(Value::as_u64))
        .collect();
    ensure!(found == sizes, "field process_table.largest: {sizes:?}, oomtrace {found:?}");
    Ok(())
}
