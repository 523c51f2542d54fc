//! Each kill is in one incident, which has the figures of the kernel's report.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Session;
use crate::compare::{self, Split};
use crate::tracer::Line;

/// How many incidents have what they say of the memory from where.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// The kernel wrote a report, and the incident has its figures.
    pub reported: usize,
    /// The kernel wrote none, and the cgroup's file still had it.
    pub read: usize,
    /// Nothing is known, and the incident says so.
    pub absent: usize,
}

impl Session {
    /// Waits for the incident of each kill that was compared since the last call, and compares it.
    pub fn check_incidents(&mut self) -> Result<Counts> {
        let mut counts = Counts::default();
        for (kill, logged) in std::mem::take(&mut self.told) {
            if kill.get("oom.kill") == Some(&"already_exiting".into()) {
                continue;
            }
            let incident = self.incident_of(&kill)?;
            let of = incident.get("of").and_then(Value::as_array).cloned().unwrap_or_default();
            // The report is of the first kill of a run.
            if of.first() != kill.get("seq") {
                continue;
            }
            self.check_incident(&incident, &kill)?;
            if ["host", "cpuset", "mempolicy"]
                .iter()
                .any(|scope| kill.get("oom.scope") == Some(&(*scope).into()))
            {
                let host = self.host_memory_of(&kill)?;
                compare::host_memory(&host, &logged, self.host.page_bytes, self.hierarchy.memory)?;
            }
            match compare::incident(&incident, &logged, self.host.page_bytes)? {
                Split::Reported => counts.reported += 1,
                Split::Read => counts.read += 1,
                Split::Absent => counts.absent += 1,
            }
        }
        Ok(counts)
    }

    /// The only incident with this kill.
    pub fn incident_of(&mut self, kill: &Line) -> Result<Line> {
        let seq = kill.get("seq").cloned().unwrap_or_default();
        let is_of = |line: &&Line| {
            line.kind() == "incident"
                && line.get("stream") == kill.get("stream")
                && line.get("of").and_then(Value::as_array).is_some_and(|of| of.contains(&seq))
        };
        self.tracer
            .wait_for(&format!("the incident of event {seq}"), |lines| lines.iter().find(is_of).cloned())
    }

    /// The only line of the host's memory at this kill.
    pub fn host_memory_of(&mut self, kill: &Line) -> Result<Line> {
        let seq = kill.get("seq").cloned().unwrap_or_default();
        let is_of = |line: &&Line| {
            line.kind() == "host_memory"
                && line.get("stream") == kill.get("stream")
                && line.get("of").and_then(Value::as_array).is_some_and(|of| of.contains(&seq))
        };
        self.tracer.wait_for(&format!("whose memory it was at event {seq}"), |lines| {
            lines.iter().find(is_of).cloned()
        })
    }

    fn check_incident(&mut self, incident: &Line, kill: &Line) -> Result<()> {
        let same = [
            ("victim.pid", "victim.pid"),
            ("victim.comm", "victim.comm"),
            ("scope", "oom.scope"),
            ("cgroup.id", "oom.cgroup.id"),
            ("cgroup.limit_bytes", "oom.cgroup.limit_bytes"),
            ("cgroup.usage_bytes", "oom.cgroup.usage_bytes"),
            ("container", "container"),
            ("systemd", "systemd"),
        ];
        for (key, of_kill) in same {
            let (found, expected) = (incident.get(key), kill.get(of_kill));
            ensure!(found == expected, "field {key}: {found:?}, of the kill {expected:?}: {}", incident.text);
        }
        let after = incident.number("released.after_ns");
        if self.guest() && incident.get("missing.released.after_ns") == Some(&"still_there".into()) {
            // Hundreds of threads can need more than 5 s to end in a guest whose host is busy. Then that must be told too.
            let is_told = |line: &&Line| line.kind() == "stuck" && line.get("of") == incident.get("of");
            self.tracer.wait_for("the line of a victim that is still there", |lines| {
                lines.iter().find(is_told).cloned()
            })?;
        } else {
            // Hogs end when they are killed.
            ensure!(after.is_some_and(|after| after > 0), "a victim that has ended: {}", incident.text);
        }
        let reaper = incident.get("released.reaper");
        ensure!(reaper.is_some(), "the reaper: {}", incident.text);
        Ok(())
    }
}
