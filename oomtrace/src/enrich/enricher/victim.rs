//! The tasks of a kill: the victim, and the task in whose context the OOM killer ran.

use crate::{
    enrich::{
        absent::{Absent, not_in_proc},
        enricher::{Enricher, UNREAD, cgroup},
        oom::path_of_level,
    },
    event::{Cgroup, Lru, Reason, Tasks, Trigger, Victim, VictimCgroup, VictimMemory, text_from_kernel},
    facts::{BootTime, CgroupId, Lineage, LruFacts, MemoryFacts, OomKillFacts, TaskFacts},
    host::process::{self, ProcessFacts},
};

/// The latest victim, by the kernel's numbers: for a source that sees its event.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastVictim {
    /// The thread that was marked.
    pub tid: Option<u32>,
    /// Its process.
    pub tgid: Option<u32>,
    /// When the process started.
    pub start: Option<BootTime>,
    /// When it was marked, or got its signal.
    pub marked: BootTime,
}

impl LastVictim {
    pub(super) fn of(task: &TaskFacts, marked: BootTime) -> Self {
        Self { tid: task.tid, tgid: task.tgid, start: task.start, marked }
    }
}

impl Enricher {
    /// The victim of the latest `oom_kill` or `shared_mm_kill`.
    pub fn last_victim(&self) -> LastVictim {
        self.last_victim
    }

    /// The cgroups of the victim of the latest `oom_kill` with their usage at the kill, its own first.
    pub fn last_usages(&self) -> &[(CgroupId, Option<u64>)] {
        &self.last_usages
    }

    pub(super) fn keep_usages(&mut self, lineage: &Lineage) {
        self.last_usages.clear();
        self.last_usages.extend(lineage.levels.iter().map(|level| (level.id, level.usage_bytes)));
    }

    pub(super) fn victim(
        &self,
        facts: &OomKillFacts,
        path: Option<Vec<u8>>,
        process: ProcessFacts,
        absent: &mut Absent,
    ) -> Victim {
        let task = &facts.victim;
        let mut text = |key: &'static str, fact: Result<Vec<u8>, process::Reason>| match fact {
            Ok(bytes) => Some(text_from_kernel(&bytes)),
            Err(reason) => {
                absent.because(key, not_in_proc(&reason));
                None
            }
        };
        let executable = text("victim.executable", process.executable);
        let command_line = text("victim.command_line", process.command_line);
        Victim {
            pid: absent.unless(task.tgid, "victim.pid", UNREAD),
            tid: absent.unless(task.tid, "victim.tid", UNREAD),
            namespace_pid: absent.unless(task.namespace_tgid, "victim.namespace_pid", UNREAD),
            parent_pid: absent.unless(task.parent_tgid, "victim.parent_pid", UNREAD),
            comm: absent.unless(task.comm.as_deref().map(text_from_kernel), "victim.comm", UNREAD),
            executable,
            command_line,
            uid: absent.unless(task.uid, "victim.uid", UNREAD),
            start_time: absent.unless(
                task.start.map(|start| self.offset.rfc3339(start)),
                "victim.start_time",
                UNREAD,
            ),
            oom_score_adj: absent.unless(task.oom_score_adj, "victim.oom_score_adj", UNREAD),
            threads: absent.unless(facts.tasks.threads, "victim.threads", UNREAD),
            oom_score_bytes: None,
            memory: memory(&facts.memory, absent),
            cgroup: VictimCgroup {
                lru: absent.unless(facts.lru.map(lru), "victim.cgroup.lru", UNREAD),
                tasks: tasks(facts, absent),
                ..cgroup(task.memcg, path, ["victim.cgroup.path", "victim.cgroup.id"], absent).into()
            },
        }
    }

    pub(super) fn trigger(&self, task: &TaskFacts, absent: &mut Absent) -> Option<Trigger> {
        let path = task.memcg.and_then(|id| self.knowledge.tree.path_of(id));
        absent.unless(task.tgid, "trigger", UNREAD)?;
        Some(Trigger {
            pid: task.tgid,
            comm: absent.unless(task.comm.as_deref().map(text_from_kernel), "trigger.comm", UNREAD),
            oom_score_adj: absent.unless(task.oom_score_adj, "trigger.oom_score_adj", UNREAD),
            cgroup: cgroup(task.memcg, path, ["trigger.cgroup.path", "trigger.cgroup.id"], absent),
        })
    }
}

fn memory(facts: &MemoryFacts, absent: &mut Absent) -> VictimMemory {
    let rss = match (facts.anon_rss_bytes, facts.file_rss_bytes, facts.shmem_rss_bytes) {
        (Some(anon), Some(file), Some(shmem)) => Some(anon.saturating_add(file).saturating_add(shmem)),
        _ => None,
    };
    VictimMemory {
        rss_bytes: absent.unless(rss, "victim.memory.rss_bytes", UNREAD),
        anon_rss_bytes: absent.unless(facts.anon_rss_bytes, "victim.memory.anon_rss_bytes", UNREAD),
        file_rss_bytes: absent.unless(facts.file_rss_bytes, "victim.memory.file_rss_bytes", UNREAD),
        shmem_rss_bytes: absent.unless(facts.shmem_rss_bytes, "victim.memory.shmem_rss_bytes", UNREAD),
        swap_bytes: absent.unless(facts.swap_bytes, "victim.memory.swap_bytes", UNREAD),
        pgtables_bytes: absent.unless(facts.pgtables_bytes, "victim.memory.pgtables_bytes", UNREAD),
        total_vm_bytes: absent.unless(facts.total_vm_bytes, "victim.memory.total_vm_bytes", UNREAD),
    }
}

fn lru(facts: LruFacts) -> Lru {
    let LruFacts { anon_bytes, file_bytes, unevictable_bytes } = facts;
    Lru {
        anon_bytes: Some(anon_bytes),
        file_bytes: Some(file_bytes),
        unevictable_bytes: Some(unevictable_bytes),
    }
}

/// The tasks of the victim's cgroup of the pids hierarchy. That can be another than its memory cgroup: on cgroup v1, or
/// an ancestor's where the controller is not enabled below.
fn tasks(facts: &OomKillFacts, absent: &mut Absent) -> Option<Tasks> {
    const KEY: &str = "victim.cgroup.tasks";
    let tasks = &facts.tasks;
    let id = absent.unless(tasks.cgroup, KEY, UNREAD)?;
    if tasks.in_root {
        return absent.unless(None, KEY, Reason::RootCgroup);
    }
    let count = absent.unless(tasks.count, "victim.cgroup.tasks.count", UNREAD);
    let limit = match tasks.limit {
        Some(None) => absent.unless(None, "victim.cgroup.tasks.limit", Reason::NoLimit),
        limit => absent.unless(limit.flatten(), "victim.cgroup.tasks.limit", UNREAD),
    };
    let peak = absent.unless(tasks.peak, "victim.cgroup.tasks.peak", UNREAD);
    let own = tasks.in_memory_hierarchy && Some(id) == facts.victim.memcg;
    let path = || path_of_level(&facts.lineage, id).filter(|_| tasks.in_memory_hierarchy);
    let cgroup = (!own).then(|| Cgroup {
        path: absent.unless(path(), "victim.cgroup.tasks.cgroup.path", Reason::OtherHierarchy),
        id: Some(id.to_string()),
    });
    Some(Tasks { count, limit, peak, cgroup })
}
