//! Starts what a run needs, and reads facts of the machine and of a cgroup.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::compare::{FiredLimit, HostFacts};
use crate::counters;
use crate::hog::Hog;
use crate::tracer::{Hook, Line, Tracer};

/// In a guest that will run out of memory: sets whether this process, and those that it starts after this,
/// may be killed.
pub(super) fn protect(guest: bool, protected: bool) -> Result<()> {
    if !guest {
        return Ok(());
    }
    let value = if protected { "-1000" } else { "0" };
    std::fs::write("/proc/self/oom_score_adj", value).context("protect the test from the killer")
}

/// Starts the tracer. In a guest this process must not be killed, but the tracer must protect itself.
pub(super) fn start_tracer(binary: &Path, hook: Hook, guest: bool) -> Result<Tracer> {
    protect(guest, false)?;
    let tracer = Tracer::start(binary, hook)?;
    protect(guest, true)?;
    Ok(tracer)
}

/// A hog with a name. `protected`: this process must not be killed, and its children must not inherit that.
pub fn start_hog(protected: bool, comm: &[u8]) -> Result<Hog> {
    let mut hog = Hog::start()?;
    if protected {
        hog.ask("adj 0")?;
    }
    hog.name(comm)?;
    Ok(hog)
}

/// What the files of the cgroup show after its limit fired.
pub fn fired_limit(cgroup: &Cgroup, limit_bytes: u64) -> Result<FiredLimit> {
    Ok(FiredLimit {
        place: cgroup.place().clone(),
        limit_bytes,
        swap_limit_bytes: None,
        events: cgroup.events()?,
        events_of_this_kill_alone: true,
        another_dies: false,
        refusals: cgroup.number("memory.failcnt"),
        peak_bytes: cgroup.peak(),
        oom_group: cgroup.number("memory.oom.group") == Some(1),
        lowered_from: None,
    })
}

impl HostFacts {
    /// Reads them.
    pub fn read() -> Result<Self> {
        let text = |name: &str| {
            let file = format!("/proc/sys/kernel/{name}");
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
            anyhow::Ok(text.trim_end().to_owned())
        };
        // SAFETY: numbers in, numbers out.
        let number = |name| unsafe { libc::sysconf(name) };
        let (page, ticks) = (number(libc::_SC_PAGESIZE), number(libc::_SC_CLK_TCK));
        let processors = number(libc::_SC_NPROCESSORS_ONLN);
        Ok(Self {
            name: text("hostname")?,
            kernel: text("osrelease")?,
            boot_id: text("random/boot_id")?,
            page_bytes: page.try_into()?,
            processors: processors.try_into()?,
            ticks_a_second: ticks.try_into()?,
            boot_wall_ns: counters::boot_time_ns(),
            memory_and_swap: counters::memory_and_swap()?,
        })
    }
}

/// Other processors returned what they had charged in advance before the OOM killer ran, so no process died.
/// This is chance.
pub(super) fn is_relief(line: &Line) -> bool {
    let bytes = |key| line.number(&format!("cgroup.{key}_bytes"));
    line.get("outcome") == Some(&"relieved".into())
        && bytes("usage").zip(bytes("limit")).is_some_and(|(usage, limit)| usage < limit)
}
