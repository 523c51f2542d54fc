//! Whose memory it was, for people: a short block to paste into a chat.

use std::fmt::{self, Write};

use super::{Palette, Size, plain, who, write_task};
use crate::event::{Charged, HostMemory, HostTotals, Scope, TopUser};

pub(super) fn write_host_memory(event: &HostMemory, palette: &Palette, out: &mut String) -> fmt::Result {
    out.write_str(match event.scope {
        Some(Scope::Cpuset) => "the nodes of a cpuset ran out",
        Some(Scope::Mempolicy) => "the nodes of a memory policy ran out",
        _ => "the host ran out",
    })?;
    if let Some(first) = event.top.first() {
        write!(out, ": {}{}{:#} has {}", palette.who, name(first), palette.who, Size(first.usage_bytes))?;
        write_limit(first, out)?;
    }
    let killed = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &None);
    out.write_str("; killed ")?;
    write_task(event.victim.comm.as_deref(), event.victim.pid, out)?;
    if event.container.is_some() || event.systemd.is_some() || event.k8s.is_some() {
        write!(out, " of {killed}")?;
    }
    match (event.killed_largest, event.victim.usage_bytes) {
        (Some(true), _) => out.write_str(", of the largest")?,
        (Some(false), Some(usage)) => write!(out, ", not of the largest ({})", Size(usage))?,
        (Some(false), None) => out.write_str(", not of the largest")?,
        (None, _) => {}
    }
    if let Some(adj) = event.victim.oom_score_adj.filter(|adj| *adj != 0) {
        write!(out, " (adj {adj})")?;
    }
    if let Some(memory) = &event.memory {
        write_totals(memory, out)?;
    }
    if let Some(charged) = &event.charged {
        write_charged(charged, out)?;
    }
    event.top.iter().try_for_each(|user| write_user(user, out))
}

fn name(user: &TopUser) -> String {
    let is_known =
        user.path.is_some() || user.container.is_some() || user.k8s.is_some() || user.systemd.is_some();
    match is_known {
        true => who(user.k8s.as_ref(), user.container.as_ref(), user.systemd.as_ref(), &user.path),
        false => format!("cgroup {}", plain(&user.id)),
    }
}

fn write_limit(user: &TopUser, out: &mut String) -> fmt::Result {
    match user.limit_bytes {
        Some(limit) => write!(out, " of {}", Size(limit)),
        None if user.unlimited => out.write_str(" and no limit"),
        None => Ok(()),
    }
}

fn write_totals(memory: &HostTotals, out: &mut String) -> fmt::Result {
    out.write_str("\n  memory")?;
    if let Some(total) = memory.total_bytes {
        write!(out, " {}", Size(total))?;
    }
    let cache = memory.file_bytes.zip(memory.shmem_bytes).map(|(file, shmem)| file.saturating_sub(shmem));
    let slab = memory.slab_reclaimable_bytes.zip(memory.slab_unreclaimable_bytes);
    // What is small on most hosts is named only where it is not.
    let large = |bytes: Option<u64>| {
        bytes.filter(|bytes| memory.total_bytes.is_some_and(|total| *bytes >= total / 64))
    };
    let parts = [
        ("free", memory.free_bytes),
        ("anon with tmpfs", memory.lru.anon_bytes),
        ("locked", memory.lru.unevictable_bytes),
        ("tmpfs or shared memory alone", memory.shmem_bytes),
        ("page cache", cache),
        ("slab", slab.map(|(one, other)| one.saturating_add(other))),
        ("page tables", large(memory.pagetables_bytes)),
        ("mapped by the kernel (vmalloc)", large(memory.vmalloc_bytes)),
        ("percpu", large(memory.percpu_bytes)),
        ("huge pages", memory.hugetlb_bytes.filter(|bytes| *bytes > 0)),
        ("not explained", memory.unexplained_bytes),
    ];
    let mut between = ": ";
    for (name, bytes) in parts.iter().filter_map(|(name, bytes)| Some((name, (*bytes)?))) {
        write!(out, "{between}{name} {}", Size(bytes))?;
        between = ", ";
    }
    match memory.swap_total_bytes.zip(memory.swap_free_bytes) {
        Some((0, _)) => out.write_str("; no swap"),
        Some((total, free)) => write!(out, "; swap {} of {} free", Size(free), Size(total)),
        None => Ok(()),
    }
}

fn write_charged(charged: &Charged, out: &mut String) -> fmt::Result {
    write!(out, "\n  {} cgroups", charged.cgroups)?;
    if let Some(usage) = charged.usage_bytes {
        write!(out, " with {}", Size(usage))?;
    }
    match &charged.removed {
        Some(removed) if removed.count > 0 => {
            write!(out, ", {} removed ones still hold {}", removed.count, Size(removed.usage_bytes))
        }
        _ => Ok(()),
    }
}

fn write_user(user: &TopUser, out: &mut String) -> fmt::Result {
    write!(out, "\n  - {} {}", name(user), Size(user.usage_bytes))?;
    write_limit(user, out)?;
    let marks = [
        (user.killed, "killed"),
        (user.removed, "removed"),
        (user.without_below, "without the cgroups below it"),
    ];
    marks.iter().filter(|(is, _)| *is).try_for_each(|(_, mark)| write!(out, " ({mark})"))
}
