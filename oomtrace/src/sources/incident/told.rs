//! The event of a run: what its first kill said, and what was found out since.

use super::{evidence::Evidence, first_process, memory::RanOut, stuck::StuckRun};
use crate::{
    cgroups::tree::CgroupTree,
    enrich::{
        absent::Absent,
        findings::{Facts, Heap, findings, heaps},
    },
    event::{
        Absence, Before, CgroupMemory, Container, Envelope, Incident, IncidentCgroup, IncidentVictim, K8s,
        Kill, Lru, Missing, OomCgroup, OomKill, Reason, Recurrence, Released, Scope, Systemd, Why,
    },
    facts::CgroupId,
    sources::{history::Snapshot, host_memory},
};

/// The most kills that a line names.
const OF_MAX: usize = 64;

/// Keys of a kill that an incident has too, and what they are called there.
const SAME_KEYS: [(&str, &str); 6] = [
    ("oom.cgroup", "cgroup"),
    ("oom.scope", "scope"),
    ("victim.pid", "victim.pid"),
    ("victim.comm", "victim.comm"),
    ("container", "container"),
    ("k8s", "k8s"),
];

/// Of `oom.cgroup`, what an incident has too.
const OF_CGROUP: [&str; 5] = ["", ".path", ".id", ".limit_bytes", ".usage_bytes"];

/// What the kills of a run said.
#[derive(Debug)]
pub(super) struct Run {
    /// The `oom.id` of its kills; of one without, its `seq`.
    pub(super) id: u64,
    pub(super) stream: Option<String>,
    of: Vec<u64>,
    killed: u64,
    scope: Option<Scope>,
    victim: IncidentVictim,
    cgroup: Option<IncidentCgroup>,
    /// The cgroup whose files are read.
    pub(super) ran_out: Option<RanOut>,
    container: Option<Container>,
    k8s: Option<K8s>,
    systemd: Option<Systemd>,
    missing: Missing,
    more: More,
    /// Whether it is kept how memory went.
    has_history: bool,
    before: Option<Box<Snapshot>>,
    recurrence: Option<Recurrence>,
}

/// What only findings need.
#[derive(Debug, Default)]
struct More {
    swap_limit_bytes: Option<u64>,
    memsw_limit_bytes: Option<u64>,
    victim_cgroup: Option<String>,
    victim_rss_bytes: Option<u64>,
    selected: bool,
    order: Option<i32>,
    heaps: Vec<Heap>,
}

impl More {
    fn of(kill: &OomKill) -> Self {
        let fired = kill.oom.cgroup.as_ref();
        let cut = kill.truncated.iter().any(|key| key == "victim.command_line");
        let command_line = kill.victim.command_line.as_deref();
        Self {
            swap_limit_bytes: fired.and_then(|fired| fired.swap_limit_bytes),
            memsw_limit_bytes: fired.and_then(|fired| fired.memsw_limit_bytes),
            victim_cgroup: kill.victim.cgroup.path.clone(),
            victim_rss_bytes: kill.victim.memory.rss_bytes,
            selected: kill.oom.kill == Some(Kill::Selected),
            order: kill.oom.order,
            heaps: command_line.map(|text| heaps(text, cut)).unwrap_or_default(),
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            swap_limit_bytes: self.swap_limit_bytes,
            memsw_limit_bytes: self.memsw_limit_bytes,
            victim_cgroup: self.victim_cgroup.as_deref(),
            victim_rss_bytes: self.victim_rss_bytes,
            selected: self.selected,
            heaps: &self.heaps,
            order: self.order,
            ..Facts::default()
        }
    }
}

impl Run {
    /// A run with this kill.
    pub(super) fn of(kill: &OomKill, tree: &CgroupTree) -> Self {
        let seq = kill.envelope.seq.unwrap_or_default();
        let fired = kill.oom.cgroup.as_ref();
        Self {
            id: kill.run(),
            stream: kill.envelope.stream.clone(),
            of: vec![seq],
            killed: 1,
            scope: kill.oom.scope,
            victim: IncidentVictim { pid: kill.victim.pid, comm: kill.victim.comm.clone() },
            cgroup: fired.map(|fired| IncidentCgroup {
                cgroup: fired.cgroup.clone(),
                limit_bytes: fired.limit_bytes,
                usage_bytes: fired.usage_bytes,
                memory: None,
            }),
            ran_out: fired.and_then(|fired| ran_out(fired, tree)),
            container: kill.container.clone(),
            k8s: kill.k8s.clone(),
            systemd: kill.systemd.clone(),
            missing: kill.missing.iter().filter_map(same_key).collect(),
            more: More::of(kill),
            has_history: false,
            before: None,
            recurrence: None,
        }
    }

