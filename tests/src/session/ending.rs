//! What must hold when a scenario ends, and when the whole run does.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::{Session, hooks_fire, logs, setup::is_relief};
use crate::tracer::{Hook, Line};
use crate::{compare, counters};

impl Session {
    /// Ends a scenario. Every line must be valid, and each of ours must have been claimed.
    pub fn end(&mut self) -> Result<()> {
        self.check_incidents()?;
        self.tracer.check_new_lines()?;
        let ours = self.scratch().place().path.clone();
        // With the slash, because another run's name may begin with the same digits.
        let ours = format!("{}/", String::from_utf8_lossy(&ours));
        for (place, line) in self.tracer.lines().into_iter().enumerate() {
            if !line.is_event() || !self.claimed.insert(place) || is_relief(&line) {
                continue;
            }
            if line.kind() == "signal_kill" {
                self.check_no_victim(&line)?;
                continue;
            }
            let cgroup = line.get("cgroup.id").and_then(serde_json::Value::as_str);
            if line.kind() == "memcg_oom" && cgroup.is_some_and(|id| self.unasked.contains(id)) {
                continue;
            }
            let path = line.get("victim.cgroup.path").or_else(|| line.get("cgroup.path"));
            // On a host there may be kills of others. In a guest there are none, but the kernel may choose
            // one more victim while the last one releases its memory.
            let ours = path.and_then(serde_json::Value::as_str).is_none_or(|path| path.starts_with(&ours));
            if (self.guest || ours) && !(self.guest && self.is_bystander(&line)?) {
                bail!("a line without a cause: {}", line.text);
            }
        }
        Ok(())
    }

    /// Whom the OOM killer killed, nobody else is said to have killed.
    fn check_no_victim(&self, line: &Line) -> Result<()> {
        let pid = line.number("target.pid");
        let killed = |of: &Line| of.kind() == "oom_kill" && of.number("victim.pid") == pid;
        let lines = self.tracer.lines();
        ensure!(!lines.iter().any(killed), "a victim of the OOM killer: {}", line.text);
        Ok(())
    }

    /// Whether this is the line of a host-wide kill that the kernel log confirms; of a process that was exiting already, which the
    /// log leaves out, that its trace confirms.
    fn is_bystander(&mut self, line: &Line) -> Result<bool> {
        if line.get("oom.scope") != Some(&"host".into()) {
            return Ok(false);
        }
        let Some(tid) = line.number("victim.tid").and_then(|tid| u32::try_from(tid).ok()) else {
            return Ok(false);
        };
        let logged = self
            .log
            .look(|reports| reports.kills.iter().rev().find(|kill| kill.killed.tid == tid).cloned())?;
        let marked = self.events.as_mut().map(|events| events.of(tid)).transpose()?.flatten();
        let Some(mut logged) = logged else {
            return Ok(marked.is_some() && line.get("oom.kill") == Some(&"already_exiting".into()));
        };
        logged.marked = marked;
        Ok(compare::memory(line, &logged, &self.host).is_empty()
            && line.get("victim.comm") == Some(&String::from_utf8_lossy(&logged.killed.comm).into()))
    }

    /// In a guest every kill is ours: the numbers of counted, logged and reported kills must be equal.
    fn reconcile(&mut self) -> Result<()> {
        let counted = counters::oom_kills()? - self.counted_before;
        self.wait_for_log("log line of each kill that the kernel counted", |reports| {
            (reports.kills.len() as u64 >= counted).then_some(())
        })?;
        let logged =
            self.log.look(|reports| reports.kills.iter().map(|kill| kill.killed.tid).collect::<Vec<_>>())?;
        ensure!(
            logged.len() as u64 == counted,
            "the kernel counted {counted} kills and logged {}",
            logged.len()
        );
        self.tracer.wait_for("a line for each kill that the kernel logged", |lines| {
            let told: BTreeSet<u64> = lines.iter().filter_map(|line| line.number("victim.tid")).collect();
            logged.iter().all(|tid| told.contains(&u64::from(*tid))).then_some(())
        })
    }

    /// Whether hooks that were attached at the start no longer run.
    pub fn hooks_went_silent(&self) -> bool {
        !hooks_fire() && self.tracer.attached() != "none"
    }

    /// If attached hooks do not run, the start line or a `hooks` line after a kill must say so.
    fn check_silent_hooks(&self) -> Result<()> {
        if hooks_fire() || self.program.1 == Hook::None {
            return Ok(());
        }
        let start = self.tracer.start_line();
        let said_at_once = start.text.contains("do not run") && self.tracer.attached() == "none";
        let lines = self.tracer.lines();
        let said =
            |line: &Line| line.kind() == "hooks" && line.get("state").is_some_and(|state| *state == "silent");
        let kills = lines.iter().filter(|line| line.kind() == "oom_kill").count();
        ensure!(
            kills == 0 || said_at_once || lines.iter().any(said),
            "the hooks are silent, and no line says so: {}",
            start.text
        );
        Ok(())
    }

    /// Ends the run. The tracer must end normally. Returns its lines, and for each kill the time until its line.
    pub fn finish(mut self) -> Result<(Vec<Line>, Vec<i128>)> {
        if self.guest && !self.restarted {
            self.reconcile()?;
        }
        self.end()?;
        self.check_silent_hooks()?;
        if self.guest {
            logs::check(&self.program.0, &self.log.look(|reports| reports.kills.clone())?)?;
        }
        Ok((self.tracer.stop()?, self.latencies_ns))
    }
}
