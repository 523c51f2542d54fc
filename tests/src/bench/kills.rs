//! Makes kills one at a time, each in its own cgroup, and measures when each tracer reported them.

use std::time::Duration;

use anyhow::{Result, ensure};
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::hog::Hog;
use oomtrace_tests::session::is_guest;

use crate::host;
use crate::subject::Running;

/// Small, so that it is soon used up, but large enough for a process to start.
const LIMIT_BYTES: u64 = 16 << 20;
/// The kernel writes at most ten reports in five seconds. A kill with a report is the usual case, and it
/// costs a reader of the kernel log the most.
const BETWEEN: Duration = Duration::from_millis(520);

/// Kills below one cgroup.
#[derive(Debug)]
pub struct Kills<'a> {
    parent: &'a Cgroup,
    made: u32,
}

impl<'a> Kills<'a> {
    /// Below `parent`.
    pub fn new(parent: &'a Cgroup) -> Self {
        Self { parent, made: 0 }
    }

    /// Makes one kill. Returns the victim's pid.
    pub fn one(&mut self) -> Result<u32> {
        self.kill(Some(LIMIT_BYTES))
    }

    /// Makes one kill because the whole machine runs out. Only in a guest.
    pub fn one_host_wide(&mut self) -> Result<u32> {
        ensure!(is_guest(), "only a guest may run out of memory as a whole");
        self.kill(None)
    }

    fn kill(&mut self, limit: Option<u64>) -> Result<u32> {
        let cgroup = self.parent.child(format!("kill-{}", self.made).as_bytes())?;
        self.made += 1;
        let mut hog = Hog::start()?;
        match limit {
            Some(limit) => cgroup.limit(limit)?,
            // It must be the victim, and nobody else.
            None => drop(hog.ask("adj 1000")?),
        }
        hog.join(&cgroup.procs())?;
        // By then, all threads that the preparation woke sleep again.
        host::pause(BETWEEN)?;
        hog.grow("anon")?;
        hog.killed()?;
        let pid = hog.pid();
        cgroup.remove()?;
        Ok(pid)
    }

    /// ns from the kernel's mark until the reader has the line, for each of `count` kills.
    pub fn latencies(&mut self, tracer: &Running, count: u32) -> Result<Vec<i128>> {
        (0..count).map(|_| tracer.latency(self.one()?)).collect()
    }
}