    /// The same, with what is known of the time before.
    pub(super) fn with(self, (before, recurrence): (Option<Box<Snapshot>>, Option<Recurrence>)) -> Self {
        Self { has_history: true, before, recurrence, ..self }
    }

    /// Adds another kill of this run.
    pub(super) fn add(&mut self, other: &Self) {
        self.killed += other.killed;
        let room = OF_MAX.saturating_sub(self.of.len());
        self.of.extend(other.of.iter().take(room));
    }

    /// Whether this kill is in it.
    pub(super) fn has(&self, stream: Option<&str>, seq: u64) -> bool {
        self.stream.as_deref() == stream && self.of.contains(&seq)
    }

    /// What shares its room: the cgroup that ran out.
    pub(super) fn key(&self) -> String {
        let fired = self.cgroup.as_ref().and_then(|fired| fired.cgroup.id.clone());
        fired.unwrap_or_else(|| "host".to_owned())
    }

    /// The path of the cgroup of the victim's container.
    pub(super) fn container_cgroup(&self) -> Option<&str> {
        let container = self.container.as_ref()?;
        first_process::cgroup_of(self.more.victim_cgroup.as_deref()?, &container.id)
    }

    /// Its size in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let container = self.container.as_ref().map_or(0, |container| {
            let label = container.label.iter().map(|(key, value)| key.len() + value.len() + 48);
            let image = container.image.as_ref().map_or(0, |image| image.name.len());
            container.id.len() + image + label.sum::<usize>() + 64 * container.nested.len() + 256
        });
        let path = self.ran_out.as_ref().map_or(0, |cgroup| 2 * cgroup.bytes());
        let unit = self.systemd.as_ref().map_or(0, |systemd| systemd.unit.len());
        let cgroup = self.more.victim_cgroup.as_ref().map_or(0, String::len);
        let before = self.before.as_ref().map_or(0, |_| Snapshot::BYTES);
        size_of::<Self>() + before + container + path + cgroup + unit + 64 * self.missing.len() + 1024
    }

    /// How memory went before, and why there is nothing.
    fn before(&self, absent: &mut Absent) -> Option<Before> {
        if !self.has_history {
            for key in ["before", "recurrence"] {
                absent.because(key, Why::with(Reason::LeftOut, "--history off"));
            }
            return None;
        }
        if self.recurrence.is_none() {
            absent.because("recurrence", Reason::CgroupPathUnknown);
        }
        if self.before.is_none() {
            absent.because("before", Reason::NotSampled);
        }
        self.before.as_ref()?.told(absent)
    }

    /// What the line of the host's memory says too; `None` if a cgroup's limit fired.
    pub(super) fn host(&self, evidence: &Evidence) -> Option<host_memory::Told> {
        host_memory::is_of_host(self.scope).then(|| host_memory::Told {
            id: self.id,
            stream: self.stream.clone(),
            of: self.of.clone(),
            killed: self.killed,
            scope: self.scope,
            victim: self.victim.clone(),
            container: self.container.clone(),
            k8s: self.k8s.clone(),
            systemd: self.systemd.clone(),
            missing: self.missing.clone(),
            report: evidence.host.clone(),
            truncated: self.truncated(),
        })
    }

    /// What a line of victims that are still there says too.
    pub(super) fn stuck(&self) -> StuckRun {
        StuckRun {
            stream: self.stream.clone(),
            of: self.of.clone(),
            truncated: self.truncated(),
            container: self.container.clone(),
            k8s: self.k8s.clone(),
            systemd: self.systemd.clone(),
            missing: self.missing.clone(),
        }
    }

    fn truncated(&self) -> Vec<String> {
        let named = u64::try_from(self.of.len()).unwrap_or(u64::MAX);
        if named < self.killed { vec!["of".to_owned()] } else { Vec::new() }
    }

    /// The event.
    pub(super) fn told(self, evidence: Evidence, envelope: Envelope) -> Incident {
        let mut absent = Absent::default();
        absent.all(&self.missing);
        let Evidence {
            memory, processes, after_ns, reaper, usage_bytes, zones, host_swap_bytes, lives, ..
        } = evidence;
        let truncated = self.truncated();
        let before = self.before(&mut absent);
        let cgroup = with_memory(self.cgroup, memory, &mut absent);
        let usage_bytes = match &cgroup {
            Some(_) => absent.known(usage_bytes, "released.usage_bytes"),
            None => None,
        };
        let released = Released {
            after_ns: absent.known(after_ns, "released.after_ns"),
            reaper: absent.known(reaper, "released.reaper"),
            usage_bytes,
        };
        let process_table = absent.known(processes, "process_table");
        let findings = findings(&Facts {
            scope: self.scope,
            limit_bytes: cgroup.as_ref().and_then(|cgroup| cgroup.limit_bytes),
            host_swap_bytes: Some(host_swap_bytes),
            zones,
            memory: cgroup.as_ref().and_then(|cgroup| cgroup.memory.as_ref()),
            table: process_table.as_ref(),
            fired: cgroup.as_ref().and_then(|cgroup| cgroup.cgroup.path.as_deref()),
            container: self.container.as_ref().map(|container| container.id.as_str()),
            victim_pid: self.victim.pid,
            lives: lives.as_ref().map(|first| (first.pid, first.comm.as_str())),
            left_bytes: released.usage_bytes,
            ..self.more.facts()
        });
        Incident {
            envelope: of_stream(envelope, self.stream, &self.of),
            truncated,
            of: self.of,
            killed: self.killed,
            scope: self.scope,
            victim: self.victim,
            cgroup,
            process_table,
            released,
            before,
            recurrence: self.recurrence,
            findings,
            container: self.container,
            k8s: self.k8s,
            systemd: self.systemd,
            missing: absent.into_missing(),
        }
    }
}

