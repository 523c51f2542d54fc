//! When the kernel marked each victim, by its own trace event in a private trace instance: one clock for all
//! tracers, also for one that says no time.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use oomtrace_tests::counters::boot_time_ns;

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Follows the trace event until it is dropped.
#[derive(Debug)]
pub struct Marks(PathBuf);

impl Marks {
    /// From now on.
    pub fn follow() -> Result<Self> {
        let marks = Self(PathBuf::from(INSTANCES).join(format!("oomtrace-bench-{}", std::process::id())));
        fs::create_dir(&marks.0).with_context(|| format!("make {}", marks.0.display()))?;
        marks.write("trace_clock", "boot")?;
        marks.write("events/oom/mark_victim/enable", "1")?;
        Ok(marks)
    }

    /// When this victim was marked; ns of the wall clock, whole microseconds. Forgets all marks until now.
    pub fn of(&self, pid: u32) -> Result<i128> {
        let path = self.0.join("trace");
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        let since_boot = mark_in(&text, pid).with_context(|| format!("{}: no {pid}", path.display()))?;
        self.write("trace", "")?;
        Ok(since_boot + boot_time_ns())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        let _removed = fs::remove_dir(&self.0);
    }
}

/// The time in the event of this victim: `hog-7 [001] ..... 12.345678: mark_victim: pid=7 comm=…`, in ns.
fn mark_in(text: &str, pid: u32) -> Option<i128> {
    text.lines().find_map(|line| {
        let (head, of) = line.split_once(": mark_victim: pid=")?;
        (of.split(' ').next()?.parse() == Ok(pid)).then_some(())?;
        let (seconds, microseconds) = head.split_whitespace().last()?.split_once('.')?;
        Some(seconds.parse::<i128>().ok()? * 1_000_000_000 + microseconds.parse::<i128>().ok()? * 1000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_has_the_victim_and_its_time() {
        let text = "# tracer: nop\n hog-7  [001] .....  12.045678: mark_victim: pid=71 comm=a total-vm=1kB\n";
        assert_eq!(mark_in(text, 71), Some(12_045_678_000));
        assert_eq!(mark_in(text, 7), None);
    }
}
