//! Turns facts into events. One [`Enricher`] serves the whole run: it holds what was learned before a kill,
//! because afterwards it is gone.

mod function_hooks;
mod knowledge;
mod logged;
mod memcg_oom;
mod shared_mm_kill;
mod signal_kill;
mod victim;
mod whose;

pub use function_hooks::{HookState, ftrace_enabled};
use function_hooks::{Hooks, log_time_before};
pub use knowledge::{Knowledge, RunFacts};
pub use logged::LogOrigin;
pub use signal_kill::{Signalled, SignalledCgroup};
pub use victim::LastVictim;

use std::{borrow::Cow, time::Duration};

use oomtrace_common::pinned::Pinned;

use crate::{
    cgroups::tree::{CgroupTree, Seen, lineage_ids},
    containers::owner::Identity,
    enrich::{
        absent::Absent,
        oom::{self, Context, LogFacts, Runs},
    },
    event::{
        self, Cgroup, CgroupVersion, Envelope, OomKill, Origin, Reason, SCHEMA, Severity, text_from_kernel,
    },
    facts::{
        BootTime, CgroupChange, CgroupId, Found, Lineage, OomControlSearch, OomKillFacts,
        kernel_log::OomDomain,
    },
    host::{
        calendar::Calendar,
        clock::{self, ClockOffset},
        kernel_log::KernelLog,
        meminfo::MemInfo,
        process::{self, ProcessFacts},
        root::Root,
        sysctl::Sysctl,
    },
};

/// Turns facts into events.
pub struct Enricher {
    knowledge: Knowledge,
    on_stack: OomControlSearch,
    runs: Runs,
    calendar: Calendar,
    /// The clock offset at the time of the current event.
    offset: ClockOffset,
    hooks: Hooks,
    /// `vm.oom_kill_allocating_task`, if it can be read.
    kill_allocating_task: Option<Sysctl>,
    /// `/proc/meminfo`, if it can be opened.
    meminfo: Option<MemInfo>,
    /// The time of the latest event.
    latest: BootTime,
    last_victim: LastVictim,
    last_usages: Vec<(CgroupId, Option<u64>)>,
    /// The number of lines of this run with an `id`.
    lines: u64,
}

/// How long a victim's `/proc` files may delay its line. A victim is gone 1.9 ms after its mark at the
/// earliest.
const PROC_WAIT: Duration = Duration::from_millis(2);

/// Why a fact is absent that the kernel side reads.
pub(super) const UNREAD: Reason = Reason::NotReadInKernel;

impl Enricher {
    /// An enricher for a run.
    pub fn new(knowledge: Knowledge) -> Self {
        let calendar = knowledge.clock.map_or_else(Calendar::new, Calendar::fixed);
        let hooks = Hooks::new(knowledge.hooks);
        let offset = calendar.now();
        let sysctl = |root: &Root| Sysctl::open(&root.path("/proc/sys/vm/oom_kill_allocating_task")).ok();
        Self {
            kill_allocating_task: knowledge.root.as_ref().and_then(sysctl),
            meminfo: knowledge.root.as_ref().and_then(|root| MemInfo::open(&root.path("/proc/meminfo")).ok()),
            on_stack: OomControlSearch::new(knowledge.oom_control),
            knowledge,
            runs: Runs::default(),
            calendar,
            offset,
            hooks,
            latest: BootTime(0),
            last_victim: LastVictim::default(),
            last_usages: Vec::new(),
            lines: 0,
        }
    }

    /// The memory cgroups.
    pub fn tree(&self) -> &CgroupTree {
        &self.knowledge.tree
    }

    /// The memory cgroups, to be changed.
    pub fn tree_mut(&mut self) -> &mut CgroupTree {
        &mut self.knowledge.tree
    }

    /// Identifies the run.
    pub fn instance(&self) -> &str {
        &self.knowledge.run.instance
    }

    /// Sets the set of programs whose events come after this.
    pub fn set_stream(&mut self, stream: String) {
        self.knowledge.run.stream = stream;
    }

