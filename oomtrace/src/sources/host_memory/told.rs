//! The event of a run.

use super::{HostRuns, Run, Walked, ranking::User};
use crate::{
    cgroups::tree::CgroupTree,
    enrich::{absent::Absent, enricher::Enricher},
    event::{
        Absence, Container, Envelope, HostEvidence, HostMemory, HostTotals, HostVictim, IncidentVictim, K8s,
        Lru, Missing, Reason, Scope, Systemd, TopUser, Why, text_from_kernel,
    },
    facts::Limit,
};

/// What the run's incident says too.
#[derive(Debug)]
pub(in crate::sources) struct Told {
    pub(in crate::sources) id: u64,
    pub(in crate::sources) stream: Option<String>,
    pub(in crate::sources) of: Vec<u64>,
    pub(in crate::sources) killed: u64,
    pub(in crate::sources) scope: Option<Scope>,
    pub(in crate::sources) victim: IncidentVictim,
    pub(in crate::sources) container: Option<Container>,
    pub(in crate::sources) k8s: Option<K8s>,
    pub(in crate::sources) systemd: Option<Systemd>,
    /// Why facts of these are absent.
    pub(in crate::sources) missing: Missing,
    /// What the kernel's report says of the host, or why it says nothing.
    pub(in crate::sources) report: Result<HostTotals, Why>,
    pub(in crate::sources) truncated: Vec<String>,
}

/// Keys of an incident that this line has too.
const SAME_KEYS: [&str; 5] = ["scope", "victim.pid", "victim.comm", "container", "k8s"];

impl HostRuns {
    /// The event of a run; `None` if too many other runs came since.
    pub(in crate::sources) fn told(&self, told: Told, enricher: &mut Enricher) -> Option<HostMemory> {
        let run = self.take(told.id, told.stream.as_deref())?;
        let envelope = enricher.own_envelope();
        Some(event(run, told, envelope, enricher.tree()))
    }
}

fn event(run: Run, told: Told, envelope: Envelope, tree: &CgroupTree) -> HostMemory {
    let mut absent = Absent::default();
    absent.all(&told.missing.into_iter().filter(is_here).collect::<Vec<Absence>>());
    let memory = memory(told.report, run.meminfo, &mut absent);
    let walked = absent.known(run.walked.unwrap_or(Err(Reason::NotRead.into())), "charged");
    if walked.is_none() {
        absent.because("top", Reason::NotRead);
        absent.because("killed_largest", Reason::NotRead);
    }
    let usage = walked.as_ref().and_then(|walked| walked.ranking.victim).map(|user| user.usage_bytes);
    let victim = HostVictim {
        pid: told.victim.pid,
        comm: told.victim.comm,
        oom_score_adj: absent.unless(run.oom_score_adj, "victim.oom_score_adj", Reason::NotReadInKernel),
        usage_bytes: absent.unless(usage, "victim.usage_bytes", Reason::NotRead),
    };
    let order = absent.unless(run.order, "order", Reason::NotReadInKernel);
    let killed_largest =
        walked.as_ref().map(|walked| walked.ranking.top.first().is_some_and(|user| user.killed));
    let (charged, top) = match walked {
        Some(Walked { ranking, charged }) => {
            absent.unless(charged.usage_bytes, "charged.usage_bytes", Reason::NotReadInKernel);
            absent.unless(charged.removed.as_ref(), "charged.removed", Reason::NotReadInKernel);
            (Some(charged), ranking.top.iter().map(|user| named(user, tree)).collect())
        }
        None => (None, Vec::new()),
    };
    HostMemory {
        envelope: Envelope {
            // The next run may report the kill again, and then this too.
            id: told.stream.as_ref().map(|stream| format!("{stream}-host-{}", told.id)),
            stream: told.stream,
            ..envelope
        },
        of: told.of,
        killed: told.killed,
        scope: told.scope,
        order,
        victim,
        memory,
        charged,
        top,
        killed_largest,
        container: told.container,
        k8s: told.k8s,
        systemd: told.systemd,
        truncated: told.truncated,
        missing: absent.into_missing(),
    }
}

