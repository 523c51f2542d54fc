//! A process that died with a victim because it shares its memory.

use crate::{
    enrich::enricher::{Enricher, LastVictim, UNREAD, cgroup, seen},
    event::{Origin, SharedMmKill, SharedMmVictim, text_from_kernel},
    facts::{Lineage, SharedMmKillFacts},
};

impl Enricher {
    /// A process that died because it shares a victim's memory.
    pub fn shared_mm_kill(&mut self, facts: &SharedMmKillFacts) -> SharedMmKill {
        let mut absent = self.absent_here(&[]);
        self.turn_to(facts.time, &mut absent);
        self.last_victim = LastVictim::of(&facts.task, facts.time);
        let task = &facts.task;
        let path = task.memcg.and_then(|id| self.knowledge.tree.path_of(id));
        let (ids, no_lineage) = (Vec::from_iter(task.memcg), Lineage::default());
        let identity = self.identify(seen(&ids, &no_lineage, path.as_deref()), facts.time, &mut absent);
        let victim = SharedMmVictim {
            pid: absent.unless(task.tgid, "victim.pid", UNREAD),
            namespace_pid: absent.unless(task.namespace_tgid, "victim.namespace_pid", UNREAD),
            parent_pid: absent.unless(task.parent_tgid, "victim.parent_pid", UNREAD),
            comm: absent.unless(task.comm.as_deref().map(text_from_kernel), "victim.comm", UNREAD),
            uid: absent.unless(task.uid, "victim.uid", UNREAD),
            oom_score_adj: absent.unless(task.oom_score_adj, "victim.oom_score_adj", UNREAD),
            start_time: absent.unless(
                task.start.map(|start| self.offset.rfc3339(start)),
                "victim.start_time",
                UNREAD,
            ),
            cgroup: cgroup(task.memcg, path, ["victim.cgroup.path", "victim.cgroup.id"], &mut absent),
        };
        SharedMmKill {
            envelope: self.envelope(facts.time, Some(facts.seq), Origin::Ebpf),
            of: vec![facts.of],
            victim,
            container: identity.container,
            k8s: identity.k8s,
            systemd: identity.systemd,
            truncated: Vec::new(),
            missing: absent.into_missing(),
        }
    }
}