    /// Where memory cgroups are.
    pub fn version(&self) -> CgroupVersion {
        self.knowledge.version
    }

    /// Whether memory is on cgroup v1.
    pub fn is_v1(&self) -> bool {
        matches!(self.knowledge.version, CgroupVersion::V1 | CgroupVersion::Hybrid)
    }

    /// The kernel log, if it is followed.
    pub fn kernel_log(&self) -> Option<&KernelLog> {
        self.knowledge.log.as_ref()
    }

    /// Reads the log as it grows, so that the lines of a kill are read when its record arrives. Returns false
    /// if there is more to read.
    pub fn read_kernel_log(&mut self) -> bool {
        // A kill reads the log itself, so an error here does not matter.
        self.knowledge.log.as_mut().is_none_or(|log| log.catch_up().unwrap_or(true))
    }

    /// Takes in a change of the tree of memory cgroups.
    pub fn cgroup_changed(&mut self, change: &CgroupChange) {
        self.knowledge.tree.apply(change);
    }

    /// The start of a line. A line without `seq` has an `id`, by default one of this run only. A line that
    /// another run may also write needs an `id` that both runs compute.
    fn envelope(&mut self, time: BootTime, seq: Option<u64>, origin: Origin) -> Envelope {
        let run = &self.knowledge.run;
        let id = seq.is_none().then(|| {
            self.lines += 1;
            format!("{}-{}", run.instance, self.lines)
        });
        let of_stream = matches!(origin, Origin::Ebpf | Origin::Oomtrace | Origin::Runtime);
        Envelope {
            schema: SCHEMA,
            time: self.offset.rfc3339(time),
            message: String::new(),
            severity: Severity::default(),
            seq,
            stream: of_stream.then(|| run.stream.clone()),
            id,
            origin,
            host: run.host.clone(),
            tags: run.tags.clone(),
        }
    }

    /// The start of a line about oomtrace itself.
    pub fn own_envelope(&mut self) -> Envelope {
        self.calendar.look();
        self.offset = self.calendar.now();
        let now = if self.knowledge.clock.is_some() { self.latest } else { clock::boot_time() };
        self.envelope(now, None, Origin::Oomtrace)
    }

    /// Selects the clock at the time of an event, as far as it is known.
    fn turn_to(&mut self, time: BootTime, absent: &mut Absent) {
        self.latest = time;
        self.calendar.look();
        let (offset, known) = self.calendar.when(time);
        self.offset = offset;
        if !known {
            absent.because("time", Reason::ClockSet);
        }
    }

    /// Checks whether the clock was set.
    pub fn look_at_clock(&mut self) {
        self.calendar.look();
    }

    /// Continues the clock of an earlier run.
    pub fn resume(&mut self, handed_over: &Pinned) {
        self.calendar.resume(handed_over);
    }

    /// Writes what the next run needs.
    pub fn hand_over(&self, to: &mut Pinned) {
        self.calendar.keep(to);
    }

    /// A time as text, by the clock at that time as far as it is known.
    pub fn text_of(&self, time: BootTime) -> String {
        self.calendar.when(time).0.rfc3339(time)
    }

    /// Looks for the killer's own state in the kernel stack that came with a kill. Once a kill, in their order.
    pub fn find_on_stack(&mut self, facts: &OomKillFacts) -> Option<Found> {
        self.on_stack.find(facts)
    }

