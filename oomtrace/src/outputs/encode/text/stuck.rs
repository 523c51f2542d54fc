//! A victim that does not end, for people.

use std::fmt::{self, Write};

use super::{Numbers, Palette, incident::Time, plain, who, write_task};
use crate::event::{Reaper, Stuck};

pub(super) fn write_stuck(event: &Stuck, palette: &Palette, out: &mut String) -> fmt::Result {
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &None);
    write!(out, "{}{who}{:#}: ", palette.who, palette.who)?;
    write_task(event.victim.comm.as_deref(), event.victim.pid, out)?;
    if event.still_there > 1 {
        write!(out, " and {} more", event.still_there - 1)?;
    }
    let named = event.of.get(..1).unwrap_or(&event.of);
    write!(out, " (event {}) still there after {}", Numbers(named), Time(event.after_ns))?;
    out.write_str(match event.reaper {
        Some(Reaper::Reaped) => "; the kernel's reaper freed its memory",
        Some(Reaper::Failed) => "; the kernel's reaper could not free its memory",
        Some(Reaper::NotNeeded) | None => "",
    })?;
    if let Some(count) = event.thread_count {
        write!(out, "; {count} {}", if count == 1 { "thread" } else { "threads" })?;
    }
    let mut between = ": ";
    for thread in &event.threads {
        write!(out, "{between}{} {}", thread.tid, plain(&thread.state))?;
        if let Some(wchan) = &thread.wchan {
            write!(out, " in {}", plain(wchan))?;
        }
        between = ", ";
    }
    Ok(())
}
