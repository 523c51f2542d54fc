//! The victim's memory: the same counters, read three times within moments.

use super::fields::Fields;
use super::{Difference, HostFacts};
use crate::kernel_log::{Killed, LoggedKill};
use crate::tracer::Line;

/// Where the victim runs while the OOM killer reads its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dies {
    /// The victim runs the OOM killer itself, so its counters do not change.
    Here,
    /// Perhaps on another processor, so its counters may change between two readings.
    Elsewhere,
}

/// The differences between a line's memory figures and the kernel's, for an unknown victim.
pub fn memory(line: &Line, log: &LoggedKill, host: &HostFacts) -> Vec<Difference> {
    let mut fields = Fields::new(line);
    victim_memory(&mut fields, log, host, Dies::Elsewhere);
    fields.differences
}

/// The kernel's trace event comes first, then oomtrace's reading, then the log. oomtrace must report the
/// figures of the trace event. The log has the same, or adds to each counter what the processors hold back
/// from it, and may then differ by that much. Without a trace event the log is used. If the victim dies
/// meanwhile, its figures are between the two, except for what was held back.
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

/// Since this version each processor holds back a part of a process's counters. Before, each thread did, and
/// returned it when it ended.
const PER_PROCESSOR: (u32, u32) = (6, 2);
/// How many changes a thread held back (`TASK_RSS_EVENTS_THRESH`, mm/memory.c).
const PER_THREAD: i128 = 64;

/// How much two readings of a counter may differ: by what all processors together hold back
/// (`percpu_counter_batch`, lib/percpu_counter.c), or by what a thread did.
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
