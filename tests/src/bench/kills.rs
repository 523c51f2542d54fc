//! Kills one at a time, each in a cgroup of its own, and when each tracer told of them.

use std::time::Duration;

use anyhow::Result;
use oomtrace_tests::cgroup::Cgroup;
use oomtrace_tests::hog::Hog;

use crate::host;
use crate::subject::Running;

/// Small, so that it is soon used up; large enough for a process to start.
const LIMIT_BYTES: u64 = 16 << 20;
/// The kernel writes ten reports in five seconds and holds the rest back. A kill with its
/// report is what a host meets, and what costs a reader of the kernel's log most.
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

    /// Has a process killed. Its id.
    pub fn one(&mut self) -> Result<u32> {
        let cgroup = self.parent.child(format!("kill-{}", self.made).as_bytes())?;
        self.made += 1;
        cgroup.limit(LIMIT_BYTES)?;
        let mut hog = Hog::start()?;
        hog.join(&cgroup.procs())?;
        // What the preparation woke has gone to sleep again.
        host::pause(BETWEEN)?;
        hog.grow("anon")?;
        hog.killed()?;
        let pid = hog.pid();
        cgroup.remove()?;
        Ok(pid)
    }

    /// ns from the kernel's mark to the line in the reader's hands, of each of `count` kills.
    pub fn latencies(&mut self, tracer: &Running, count: u32) -> Result<Vec<i128>> {
        (0..count).map(|_| tracer.latency(self.one()?)).collect()
    }
}
