//! What the memory was, which processes there were, and when it was free again.

use super::curve::bar;
use crate::{
    event::{CgroupMemory, Incident, IncidentCgroup, MemoryEvidence, ProcessTable, Reaper, Released},
    outputs::encode::text::{Size, incident::Time, plain},
};

/// Characters of a bar.
const BAR: usize = 20;

/// What filled the cgroup whose limit fired: a row for each part.
pub(super) fn parts(cgroup: &IncidentCgroup) -> Vec<String> {
    let size =
        |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| Size(bytes).to_string());
    let total = format!("{} of {}", size(cgroup.usage_bytes), size(cgroup.limit_bytes));
    let Some(memory) = &cgroup.memory else {
        return vec![format!("{total}: what it was is not known")];
    };
    let evidence = match memory.evidence {
        MemoryEvidence::KernelLog => "the kernel's own report, from before the kill",
        MemoryEvidence::Cgroupfs => "its files, read while nothing was given back yet",
    };
    let mut rows = vec![format!("{total} ({evidence})")];
    let whole = cgroup.limit_bytes.or(cgroup.usage_bytes);
    rows.extend(named(memory).into_iter().filter_map(|(name, bytes)| {
        let bytes = bytes?;
        let share = whole.filter(|whole| *whole > 0).map(|whole| {
            let percent = match u128::from(bytes) * 100 / u128::from(whole) {
                0 if bytes > 0 => "<1".to_owned(),
                percent => percent.to_string(),
            };
            format!("{percent:>4} %  {}", bar(bytes, whole, BAR))
        });
        Some(
            format!("{name:<28}{:>12} {}", Size(bytes).to_string(), share.unwrap_or_default())
                .trim_end()
                .to_owned(),
        )
    }));
    rows
}

fn named(memory: &CgroupMemory) -> [(&'static str, Option<u64>); 10] {
    let cache = memory.file_bytes.zip(memory.shmem_bytes).map(|(file, shmem)| file.saturating_sub(shmem));
    // A part of the kernel's memory is told where it is more than nothing.
    let some = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    [
        ("memory of processes (anon)", memory.anon_bytes),
        ("tmpfs or shared memory", memory.shmem_bytes),
        ("page cache", cache),
        ("kernel", memory.kernel_bytes),
        ("  kernel stacks", some(memory.kernel_stack_bytes)),
        ("  page tables", some(memory.pagetables_bytes)),
        ("  slab, reclaimable", some(memory.slab_reclaimable_bytes)),
        ("  slab, other", some(memory.slab_unreclaimable_bytes)),
        ("  for each processor", some(memory.percpu_bytes)),
        ("buffers of sockets", some(memory.sock_bytes)),
    ]
}

/// The processes that the killer could choose from, the largest first.
pub(super) fn processes(table: &ProcessTable, incident: &Incident) -> Vec<String> {
    let victim = incident.victim.pid;
    let count = if table.count == 1 { "process" } else { "processes" };
    let mut rows = vec![format!("{} {count} with {}", table.count, Size(table.rss_bytes))];
    let usage = incident.cgroup.as_ref().and_then(|cgroup| cgroup.usage_bytes);
    if usage.is_some_and(|usage| table.rss_bytes > usage) {
        rows.push(
            "that is more than the usage: shared pages count twice, and files may be charged to others"
                .into(),
        );
    }
    rows.extend(table.largest.iter().map(|row| {
        let name = format!("{}[{}]", plain(&row.comm), row.pid);
        let adj = if row.oom_score_adj == 0 {
            String::new()
        } else {
            format!("  oom_score_adj {}", row.oom_score_adj)
        };
        let killed = if victim == Some(row.pid) { "  killed" } else { "" };
        format!("{name:<28}{:>12}{killed}{adj}", Size(row.rss_bytes).to_string())
    }));
    let named = u64::try_from(table.largest.len()).unwrap_or(u64::MAX);
    if table.count > named {
        rows.push(format!("and {} smaller ones", table.count - named));
    }
    rows
}

/// When the memory was free.
pub(super) fn released(released: &Released, killed: u64) -> String {
    let mut text = match released.after_ns {
        Some(ns) if killed > 1 => format!("all {killed} victims were gone after {}", Time(ns)),
        Some(ns) => format!("the victim was gone after {}", Time(ns)),
        None => "when the memory was free is not known".to_owned(),
    };
    if let Some(left) = released.usage_bytes {
        text += &format!("; the cgroup then held {}", Size(left));
    }
    text += match released.reaper {
        Some(Reaper::Reaped) => "; the kernel's reaper had to free it",
        Some(Reaper::Failed) => "; the kernel's reaper failed",
        Some(Reaper::NotNeeded) | None => "",
    };
    text
}
