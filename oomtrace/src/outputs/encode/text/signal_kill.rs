//! A signal that ended processes, in words.

use std::fmt::{self, Write};

use super::{Palette, Size, incident::Time, plain, who, write_task};
use crate::event::{
    HostMemoryThen, How, Killer, OomCgroup, SenderContainer, Signal, SignalKill, SignalSender, Systemd,
    name_of_user,
};

pub(super) fn write_signal_kill(event: &SignalKill, palette: &Palette, out: &mut String) -> fmt::Result {
    let SignalKill { target, cgroup, .. } = event;
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &target.cgroup.path);
    write!(out, "{}{who}{:#}: ", palette.who, palette.who)?;
    // Where a killer acted because the host is short of memory, the cgroup's own counters prove nothing.
    let never_full = !event.is_for_memory() && never_full(cgroup);
    if never_full {
        out.write_str("NOT out of memory: ")?;
    }
    write_task(target.comm.as_deref(), target.pid, out)?;
    write_how(event, out)?;
    if let Some(ns) = event.sigterm_before_ns {
        write!(out, ", {} after SIGTERM", Time(ns))?;
    }
    if let (Some(usage), limit) = (cgroup.usage_bytes, cgroup.limit_bytes) {
        match limit {
            Some(limit) => write!(out, "; {} of {}", Size(usage), Size(limit))?,
            None => write!(out, "; {} used", Size(usage))?,
        }
        out.write_str(if never_full { ", never at its limit" } else { "" })?;
    }
    event.host_memory.as_ref().map_or(Ok(()), |host| write_host(host, out))
}

/// What was done to it, and by whom.
fn write_how(event: &SignalKill, out: &mut String) -> fmt::Result {
    let signal = event.signal.name();
    match event.how {
        Some(How::PidNamespaceEnded) => {
            out.write_str(" ended with the first process of its pid namespace")?;
            return write_others(event, out);
        }
        Some(How::Kernel) => {
            write!(out, " got {signal} from the kernel, not from the OOM killer")?;
            return write_others(event, out);
        }
        _ if event.is_for_memory() && event.signal == Signal::Kill => out.write_str(" killed by ")?,
        _ => write!(out, " got {signal} from ")?,
    }
    write_sender(event, out)?;
    match event.how {
        Some(How::CgroupKill) => out.write_str(" through cgroup.kill")?,
        Some(How::Tgkill) => out.write_str(" through a thread")?,
        _ => {}
    }
    write_others(event, out)
}

fn write_others(event: &SignalKill, out: &mut String) -> fmt::Result {
    match event.processes {
        Some(count) if count > 1 => write!(out, " ({count} processes)"),
        _ => Ok(()),
    }
}

/// Its name, which it chose itself, beside what it is.
fn write_sender(event: &SignalKill, out: &mut String) -> fmt::Result {
    let SignalSender { comm, pid, container, systemd, .. } = &event.sender;
    write_task(comm.as_deref(), *pid, out)?;
    let kind = match event.killer {
        Some(Killer::Inside) => return out.write_str(" inside it"),
        Some(killer) if killer.is_for_memory() => "OOM killer of user space",
        Some(Killer::Runtime) => "container runtime",
        Some(Killer::Kubelet) => "kubelet",
        Some(Killer::Systemd) => "systemd",
        _ => "",
    };
    let place = match (container, systemd) {
        (Some(SenderContainer { id, name, runtime }), _) => {
            let short_id = || id.chars().take(12).collect::<String>();
            let name = name.clone().unwrap_or_else(short_id);
            format!("container {}", plain(&name_of_user(runtime.user, &name)))
        }
        (None, Some(Systemd { unit, user })) => plain(&name_of_user(*user, unit)).into_owned(),
        (None, None) => String::new(),
    };
    match (kind, place.as_str()) {
        ("", "") => Ok(()),
        (kind, "") => write!(out, " ({kind})"),
        ("", place) => write!(out, " ({place})"),
        (kind, place) => write!(out, " ({kind}, {place})"),
    }
}

/// How full the host was.
fn write_host(host: &HostMemoryThen, out: &mut String) -> fmt::Result {
    let (Some(total), Some(available)) = (host.total_bytes, host.available_bytes) else { return Ok(()) };
    write!(out, "; the host had {} of {} available", Size(available), Size(total))?;
    match (host.swap_total_bytes, host.swap_free_bytes) {
        (Some(0), _) => out.write_str(" and no swap"),
        (Some(total), Some(free)) => write!(out, ", {} of {} of swap free", Size(free), Size(total)),
        _ => Ok(()),
    }
}

/// By its own counters, the cgroup never reached its limit.
fn never_full(cgroup: &OomCgroup) -> bool {
    let Some(events) = cgroup.events.as_ref().filter(|_| cgroup.limit_bytes.is_some()) else { return false };
    cgroup.usage_bytes.is_some() && [events.max, events.oom, events.oom_kill] == [Some(0); 3]
}
