//! The chosen process is already exiting.

use anyhow::{Result, ensure};

use super::{LIMIT, MIB, Outcome};
use crate::cgroup::Version;
use crate::counters::wall_clock_ns;
use crate::session::Session;

/// A process that is held just before it releases its memory. A drop lets it continue.
struct HeldAtExit(libc::pid_t);

impl HeldAtExit {
    fn seize(process: libc::pid_t) -> Result<Self> {
        // SAFETY: a child of ours that has not been waited for; the options are a number.
        let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, process, 0, libc::PTRACE_O_TRACEEXIT) };
        ensure!(result == 0, "ptrace: {}", std::io::Error::last_os_error());
        Ok(Self(process))
    }

    fn wait(&self) -> Result<()> {
        let mut status = 0;
        // SAFETY: a status that is alive through the call.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        ensure!(
            waited == self.0 && status >> 16 == libc::PTRACE_EVENT_EXIT,
            "the hog did not stop on its way out"
        );
        Ok(())
    }
}

impl Drop for HeldAtExit {
    fn drop(&mut self) {
        // SAFETY: a tracee of this thread.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

/// The largest process has called `exit` and is held by ptrace just before it releases its memory. The OOM
/// killer marks it, kills no process, counts nothing and logs nothing.
pub(super) fn already_exiting(session: &mut Session) -> Result<Outcome> {
    const HELD: u64 = 10 * MIB;
    let cgroup = session.cgroup(b"exiting")?;
    cgroup.limit(LIMIT)?;
    let mut large = session.hog_in(&cgroup, b"hog-exiting")?;
    let mut small = session.hog_in(&cgroup, b"hog-small")?;
    // Two threads: kernels before 5.17 mark a single thread as exiting only after the point where it is held.
    large.go_on_in_thread(false)?;
    large.hold(HELD)?;
    let facts = large.facts()?;
    // Released before the hog is waited for, also after an error.
    let held = HeldAtExit::seize(libc::pid_t::try_from(large.pid())?)?;
    large.tell("quit")?;
    held.wait()?;

    let released = wall_clock_ns();
    // Exceeds the limit. It must have room before the other one's memory is free, which the kernel takes after two seconds: with
    // that victim out of the way, the kernel might choose the small one before it sees the room.
    small.tell(&format!("anon {}", LIMIT - HELD + 4 * MIB))?;
    let line = session.line_of(facts.tid, released)?;
    cgroup.limit(4 * LIMIT)?;
    small.holds()?;
    drop(held);

    // On PREEMPT_RT a signal can be missed, so nobody knows that there was none.
    let realtime = std::fs::read("/sys/kernel/realtime").is_ok_and(|text| text.starts_with(b"1"));
    let kill =
        if realtime { ("missing.oom.kill", "signal_unknown") } else { ("oom.kill", "already_exiting") };
    let place = cgroup.place();
    let evidence = if session.hook() == "none" { "stack" } else { session.hook() };
    for (field, truth) in [
        ("oom.evidence", format!("{evidence:?}")),
        (kill.0, format!("{:?}", kill.1)),
        ("oom.scope", "\"memcg\"".to_owned()),
        ("oom.cgroup.id", format!("\"{}\"", place.id)),
        ("victim.pid", facts.pid.to_string()),
        ("victim.parent_pid", facts.parent_pid.to_string()),
        ("victim.comm", format!("{:?}", String::from_utf8_lossy(&facts.comm))),
        ("victim.cgroup.path", format!("{:?}", String::from_utf8_lossy(&place.path))),
        ("victim.cgroup.id", format!("\"{}\"", place.id)),
        ("oom.cgroup.events.oom_kill", "0".to_owned()),
        ("trigger.pid", small.pid().to_string()),
    ] {
        let told = line.get(field).map(ToString::to_string);
        ensure!(
            told.as_ref() == Some(&truth),
            "field {field}: expected {truth}, oomtrace {told:?}: {}",
            line.text
        );
    }
    // The kernel logs nothing, and the figures of /proc are more exact than the OOM killer's, so only near
    // values can be required.
    let anon = line.number("victim.memory.anon_rss_bytes").unwrap_or_default();
    ensure!(
        anon.abs_diff(facts.anon_bytes) <= MIB,
        "field victim.memory.anon_rss_bytes: /proc {}, oomtrace {anon}: {}",
        facts.anon_bytes,
        line.text
    );
    let kills = cgroup.events()?.get("oom_kill").copied();
    ensure!(kills == Some(0), "the kernel counted {kills:?} kills: this is another case");
    ensure!(!session.logged_tids()?.contains(&facts.tid), "the kernel logged a kill: this is another case");
    ensure!(small.is_alive()?, "the small one was killed");
    if session.hook() == "none" && session.hierarchy.version == Version::V2 {
        // The cgroup's files correctly show that it ran out without a kill.
        let id = cgroup.place().id.to_string();
        session.claim("a memcg_oom line", |line| {
            line.kind() == "memcg_oom" && line.get("cgroup.id") == Some(&id.clone().into())
        })?;
    }
    Ok(Outcome::Passed)
}
