//! A signal that ended processes: who sent it, to whom, and how full the target's cgroup was.

use crate::{
    containers::owner::Identity,
    enrich::{
        absent::{Absent, not_in_proc},
        enricher::{Enricher, PROC_WAIT, UNREAD, cgroup, ids_of, seen},
        keys,
        killer::{self, Party, Sender},
        oom,
    },
    event::{
        Absence, CgroupVersion, Container, HostMemoryThen, HostTotals, How, Killer, OomCgroup, Origin,
        Reason, SignalKill, SignalSender, SignalTarget, SigtermSender, text_from_kernel,
    },
    facts::{BootTime, CgroupId, Limit, Lineage, MemcgFacts, SignalKillFacts, SigtermFacts},
    host::{clock, process},
};

/// An event, and what decides whether it is printed.
#[derive(Clone, Debug)]
pub struct Signalled {
    /// The event, without how many got the signal.
    pub event: SignalKill,
    /// Whether the sender is in the target's container or unit; `None` if that is not known.
    pub inside: Option<bool>,
    /// The target's cgroup and some above it, itself first.
    pub cgroups: Vec<SignalledCgroup>,
}

/// A cgroup to which a signal went.
#[derive(Clone, Debug)]
pub struct SignalledCgroup {
    /// Its id.
    pub id: CgroupId,
    /// Its path.
    pub path: Vec<u8>,
    /// This run read a record of its making.
    pub seen_made: bool,
}

/// Who sent a signal, and whose that is.
struct From {
    sender: SignalSender,
    killer: Option<Killer>,
    inside: Option<bool>,
}

impl Enricher {
    /// A signal that ended processes. `None` if this version does not know the signal.
    pub fn signal_kill(&mut self, facts: &SignalKillFacts) -> Option<Signalled> {
        let signal = facts.signal?;
        let mut absent = Absent::default();
        if self.knowledge.version == CgroupVersion::None {
            for key in ["target.cgroup", "cgroup", "container", "sender.cgroup", "sender.container"] {
                absent.because(key, Reason::NoMemoryCgroups);
            }
        }
        self.turn_to(facts.time, &mut absent);
        let path = facts.target.memcg.and_then(|id| self.knowledge.tree.path_of(id));
        let lineage = with_path(&facts.lineage, path.as_deref());
        let ids = ids_of(&lineage, facts.target.memcg);
        let whose = self.identify(seen(&ids, &lineage, path.as_deref()), facts.time, &mut absent);
        let target = self.signal_target(facts, path, &mut absent);
        let From { sender, killer, inside } = self.signal_sender(facts, (&whose, &target), &mut absent);
        // At once: the killer is about to free memory.
        let host_memory = match killer.filter(|killer| killer.is_for_memory()) {
            Some(_) => absent.unless(self.host_memory(facts.time), "host_memory", Reason::NotRead),
            None => None,
        };
        absent.because("processes", Reason::NotRead);
        let before = |sigterm: &SigtermFacts| facts.time.0.checked_sub(sigterm.time.0);
        let stream = &self.knowledge.run.stream;
        let id = format!("{stream}-signal_kill-{}-{}", facts.time.0, facts.target.tid.unwrap_or_default());
        let mut envelope = self.envelope(facts.time, None, Origin::Ebpf);
        // Its record may be read once more by the next run.
        envelope.id = Some(id);
        let event = SignalKill {
            envelope,
            signal,
            how: absent.unless(facts.how, "how", Reason::UnknownValue),
            processes: None,
            target,
            sender,
            killer,
            killer_confirmed: None,
            sigterm_before_ns: facts.sigterm.as_ref().and_then(before),
            sigterm_sender: facts.sigterm.as_ref().map(sigterm_sender).unwrap_or_default(),
            cgroup: self.signal_cgroup(&lineage, whose.container.as_ref(), &mut absent),
            host_memory,
            container: whose.container,
            k8s: whose.k8s,
            systemd: whose.systemd,
            truncated: Vec::new(),
            missing: absent.into_missing(),
        };
        let signalled = |(up, level): (usize, &MemcgFacts)| {
            let seen_made = self.knowledge.tree.was_seen_made(level.id);
            Some(SignalledCgroup { id: level.id, path: oom::cgroup::path_of(&lineage, up)?, seen_made })
        };
        let cgroups = lineage.levels.iter().enumerate().map_while(signalled).collect();
        Some(Signalled { event, inside, cgroups })
    }