fn is_here(absence: &Absence) -> bool {
    let key = &*absence.key;
    SAME_KEYS
        .iter()
        .any(|same| key.strip_prefix(same).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// The memory of the host: by the kernel's report, else by `/proc/meminfo`. What a kill does not change, and the report does not have, is
/// from there in both cases.
fn memory(
    report: Result<HostTotals, Why>,
    meminfo: Result<HostTotals, String>,
    absent: &mut Absent,
) -> Option<HostTotals> {
    let mut memory = match (report, meminfo) {
        (Ok(report), Ok(meminfo)) => HostTotals {
            total_bytes: meminfo.total_bytes,
            kernel_stack_bytes: meminfo.kernel_stack_bytes,
            vmalloc_bytes: meminfo.vmalloc_bytes,
            percpu_bytes: meminfo.percpu_bytes,
            hugetlb_bytes: meminfo.hugetlb_bytes,
            ..report
        },
        (Ok(report), Err(_)) => report,
        (Err(_), Ok(meminfo)) => meminfo,
        (Err(why), Err(error)) => {
            let detail =
                format!("{}; {error}", why.detail.as_deref().unwrap_or("no report in the kernel log"));
            absent.because("memory", Why::with(why.reason, detail));
            return None;
        }
    };
    memory.unexplained_bytes = unexplained(&memory);
    absences(&memory, absent);
    Some(memory)
}

/// What is in no counter. Never forced to a number: absent if a part is not known, or if the parts are more than all.
fn unexplained(memory: &HostTotals) -> Option<u64> {
    let Lru { anon_bytes, file_bytes, unevictable_bytes } = memory.lru;
    // Kernel stacks are in the other on most kernels.
    let mapped = memory.vmalloc_bytes?.max(memory.kernel_stack_bytes?);
    let parts = [
        memory.free_bytes?,
        anon_bytes?,
        file_bytes?,
        unevictable_bytes?,
        memory.slab_reclaimable_bytes?,
        memory.slab_unreclaimable_bytes?,
        memory.pagetables_bytes?,
        mapped,
        memory.percpu_bytes?,
        memory.hugetlb_bytes?,
    ];
    parts.into_iter().try_fold(memory.total_bytes?, u64::checked_sub)
}

fn absences(memory: &HostTotals, absent: &mut Absent) {
    let why = match memory.evidence {
        HostEvidence::KernelLog => Reason::NotInKernelLog,
        HostEvidence::Meminfo => Reason::NotRead,
    };
    for (fact, key) in [
        (memory.total_bytes, "memory.total_bytes"),
        (memory.free_bytes, "memory.free_bytes"),
        (memory.lru.anon_bytes, "memory.lru.anon_bytes"),
        (memory.lru.file_bytes, "memory.lru.file_bytes"),
        (memory.lru.unevictable_bytes, "memory.lru.unevictable_bytes"),
        (memory.file_bytes, "memory.file_bytes"),
        (memory.shmem_bytes, "memory.shmem_bytes"),
        (memory.slab_reclaimable_bytes, "memory.slab_reclaimable_bytes"),
        (memory.slab_unreclaimable_bytes, "memory.slab_unreclaimable_bytes"),
        (memory.pagetables_bytes, "memory.pagetables_bytes"),
        (memory.kernel_stack_bytes, "memory.kernel_stack_bytes"),
        (memory.vmalloc_bytes, "memory.vmalloc_bytes"),
        (memory.percpu_bytes, "memory.percpu_bytes"),
        (memory.hugetlb_bytes, "memory.hugetlb_bytes"),
        (memory.swap_total_bytes, "memory.swap_total_bytes"),
        (memory.swap_free_bytes, "memory.swap_free_bytes"),
    ] {
        absent.unless(fact, key, why);
    }
    absent.unless(memory.unexplained_bytes, "memory.unexplained_bytes", Reason::NotRead);
}

/// Who it is, by what is known already: no file is read.
fn named(user: &User, tree: &CgroupTree) -> TopUser {
    let identity = tree.identify_known(user.id).unwrap_or_default();
    let container = identity.container.map(|container| Container {
        image: None,
        restart_count: None,
        label: std::collections::BTreeMap::new(),
        ..container
    });
    // A plain cgroup is in no unit of its own: the innermost slice above it says little.
    let is_unit = tree.is_owner(user.id) || user.removed;
    let systemd = identity.systemd.filter(|_| is_unit && container.is_none());
    let has_name = container.is_some() || systemd.is_some();
    TopUser {
        usage_bytes: user.usage_bytes,
        limit_bytes: match user.max {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) | None => None,
        },
        unlimited: user.max == Some(Limit::Unlimited),
        killed: user.killed,
        removed: user.removed,
        without_below: user.without_below,
        k8s: identity.k8s,
        path: tree.path_of(user.id).filter(|_| !has_name).as_deref().map(text_from_kernel),
        container,
        systemd,
        id: user.id.to_string(),
    }
}
