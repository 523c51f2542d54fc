//! The victim's memory: three readings of the same counters, moments apart.

use super::fields::Fields;
use super::{Difference, HostFacts};
use crate::kernel_log::{Killed, LoggedKill};
use crate::tracer::Line;

/// Where the victim is while the killer looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dies {
    /// It runs the killer itself, so its counters stand still.
    Here,
    /// On another processor, perhaps: its counters move between one reading and the next.
    Elsewhere,
}

/// What differs between a line's memory figures and the kernel's, for a victim of which nothing is known.
pub fn memory(line: &Line, log: &LoggedKill, host: &HostFacts) -> Vec<Difference> {
    let mut fields = Fields::new(line);
    victim_memory(&mut fields, log, host, Dies::Elsewhere);
    fields.differences
}

/// The kernel's trace event comes first, then oomtrace's reading, then the log. The figures are the trace event's. The
/// log says the same, or it adds to each counter what the processors hold back from it: then it may differ by that
/// much. Without a trace event the log's are what there is. Those of a victim that dies meanwhile lie between the two,
/// but for what it had held back.
pub(super) fn victim_memory(fields: &mut Fields<'_>, log: &LoggedKill, host: &HostFacts, dies: Dies) {
    let killed = &log.killed;
    let bytes = |kilobytes: u64| i128::from(kilobytes) * 1024;
    let marked = log.marked.as_ref();
    for (name, logged, marked, counter) in [
        ("total_vm", killed.total_vm_kb, marked.map(|marked| marked.total_vm_kb), false),
        ("anon_rss", killed.anon_kb, marked.map(|marked| marked.anon_kb), true),
        ("file_rss", killed.file_kb, marked.map(|marked| marked.file_kb), true),
        ("shmem_rss", killed.shmem_kb, marked.map(|marked| marked.shmem_kb), true),
        ("pgtables", killed.pgtables_kb, marked.map(|marked| marked.pgtables_kb), false),
    ] {
        let key = format!("victim.memory.{name}_bytes");
        let truth = marked.unwrap_or(logged);
        let source = if marked.is_some() { "trace event" } else { "kernel log" };
        let slack = held_back_bytes(host, dies);
        if dies == Dies::Elsewhere && counter {
            let (least, most) = (bytes(truth.min(logged)) - slack, bytes(truth.max(logged)) + slack);
            fields.between(&key, source, least, most);
        } else {
            fields.number(&key, source, bytes(truth));
            let slack = if counter && truth != logged { slack } else { 0 };
            fields.between(&key, "kernel log", bytes(logged) - slack, bytes(logged) + slack);
        }
    }
    let parts = ["anon_rss", "file_rss", "shmem_rss"]
        .iter()
        .map(|name| fields.own_number(&format!("victim.memory.{name}_bytes")))
        .sum::<Option<i128>>();
    match parts {
        Some(parts) => fields.number("victim.memory.rss_bytes", "its parts add up to", parts),
        None => fields.present("victim.memory.rss_bytes", "the contract"),
    }
}

/// Since then each processor holds back a part of a process's counters. Before, each thread did, and gave it up when it
/// ended.
const PER_PROCESSOR: (u32, u32) = (6, 2);
/// How many changes a thread held back (`TASK_RSS_EVENTS_THRESH`, mm/memory.c).
const PER_THREAD: i128 = 64;

/// What two readings of a counter may differ by: what all processors together hold back (`percpu_counter_batch`,
/// lib/percpu_counter.c), or what a thread did.
pub(super) fn held_back_bytes(host: &HostFacts, dies: Dies) -> i128 {
    let page = i128::from(host.page_bytes);
    let processors = i128::from(host.processors);
    match (version(&host.kernel) < Some(PER_PROCESSOR), dies) {
        (true, Dies::Here) => 0,
        (true, Dies::Elsewhere) => PER_THREAD * page,
        (false, _) => (2 * processors).max(32) * processors * page,
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn rss_kb(killed: &Killed) -> u64 {
    killed.anon_kb + killed.file_kb + killed.shmem_kb
}