    /// What the memory of the host is now.
    pub fn host_totals(&self) -> Result<HostTotals, String> {
        let file = self.meminfo.as_ref().ok_or_else(|| "/proc/meminfo could not be opened".to_owned())?;
        file.totals().map_err(|error| format!("/proc/meminfo: {error}"))
    }

    fn host_memory(&self, signalled: BootTime) -> Option<HostMemoryThen> {
        let full = self.meminfo.as_ref()?.read().ok()?;
        Some(HostMemoryThen {
            after_ns: clock::boot_time().0.checked_sub(signalled.0)?,
            total_bytes: full.total,
            available_bytes: full.available,
            swap_total_bytes: full.swap_total,
            swap_free_bytes: full.swap_free,
        })
    }

    fn signal_target(
        &self,
        facts: &SignalKillFacts,
        path: Option<Vec<u8>>,
        absent: &mut Absent,
    ) -> SignalTarget {
        let task = &facts.target;
        SignalTarget {
            pid: absent.unless(task.tgid, "target.pid", UNREAD),
            namespace_pid: absent.unless(task.namespace_tgid, "target.namespace_pid", UNREAD),
            comm: absent.unless(task.comm.as_deref().map(text_from_kernel), "target.comm", UNREAD),
            uid: absent.unless(task.uid, "target.uid", UNREAD),
            start_time: absent.unless(
                task.start.map(|start| self.offset.rfc3339(start)),
                "target.start_time",
                UNREAD,
            ),
            cgroup: cgroup(task.memcg, path, ["target.cgroup.path", "target.cgroup.id"], absent),
        }
    }

    /// The cgroup whose figures are told.
    fn signal_cgroup(
        &self,
        lineage: &Lineage,
        container: Option<&Container>,
        absent: &mut Absent,
    ) -> OomCgroup {
        let why = if lineage.levels.is_empty() { UNREAD } else { Reason::TooDeep };
        let Some(index) = level_of_figures(lineage, container) else {
            absent.because("cgroup", why);
            return OomCgroup::default();
        };
        if lineage.path_cut {
            absent.because("cgroup.path", Reason::CgroupPathUnknown);
        }
        oom::cgroup::cgroup_of(&keys::CGROUP, lineage, index, self.knowledge.version, absent)
    }

    fn signal_sender(
        &mut self,
        facts: &SignalKillFacts,
        (whose, target): (&Identity, &SignalTarget),
        absent: &mut Absent,
    ) -> From {
        if facts.how == Some(How::Kernel) {
            // Whoever ran at the time.
            return From { sender: SignalSender::default(), killer: None, inside: None };
        }
        let task = &facts.sender;
        let executable = self.executable_of_sender(facts);
        let path = task.memcg.and_then(|id| self.knowledge.tree.path_of(id));
        let identity = self.identity_of_sender(task.memcg, path.as_deref(), facts, absent);
        let executable = match executable {
            // A runtime that runs a copy of itself from a mount of its own (crun): its path is that mount.
            Ok(path) if path == b"/" => {
                absent.because("sender.executable", Reason::NotRead);
                None
            }
            Ok(path) => Some(path),
            Err(reason) => {
                absent.because("sender.executable", not_in_proc(&reason));
                None
            }
        };
        let mut sender = SignalSender {
            pid: absent.unless(task.tgid, "sender.pid", UNREAD),
            comm: absent.unless(task.comm.as_deref().map(text_from_kernel), "sender.comm", UNREAD),
            executable: executable.as_deref().map(text_from_kernel),
            uid: absent.unless(task.uid, "sender.uid", UNREAD),
            parent_comm: absent.unless(
                facts.parent_comm.as_deref().map(text_from_kernel),
                "sender.parent_comm",
                UNREAD,
            ),
            cgroup: cgroup(task.memcg, path, ["sender.cgroup.path", "sender.cgroup.id"], absent),
            container: None,
            systemd: identity.systemd.clone(),
        };
        let party = Party {
            container: identity.container.as_ref(),
            unit: identity.systemd.as_ref(),
            cgroup: sender.cgroup.path.as_deref(),
        };
        let here = Party {
            container: whose.container.as_ref(),
            unit: whose.systemd.as_ref(),
            cgroup: target.cgroup.path.as_deref(),
        };
        let inside = killer::is_inside(&here, &party);
        let known = Sender {
            party,
            pid: task.tgid,
            namespace_pid: task.namespace_tgid,
            uid: task.uid,
            executable: executable.as_deref().or(facts.executable_name.as_deref()),
        };
        let user = whose.container.as_ref().and_then(|container| container.runtime.user);
        let killer = absent.unless(killer::killer(&known, inside, user), "killer", UNREAD);
        sender.container = identity.container.map(Into::into);
        From { sender, killer, inside }
    }