    /// A kill.
    pub fn oom_kill(&mut self, facts: &OomKillFacts) -> OomKill {
        let mut absent = self.absent_here(&[
            "trigger.cgroup.path",
            "trigger.cgroup.id",
            "victim.cgroup.lru",
            "victim.cgroup.tasks",
        ]);
        self.turn_to(facts.time, &mut absent);
        self.last_victim = LastVictim::of(&facts.victim, facts.time);
        self.keep_usages(&facts.lineage);
        self.judge_hooks(facts);
        let path = self.victim_path(&facts.lineage, facts.victim.memcg);
        let log = self.log(facts, path.as_deref().unwrap_or_default());
        let facts = &whole(facts, path.as_deref());
        let mut runs = std::mem::take(&mut self.runs);
        let mut context = self.context();
        if oom::may_be_allocating_task(facts, log.as_ref()) {
            context.kill_allocating_task = self.kill_allocating_task.as_ref().and_then(Sysctl::is_set);
        }
        let mut oom = oom::oom(facts, log, &mut runs, &context, &mut absent);
        self.runs = runs;
        self.name_fired(&facts.lineage, &mut oom, &mut absent);
        let ids = ids_of(&facts.lineage, facts.victim.memcg);
        let identity = self.identify(seen(&ids, &facts.lineage, path.as_deref()), facts.time, &mut absent);
        let score = facts.oom.as_ref().and_then(|killer| killer.oom_score_bytes);
        // Last, because reading the executable may have to wait for the victim's lock, which the OOM killer
        // may still hold.
        let process = self.process(facts);
        let cut = process.command_line_cut;
        let mut victim = self.victim(facts, path, process, &mut absent);
        victim.oom_score_bytes = score.filter(|_| oom.kill != Some(event::Kill::AllocatingTask));
        if victim.oom_score_bytes.is_some() {
            absent.present("victim.oom_score_bytes");
        }
        OomKill {
            envelope: self.envelope(facts.time, Some(facts.seq), Origin::Ebpf),
            oom,
            victim,
            trigger: self.trigger(&facts.trigger, &mut absent),
            container: identity.container,
            k8s: identity.k8s,
            systemd: identity.systemd,
            truncated: if cut { vec!["victim.command_line".into()] } else { Vec::new() },
            missing: absent.into_missing(),
        }
    }

    /// The facts that are absent on this host for every kill. `more` are absent if there are no memory
    /// cgroups.
    fn absent_here(&self, more: &[&'static str]) -> Absent {
        let mut absent = Absent::default();
        if self.knowledge.version == CgroupVersion::None {
            for key in ["victim.cgroup.path", "victim.cgroup.id", "container"].iter().chain(more) {
                absent.because(key, Reason::NoMemoryCgroups);
            }
        }
        absent
    }

    fn context(&self) -> Context<'_> {
        Context {
            version: self.knowledge.version,
            gfp: self.knowledge.gfp.as_ref(),
            kill_allocating_task: None,
        }
    }

    fn process(&mut self, facts: &OomKillFacts) -> ProcessFacts {
        let wanted = self.knowledge.command_line;
        let recorded = facts.command_line.as_ref().and_then(|read| process::command_line_of(read, wanted));
        let victim = facts.victim.tid.zip(facts.victim.tgid).map(|(tid, tgid)| process::Victim {
            tid,
            tgid,
            start: facts.victim.start,
            marked: facts.time,
        });
        let mut process = match (&mut self.knowledge.processes, victim) {
            (Ok(reader), Some(victim)) if recorded.is_some() => ProcessFacts {
                executable: reader.executable(&victim, PROC_WAIT),
                ..ProcessFacts::none(process::Reason::NotRead)
            },
            (Ok(reader), Some(victim)) => reader.read(&victim, PROC_WAIT),
            (Ok(_), None) => ProcessFacts::none(process::Reason::NotRead),
            (Err(reason), _) => ProcessFacts::none(reason.clone()),
        };
        // The kernel side read it, so it certainly belongs to the victim.
        if let Some((text, cut)) = recorded {
            process.command_line = Ok(text);
            process.command_line_cut = cut;
        }
        process
    }

