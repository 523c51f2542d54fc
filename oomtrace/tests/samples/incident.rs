//! The end of a run of the OOM killer.

use oomtrace::event::*;

use super::{cgroup, container, history, repeatable};

pub fn incident() -> Incident {
    Incident {
        envelope: repeatable(Origin::Oomtrace, "incident-42"),
        of: vec![42],
        killed: 1,
        scope: Some(Scope::Memcg),
        victim: IncidentVictim { pid: Some(2990), comm: Some("python3".into()) },
        cgroup: Some(IncidentCgroup {
            cgroup: cgroup(),
            limit_bytes: Some(52428800),
            usage_bytes: Some(52424704),
            memory: Some(cgroup_memory()),
        }),
        process_table: Some(ProcessTable {
            evidence: TableEvidence::KernelLog,
            count: 2,
            rss_bytes: 58195968,
            largest: vec![row(2990, "python3", 55050240), row(2967, "sh", 3145728)],
        }),
        released: Released {
            after_ns: Some(10284000),
            reaper: Some(Reaper::NotNeeded),
            usage_bytes: Some(9101312),
        },
        before: Some(history::before()),
        recurrence: Some(history::recurrence()),
        findings: vec![
            Finding::of_bytes(FindingId::AnonFillsLimit, 47185920),
            Finding::new(FindingId::NoSwap),
            Finding {
                option: Some(HeapOption::Xmx),
                ..Finding::of_bytes(FindingId::HeapFlagOverLimit, 52428800)
            },
        ],
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

fn row(pid: u32, comm: &str, rss_bytes: u64) -> TableRow {
    TableRow { pid, comm: comm.into(), rss_bytes, oom_score_adj: 0 }
}

fn cgroup_memory() -> CgroupMemory {
    CgroupMemory {
        evidence: MemoryEvidence::KernelLog,
        anon_bytes: Some(47185920),
        file_bytes: Some(4665344),
        shmem_bytes: Some(4194304),
        kernel_bytes: Some(573440),
        kernel_stack_bytes: Some(147456),
        pagetables_bytes: Some(258048),
        slab_reclaimable_bytes: Some(90112),
        slab_unreclaimable_bytes: Some(77536),
        sock_bytes: Some(0),
        percpu_bytes: Some(288),
        file_dirty_bytes: Some(0),
        file_writeback_bytes: Some(0),
        lru: Lru { anon_bytes: Some(51380224), file_bytes: Some(471040), unevictable_bytes: Some(0) },
    }
}

/// An incident of a group kill of which little is known.
pub fn incident_of_many() -> Incident {
    let mut event = incident();
    event.envelope = repeatable(Origin::Oomtrace, "incident-50");
    event.of = (50..114).collect();
    event.killed = 80;
    event.truncated = vec!["of".into()];
    if let Some(cgroup) = &mut event.cgroup {
        cgroup.memory = None;
    }
    event.process_table = None;
    event.before = None;
    event.recurrence = None;
    event.findings = Vec::new();
    event.released = Released { reaper: Some(Reaper::Failed), ..Released::default() };
    event.missing = [
        ("before", Reason::NotSampled),
        ("cgroup.memory", Reason::MemoryChanged),
        ("process_table", Reason::LogRateLimited),
        ("released.after_ns", Reason::StillThere),
        ("released.usage_bytes", Reason::StillThere),
    ]
    .map(|(key, reason)| Absence::new(key, reason))
    .into();
    event
}
