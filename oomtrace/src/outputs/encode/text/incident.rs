//! An incident for people: a short block to paste into a chat.

use std::fmt::{self, Write};

use super::{Numbers, Palette, Size, history, plain, who, write_task};
use crate::event::{
    CgroupMemory, Finding, FindingId, HeapOption, Incident, IncidentCgroup, Part, ProcessTable, Reaper,
    Released, Scope,
};

/// The most kills that the text names.
const NAMED: usize = 4;

pub(super) fn write_incident(event: &Incident, palette: &Palette, out: &mut String) -> fmt::Result {
    let path = event.cgroup.as_ref().and_then(|fired| fired.cgroup.path.clone());
    let who = who(event.k8s.as_ref(), event.container.as_ref(), event.systemd.as_ref(), &path);
    write!(out, "{}{who}{:#}: killed ", palette.who, palette.who)?;
    if event.killed > 1 {
        write!(out, "{} processes, first ", event.killed)?;
    }
    write_task(event.victim.comm.as_deref(), event.victim.pid, out)?;
    let named = event.of.get(..NAMED).unwrap_or(&event.of);
    let events = if event.of.len() == 1 { "event" } else { "events" };
    let more = if event.killed > u64::try_from(named.len()).unwrap_or(u64::MAX) { ", …" } else { "" };
    write!(out, " ({events} {}{more})", Numbers(named))?;
    match (&event.cgroup, event.scope) {
        (Some(cgroup), _) => write_cgroup(cgroup, out)?,
        (None, Some(Scope::Host)) => out.write_str("; the host ran out")?,
        (None, Some(Scope::Cpuset)) => out.write_str("; the nodes of its cpuset ran out")?,
        (None, Some(Scope::Mempolicy)) => out.write_str("; the nodes of its memory policy ran out")?,
        (None, Some(Scope::Memcg) | None) => out.write_str("; whose limit fired is unknown")?,
    }
    write_released(&event.released, out)?;
    if let Some(memory) = event.cgroup.as_ref().and_then(|cgroup| cgroup.memory.as_ref()) {
        write_kernel(memory, out)?;
    }
    if let Some(table) = &event.process_table {
        write_table(table, out)?;
    }
    if let Some(before) = &event.before {
        write!(out, "\n  before: {} ", history::curve(&before.points))?;
        history::write_before(before, out)?;
    }
    if let Some(recurrence) = event.recurrence.as_ref().filter(|recurrence| recurrence.kills > 1) {
        out.write_str("\n  again: ")?;
        history::write_recurrence(recurrence, out)?;
    }
    let limit = event.cgroup.as_ref().and_then(|cgroup| cgroup.limit_bytes);
    event.findings.iter().try_for_each(|finding| {
        out.write_str("\n  - ")?;
        write_finding(finding, limit, out)
    })
}

fn write_cgroup(cgroup: &IncidentCgroup, out: &mut String) -> fmt::Result {
    match cgroup.usage_bytes {
        Some(usage) => write!(out, "; {}", Size(usage))?,
        None => out.write_str("; unknown usage")?,
    }
    match cgroup.limit_bytes {
        Some(limit) => write!(out, " of {}", Size(limit))?,
        None => out.write_str(", unknown limit")?,
    }
    let Some(memory) = &cgroup.memory else { return out.write_str(": what it was is unknown") };
    let cache = memory.file_bytes.zip(memory.shmem_bytes).map(|(file, shmem)| file.saturating_sub(shmem));
    let parts = [
        ("anon", memory.anon_bytes),
        ("tmpfs or shared memory", memory.shmem_bytes),
        ("page cache", cache),
        ("kernel", memory.kernel_bytes),
    ];
    write_parts(": ", &parts, out)
}

/// The parts that are known.
fn write_parts(before: &str, parts: &[(&str, Option<u64>)], out: &mut String) -> fmt::Result {
    let mut between = before;
    for (name, bytes) in parts.iter().filter_map(|(name, bytes)| Some((name, (*bytes)?))) {
        write!(out, "{between}{name} {}", Size(bytes))?;
        between = ", ";
    }
    Ok(())
}

fn write_released(released: &Released, out: &mut String) -> fmt::Result {
    match released.after_ns {
        Some(ns) => write!(out, "; free after {}", Time(ns))?,
        None => out.write_str("; when it was free is unknown")?,
    }
    if let Some(left) = released.usage_bytes {
        write!(out, ", {} left", Size(left))?;
    }
    out.write_str(match released.reaper {
        Some(Reaper::Reaped) => ", by the kernel's reaper",
        Some(Reaper::Failed) => ", the kernel's reaper failed",
        Some(Reaper::NotNeeded) | None => "",
    })
}