    /// What the kernel log says about the run. Only the chosen process has lines of its own.
    fn log(&mut self, facts: &OomKillFacts, path: &[u8]) -> Option<LogFacts> {
        if facts.oom.is_some() {
            return None;
        }
        let log = self.knowledge.log.as_mut()?;
        // Lines that were read before an error count.
        let _read_so_far = log.catch_up();
        let report = log.take(facts.victim.tgid.or(facts.victim.tid)?, path)?;
        // One of long ago is of another process with the same id, whose own state was found in the stack.
        if report.meta.time_us < log_time_before(facts.time) / 1000 {
            return None;
        }
        Some(LogFacts {
            constraint: report.constraint()?,
            oom_memcg: match report.oom_domain(path) {
                Some(OomDomain::Memcg(path)) => Some(path),
                Some(OomDomain::Global) | None => None,
            },
            order: report.invoked.as_ref().map(|invoked| invoked.order),
            gfp_mask: report.invoked.map(|invoked| (invoked.gfp_mask_raw, Some(invoked.gfp_mask_names))),
        })
    }

    /// The victim's path: the kernel's own, or if that is cut, the tree's.
    fn victim_path(&self, lineage: &Lineage, id: Option<CgroupId>) -> Option<Vec<u8>> {
        if !lineage.path_cut && !lineage.path.is_empty() {
            return Some(lineage.path.clone());
        }
        // The tail that the kernel side read must match the end of the tree's path.
        let known = self.knowledge.tree.path_of(id?)?;
        known.ends_with(&lineage.path).then_some(known)
    }

    /// The path of the cgroup whose limit fired, if the beginning of the victim's path is cut off.
    fn name_fired(&self, lineage: &Lineage, oom: &mut event::Oom, absent: &mut Absent) {
        let Some(fired) = oom.cgroup.as_mut().filter(|fired| fired.cgroup.path.is_none()) else { return };
        let id = lineage.levels.iter().map(|level| level.id);
        let id = id.into_iter().find(|id| fired.cgroup.id.as_deref() == Some(id.to_string().as_str()));
        fired.cgroup.path =
            id.and_then(|id| self.knowledge.tree.path_of(id)).as_deref().map(text_from_kernel);
        if fired.cgroup.path.is_some() {
            absent.present("oom.cgroup.path");
        }
    }

    fn identify(&mut self, seen: Seen<'_>, time: BootTime, absent: &mut Absent) -> Identity {
        let identity = self.knowledge.tree.identify(seen, time);
        absent.all(&identity.missing);
        identity
    }
}

/// The ids of a lineage; without a lineage, only the known id.
fn ids_of(lineage: &Lineage, id: Option<CgroupId>) -> Vec<CgroupId> {
    let mut ids = lineage_ids(lineage);
    if ids.is_empty() {
        ids.extend(id);
    }
    ids
}

/// A cgroup for the tree: with its whole path, or with the lineage's part of it.
fn seen<'a>(ids: &'a [CgroupId], lineage: &'a Lineage, path: Option<&'a [u8]>) -> Seen<'a> {
    Seen { ids, path: path.unwrap_or(&lineage.path), path_is_whole: path.is_some() }
}

/// The cgroup of a task. The keys are those of its path and its id.
fn cgroup(
    id: Option<CgroupId>,
    path: Option<Vec<u8>>,
    keys: [&'static str; 2],
    absent: &mut Absent,
) -> Cgroup {
    let [path_key, id_key] = keys;
    let why = if id.is_some() { Reason::CgroupPathUnknown } else { UNREAD };
    let path = absent.unless(path, path_key, why);
    absent.unless(id, id_key, UNREAD);
    Cgroup { path: path.as_deref().map(text_from_kernel), id: id.map(|id| id.to_string()) }
}

/// The facts with the beginning of the path that the kernel side had cut off.
fn whole<'a>(facts: &'a OomKillFacts, path: Option<&[u8]>) -> Cow<'a, OomKillFacts> {
    match path {
        Some(path) if facts.lineage.path_cut => {
            let mut whole = facts.clone();
            whole.lineage.path = path.to_vec();
            whole.lineage.path_cut = false;
            Cow::Owned(whole)
        }
        _ => Cow::Borrowed(facts),
    }
}
