//! A memory cgroup that ran out without a victim, from a record or from its files.

use crate::{
    cgroups::tree::Seen,
    enrich::{
        absent::Absent,
        enricher::{Enricher, UNREAD, ids_of, seen},
        keys, oom,
    },
    event::{self, Cgroup, Envelope, MemcgOomOutcome, Origin, Reason, text_from_kernel},
    facts::{Limit, MemcgOomFacts, OomWithoutKill},
    host::clock,
};

impl Enricher {
    /// A memory cgroup that ran out without a victim.
    pub fn memcg_oom(&mut self, facts: &MemcgOomFacts) -> event::MemcgOom {
        let mut absent = Absent::default();
        self.turn_to(facts.time, &mut absent);
        let context = self.context();
        let path = self.victim_path(&facts.lineage, facts.lineage.levels.first().map(|level| level.id));
        let cgroup = match facts.lineage.levels.first() {
            Some(_) => oom::cgroup::cgroup_of(&keys::CGROUP, &facts.lineage, 0, context.version, &mut absent),
            None => {
                absent.because("cgroup", UNREAD);
                event::OomCgroup::default()
            }
        };
        let killer = facts.oom.as_ref();
        let gfp_mask_raw = killer.and_then(|killer| killer.gfp_mask);
        let gfp_mask = gfp_mask_raw.and_then(|mask| Some(context.gfp?.names(mask)));
        let outcome = match facts.outcome {
            oomtrace_common::record::OUTCOME_NO_KILLABLE_PROCESS => Some(MemcgOomOutcome::NoKillableProcess),
            oomtrace_common::record::OUTCOME_RELIEVED => Some(MemcgOomOutcome::Relieved),
            oomtrace_common::record::OUTCOME_KILL_DISABLED => Some(MemcgOomOutcome::KillDisabled),
            _ => None,
        };
        absent.unless(gfp_mask_raw, "gfp_mask_raw", UNREAD);
        let no_names = if gfp_mask_raw.is_some() { Reason::NoFlagNames } else { UNREAD };
        absent.unless(gfp_mask.as_ref(), "gfp_mask", no_names);
        let ids = ids_of(&facts.lineage, None);
        let identity = self.identify(seen(&ids, &facts.lineage, path.as_deref()), facts.time, &mut absent);
        let mut envelope = self.envelope(facts.time, facts.seq, Origin::Ebpf);
        if let (None, Some(level)) = (facts.seq, facts.lineage.levels.first()) {
            // The next run may read its record again.
            let (stream, id) = (&self.knowledge.run.stream, level.id);
            envelope.id = Some(format!("{stream}-memcg_oom-{}-{id}", facts.time.0));
        }
        event::MemcgOom {
            envelope,
            cgroup,
            order: absent.unless(killer.and_then(|killer| killer.order), "order", UNREAD),
            gfp_mask,
            gfp_mask_raw,
            trigger: self.trigger(&facts.trigger, &mut absent),
            outcome: absent.unless(outcome, "outcome", Reason::UnknownValue),
            container: identity.container,
            k8s: identity.k8s,
            systemd: identity.systemd,
            truncated: Vec::new(),
            missing: absent.into_missing(),
        }
    }

    /// A memory cgroup that ran out without a victim, found in its files.
    pub fn oom_without_kill(&mut self, found: &OomWithoutKill) -> event::MemcgOom {
        const UNSEEN: Reason = Reason::NotInCgroupFiles;
        let mut absent = Absent::default();
        let seen = Seen { ids: &[found.id], path: &found.path, path_is_whole: true };
        let identity = self.knowledge.tree.identify(seen, clock::boot_time());
        absent.all(&identity.missing);
        for key in ["order", "gfp_mask", "gfp_mask_raw", "trigger"] {
            absent.because(key, UNSEEN);
        }
        let limit_bytes = match found.limit {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) => absent.unless(None, "cgroup.limit_bytes", Reason::NoLimit),
            None => absent.unless(None, "cgroup.limit_bytes", Reason::CgroupFileUnreadable),
        };
        oom::cgroup::nothing_read(&keys::CGROUP, UNSEEN, self.knowledge.version, &mut absent);
        if limit_bytes.is_some() {
            absent.present("cgroup.limit_bytes");
        }
        if found.events.is_some() {
            absent.present("cgroup.events");
            let keys = &keys::CGROUP;
            for key in [keys.events_low, keys.events_high, keys.events_max, keys.events_oom_group_kill] {
                absent.because(key, UNSEEN);
            }
        }
        let outcome = found.disabled.then_some(MemcgOomOutcome::KillDisabled);
        let events = found.events.map(|(oom, oom_kill)| event::MemoryEvents {
            oom: Some(oom),
            oom_kill: Some(oom_kill),
            ..event::MemoryEvents::default()
        });
        event::MemcgOom {
            envelope: Envelope { origin: Origin::Cgroupfs, stream: None, ..self.own_envelope() },
            cgroup: event::OomCgroup {
                cgroup: Cgroup { path: Some(text_from_kernel(&found.path)), id: Some(found.id.to_string()) },
                limit_bytes,
                events,
                ..event::OomCgroup::default()
            },
            order: None,
            gfp_mask: None,
            gfp_mask_raw: None,
            trigger: None,
            outcome: absent.unless(outcome, "outcome", UNSEEN),
            container: identity.container,
            k8s: identity.k8s,
            systemd: identity.systemd,
            truncated: Vec::new(),
            missing: absent.into_missing(),
        }
    }
}