/// The cgroup whose limit fired, with what its memory was.
fn with_memory(
    cgroup: Option<IncidentCgroup>,
    memory: Result<CgroupMemory, Why>,
    absent: &mut Absent,
) -> Option<IncidentCgroup> {
    let Some(cgroup) = cgroup else {
        absent.because("cgroup", Reason::NoLimitFired);
        return None;
    };
    let memory = absent.known(memory, "cgroup.memory");
    if let Some(memory) = &memory {
        absences(memory, absent);
    }
    Some(IncidentCgroup { memory, ..cgroup })
}

/// The next run may report the kill again, and then its incident too.
fn of_stream(envelope: Envelope, stream: Option<String>, of: &[u64]) -> Envelope {
    let first = of.first().copied().unwrap_or_default();
    Envelope { id: stream.as_ref().map(|stream| format!("{stream}-incident-{first}")), stream, ..envelope }
}

/// The cgroup, if its id and its path are known.
fn ran_out(fired: &OomCgroup, tree: &CgroupTree) -> Option<RanOut> {
    let id = fired.cgroup.id.as_ref()?.parse().ok()?;
    let path = tree.path_of(CgroupId(id)).or_else(|| Some(fired.cgroup.path.clone()?.into_bytes()))?;
    Some(RanOut { path, id, usage_bytes: fired.usage_bytes })
}

/// A kill's absent fact, if an incident has the fact too.
fn same_key(absence: &Absence) -> Option<Absence> {
    let key = SAME_KEYS.iter().find_map(|(of_kill, of_incident)| {
        let rest = absence.key.strip_prefix(of_kill)?;
        let is_there = if *of_kill == "oom.cgroup" { OF_CGROUP.contains(&rest) } else { is_key(rest) };
        is_there.then(|| format!("{of_incident}{rest}"))
    })?;
    Some(Absence { key: key.into(), reason: absence.reason, detail: absence.detail.clone() })
}

fn is_key(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('.')
}

/// Why parts of the memory are absent: the kernel does not print them, or cut its report before them.
fn absences(memory: &CgroupMemory, absent: &mut Absent) {
    let why = match memory.evidence {
        crate::event::MemoryEvidence::KernelLog => Reason::NotInKernelLog,
        crate::event::MemoryEvidence::Cgroupfs => Reason::NotInCgroupFiles,
    };
    let Lru { anon_bytes, file_bytes, unevictable_bytes } = &memory.lru;
    for (fact, key) in [
        (&memory.anon_bytes, "cgroup.memory.anon_bytes"),
        (&memory.file_bytes, "cgroup.memory.file_bytes"),
        (&memory.shmem_bytes, "cgroup.memory.shmem_bytes"),
        (&memory.kernel_bytes, "cgroup.memory.kernel_bytes"),
        (&memory.kernel_stack_bytes, "cgroup.memory.kernel_stack_bytes"),
        (&memory.pagetables_bytes, "cgroup.memory.pagetables_bytes"),
        (&memory.slab_reclaimable_bytes, "cgroup.memory.slab_reclaimable_bytes"),
        (&memory.slab_unreclaimable_bytes, "cgroup.memory.slab_unreclaimable_bytes"),
        (&memory.sock_bytes, "cgroup.memory.sock_bytes"),
        (&memory.percpu_bytes, "cgroup.memory.percpu_bytes"),
        (&memory.file_dirty_bytes, "cgroup.memory.file_dirty_bytes"),
        (&memory.file_writeback_bytes, "cgroup.memory.file_writeback_bytes"),
        (anon_bytes, "cgroup.memory.lru.anon_bytes"),
        (file_bytes, "cgroup.memory.lru.file_bytes"),
        (unevictable_bytes, "cgroup.memory.lru.unevictable_bytes"),
    ] {
        if fact.is_none() {
            absent.because(key, why);
        }
    }
}
