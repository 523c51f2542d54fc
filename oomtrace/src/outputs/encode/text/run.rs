//! The lines of a run about itself: its start, what it lost or cannot see, and its end.

use std::borrow::Cow;
use std::fmt::{self, Write};

use super::plain;
use crate::event::{CgroupVersion, Gap, GapCgroup, Hooks, LossReason, Lost, Start, Stop};

pub(super) fn write_start(event: &Start, out: &mut String) -> fmt::Result {
    let cgroup = match event.cgroup_version {
        CgroupVersion::V1 => "v1",
        CgroupVersion::V2 => "v2",
        CgroupVersion::Hybrid => "hybrid",
        CgroupVersion::None => "none",
    };
    let kernel = event.envelope.host.kernel.as_deref().map_or(Cow::Borrowed("unknown"), plain);
    write!(out, "oomtrace {}, kernel {kernel}, cgroup {cgroup}", plain(&event.version))?;
    let killer = event.hooks.iter().find(|hook| hook.name == "oom_kill_process");
    let how = killer.map_or("none", |hook| hook.attached.as_str());
    write!(out, ", function hook {}, runtimes", plain(how))?;
    for runtime in &event.runtimes {
        write!(out, " {}", plain(runtime))?;
    }
    if event.runtimes.is_empty() {
        out.write_str(" none")?;
    }
    if event.resumed {
        out.write_str(", resumed")?;
    }
    for limit in &event.limits {
        out.write_str("\n  - ")?;
        write_limit(limit, out)?;
    }
    Ok(())
}

pub(super) fn write_lost(event: &Lost, out: &mut String) -> fmt::Result {
    let reason = match event.reason {
        LossReason::RingFull => "kill events: the ring was full",
        LossReason::UnnumberedRingFull => "events of cgroups that ran out without a kill: the ring was full",
        LossReason::SignalRingFull => "signals that ended processes: their ring was full",
        LossReason::CgroupRingFull => "cgroup changes: the ring was full, names may be unknown",
        LossReason::CgroupNotKept => "cgroups: no place to keep them, names may be unknown",
        LossReason::NameNotRead => "names: a user, service or container used up its share",
        LossReason::VerdictQueueFull => "verdicts: too many kills waited for theirs",
        LossReason::IncidentQueueFull => "kills in incidents: too many victims were waited for",
        LossReason::NoScratch => "kill events: the kernel side had no buffer",
        LossReason::UnreadableRecord => "kill events: records could not be read",
        LossReason::Sink => "lines: the output refused them",
        LossReason::Journal => "entries of the journal: journald took none",
        LossReason::Unexplained => "kill events: seq jumped and no counter says why",
    };
    write!(out, "{} {reason}", event.count)
}

pub(super) fn write_hooks(event: &Hooks, out: &mut String) -> fmt::Result {
    match &event.limit {
        Some(limit) => write_limit(limit, out),
        None => out.write_str("the function hooks run again"),
    }
}

/// A sentence of oomtrace, which may contain a path.
fn write_limit(text: &str, out: &mut String) -> fmt::Result {
    text.chars().try_for_each(|char| match char {
        '"' | '\'' => out.write_char(char),
        char => write!(out, "{}", char.escape_debug()),
    })
}

pub(super) fn write_gap(event: &Gap, out: &mut String) -> fmt::Result {
    let Gap { kernel_kills, reported, .. } = event;
    write!(
        out,
        "the kernel counts {kernel_kills} kills since {}, {reported} were reported",
        plain(&event.since)
    )?;
    for GapCgroup { path, kernel_kills, reported } in &event.cgroups {
        write!(out, "; in {} {kernel_kills}, {reported} reported", plain(path))?;
    }
    Ok(())
}

pub(super) fn write_stop(event: &Stop, out: &mut String) -> fmt::Result {
    write!(out, "{}: {} events, {} lost", plain(&event.reason), event.events, event.lost)?;
    match event.signals_left_out {
        Some(count) if count > 0 => write!(out, ", signals without a line: {count}"),
        _ => Ok(()),
    }
}