    fn executable_of_sender(&mut self, facts: &SignalKillFacts) -> Result<Vec<u8>, process::Reason> {
        let task = &facts.sender;
        let (Some(tid), Some(tgid)) = (task.tid, task.tgid) else { return Err(process::Reason::NotRead) };
        let sender = process::Victim { tid, tgid, start: task.start, marked: facts.time };
        match &mut self.knowledge.processes {
            Ok(reader) => reader.executable(&sender, PROC_WAIT),
            Err(reason) => Err(reason.clone()),
        }
    }

    fn identity_of_sender(
        &mut self,
        memcg: Option<CgroupId>,
        path: Option<&[u8]>,
        facts: &SignalKillFacts,
        absent: &mut Absent,
    ) -> Identity {
        let ids = Vec::from_iter(memcg);
        let identity = self.knowledge.tree.identify(seen(&ids, &Lineage::default(), path), facts.time);
        for Absence { key, reason, detail } in &identity.missing {
            // What is told of the target's container is not told of the sender's.
            if matches!(&**key, "container" | "container.name") {
                let key = format!("sender.{key}").into();
                absent.all(&[Absence { key, reason: *reason, detail: detail.clone() }]);
            }
        }
        identity
    }
}

/// The level whose figures are told: the container's own, or the target's where it is in no container; the nearest above it with a
/// limit if it has none. `None` if it was not read: in a cgroup that a container makes for itself, nobody knows how full the
/// container is.
fn level_of_figures(lineage: &Lineage, container: Option<&Container>) -> Option<usize> {
    let names: Vec<&[u8]> =
        lineage.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    let is_containers = |name: &&[u8]| {
        container.is_some_and(|container| String::from_utf8_lossy(name).contains(&container.id))
    };
    // The outermost: a container may give its own id to a cgroup below.
    let is_podmans = |at: usize| {
        names.get(at).is_some_and(|name| name.starts_with(b"libpod-"))
            && names.get(at + 1) == Some(&&b"container"[..])
    };
    let own = names.iter().position(is_containers).map_or(0, |at| {
        // Podman puts the container's processes, and its limit, one below.
        names.len() - 1 - at - usize::from(is_podmans(at))
    });
    let from_there = lineage.levels.get(own..).filter(|levels| !levels.is_empty())?;
    let limited = from_there.iter().position(|level| matches!(level.max, Some(Limit::Bytes(_))));
    Some(own + limited.unwrap_or(0))
}

fn sigterm_sender(sigterm: &SigtermFacts) -> SigtermSender {
    SigtermSender {
        pid: Some(sigterm.sender_tgid),
        comm: Some(text_from_kernel(&sigterm.sender_comm)),
        uid: Some(sigterm.sender_uid),
    }
}

/// The lineage with the path that the tree has: the kernel's record has none.
fn with_path(lineage: &Lineage, path: Option<&[u8]>) -> Lineage {
    match path {
        Some(path) => Lineage { path: path.to_vec(), path_cut: false, ..lineage.clone() },
        None => lineage.clone(),
    }
}