fn write_kernel(memory: &CgroupMemory, out: &mut String) -> fmt::Result {
    let parts = [
        ("kernel stacks", memory.kernel_stack_bytes),
        ("page tables", memory.pagetables_bytes),
        ("slab that can be reclaimed", memory.slab_reclaimable_bytes),
        ("other slab", memory.slab_unreclaimable_bytes),
        ("sockets", memory.sock_bytes),
        ("percpu", memory.percpu_bytes),
    ];
    write_parts("\n  of the kernel: ", &parts, out)
}

fn write_table(table: &ProcessTable, out: &mut String) -> fmt::Result {
    let processes = if table.count == 1 { "process" } else { "processes" };
    write!(out, "\n  {} {processes} with {}", table.count, Size(table.rss_bytes))?;
    let mut between = ": ";
    for row in &table.largest {
        write!(out, "{between}{}[{}] {}", plain(&row.comm), row.pid, Size(row.rss_bytes))?;
        if row.oom_score_adj != 0 {
            write!(out, " (adj {})", row.oom_score_adj)?;
        }
        between = ", ";
    }
    Ok(())
}

/// A sentence. `limit_bytes` is that of the cgroup that ran out.
pub(crate) fn write_finding(finding: &Finding, limit_bytes: Option<u64>, out: &mut String) -> fmt::Result {
    let size = finding.bytes.map_or_else(String::new, |bytes| Size(bytes).to_string());
    match finding.id {
        FindingId::AnonFillsLimit => write!(out, "not cache: {size} are the processes' own memory"),
        FindingId::ShmemLarge => {
            write!(out, "{size} are tmpfs or shared memory: files there outlive the process")
        }
        FindingId::KernelLarge => {
            write!(out, "{size} are the kernel's own memory")?;
            finding.part.map_or(Ok(()), |part| write!(out, ", above all {}", name_of(part)))
        }
        FindingId::CachePresent => {
            write!(out, "{size} of clean page cache were left: the kernel could not reclaim them")
        }
        FindingId::NoSwap => out.write_str("no swap: nothing could be moved out"),
        FindingId::LimitAboveVictim => {
            out.write_str("the limit is that of a pod or slice, not the container's")
        }
        FindingId::Bystander => {
            out.write_str("the victim was chosen by its oom_score_adj: larger is ")?;
            write_process(finding, &size, out)
        }
        FindingId::ProtectedLargest => {
            out.write_str("the largest process is protected: ")?;
            write_process(finding, &size, out)
        }
        FindingId::ChildKilledContainerLives => {
            out.write_str("the container lives on without it: its first process ")?;
            write_task(finding.comm.as_deref(), finding.pid, out)?;
            out.write_str(" is still there")
        }
        FindingId::HeapFlagOverLimit => {
            let option = match finding.option {
                Some(HeapOption::Xmx) => "-Xmx",
                Some(HeapOption::MaxRamPercentage) => "-XX:MaxRAMPercentage",
                Some(HeapOption::MaxOldSpaceSize) => "--max-old-space-size",
                None => "an option",
            };
            write!(out, "{option} allows a heap of {size}")?;
            finding.percent.map_or(Ok(()), |percent| write!(out, "{percent} %"))?;
            match (finding.bytes, limit_bytes) {
                (Some(heap), Some(limit)) if heap >= limit => write!(
                    out,
                    ", and the limit is {}: the kernel kills before the program itself can run out",
                    Size(limit)
                ),
                _ => out.write_str(": little of the limit is left for the rest of the process"),
            }
        }
        FindingId::MemoryStays => {
            write!(out, "{size} stay after the kill: the next one may follow soon")
        }
        FindingId::HostNotFull => {
            out.write_str("the host need not have been full:")?;
            finding.order.map_or(Ok(()), |order| write!(out, " 2^{order} pages in a row"))?;
            let and = if finding.order.is_some() { "," } else { "" };
            finding.bytes.map_or(Ok(()), |_| write!(out, "{and} {size} were free"))
        }
    }
}

fn write_process(finding: &Finding, size: &str, out: &mut String) -> fmt::Result {
    write_task(finding.comm.as_deref(), finding.pid, out)?;
    write!(out, " with {size}")?;
    finding.oom_score_adj.map_or(Ok(()), |adj| write!(out, " (adj {adj})"))
}

fn name_of(part: Part) -> &'static str {
    match part {
        Part::KernelStack => "kernel stacks: many threads",
        Part::Pagetables => "page tables",
        Part::SlabReclaimable => "slab that can be reclaimed: dentries and inodes",
        Part::SlabUnreclaimable => "slab that cannot be reclaimed",
        Part::Sock => "buffers of sockets",
        Part::Percpu => "memory for each processor",
    }
}

/// Nanoseconds, in ms or s.
pub(crate) struct Time(pub(crate) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0 / 100_000;
        match tenths {
            0..10_000 => write!(f, "{}.{} ms", tenths / 10, tenths % 10),
            _ => write!(f, "{}.{} s", tenths / 10_000, tenths / 1000 % 10),
        }
    }
}
