//! The kernel's own counters for the whole machine.

use std::fs;

use anyhow::{Context, Result};

/// `oom_kill` of `/proc/vmstat`: grows by one with each kill of any scope.
pub fn oom_kills() -> Result<u64> {
    field("/proc/vmstat", "oom_kill ")
}

/// `MemTotal` and `SwapTotal`, bytes.
pub fn memory_and_swap() -> Result<(u64, u64)> {
    Ok((meminfo_bytes("MemTotal")?, meminfo_bytes("SwapTotal")?))
}

/// `MemAvailable`: bytes that can be used before the machine runs out.
pub fn available_bytes() -> Result<u64> {
    meminfo_bytes("MemAvailable")
}

/// A value of `/proc/meminfo`, bytes.
pub fn meminfo_bytes(key: &str) -> Result<u64> {
    field("/proc/meminfo", &format!("{key}:")).map(|kilobytes| kilobytes * 1024)
}

fn field(file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("{file} has no {key}"))
}

/// Nodes with memory.
pub fn memory_nodes() -> Result<Vec<u32>> {
    let text = fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_else(|_| "0".to_owned());
    let mut nodes = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        nodes.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(nodes)
}

/// The time of the wall clock, ns.
pub fn wall_clock_ns() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

/// The offset of the wall clock from the time since boot, ns.
pub fn boot_time_ns() -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec that is alive through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    wall_clock_ns() - (i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec))
}
