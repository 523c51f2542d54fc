//! Explains a run of the OOM killer: whose limit fired, why, and how the victim was chosen. Turns facts into
//! `oom` of the event, with a reason for each absent fact. Reads no file.
//!
//! The OOM killer's own state, from a function hook or the kernel stack, is the best evidence, then the kernel
//! log. Nothing weaker is used: a cgroup at its limit need not be the one that ran out.

use cgroup::{cgroup_of, path_of};

use crate::{
    enrich::{absent::Absent, keys},
    event::{
        Cgroup, CgroupVersion, Constraint, Evidence, Kill, Oom, OomCgroup, Reason, Scope, text_from_kernel,
    },
    facts::{CgroupId, Lineage, MemcgFacts, OomControlFacts, OomKillFacts},
    kernel::gfp::GfpNames,
};

pub mod cgroup;

/// What the kernel log says about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// `constraint=`.
    pub constraint: Constraint,
    /// `oom_memcg=`; `None` for `global_oom`, and if the line is ambiguous.
    pub oom_memcg: Option<Vec<u8>>,
    /// `gfp_mask=`, and its names.
    pub gfp_mask: Option<(u32, Option<String>)>,
    /// `order=`.
    pub order: Option<i32>,
}

/// Properties of the host that decide how facts are read.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where memory cgroups are.
    pub version: CgroupVersion,
    /// Names of allocation flags, where the kernel publishes them.
    pub gfp: Option<&'a GfpNames>,
    /// `vm.oom_kill_allocating_task`; `None` where it cannot be read.
    pub kill_allocating_task: Option<bool>,
}

/// The victims of one run, if no hook shows where a run starts.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    last: Option<Run>,
}

#[derive(Clone, Debug)]
struct Run {
    trigger: Option<u32>,
    group: Option<CgroupId>,
    id: u64,
    log: Option<LogFacts>,
}

impl Runs {
    /// The run of a victim, and what the log says about it: its own lines, or those of the first victim of
    /// its group.
    fn of(
        &mut self,
        facts: &OomKillFacts,
        group: Option<CgroupId>,
        log: Option<LogFacts>,
    ) -> (u64, Option<LogFacts>) {
        if let Some(run) = facts.run {
            return (run, log);
        }
        // A task runs the OOM killer only once at a time, and a group dies in one run. Only its first member
        // has an `oom-kill:` line.
        if let Some(last) = &self.last
            && log.is_none()
            && group.is_some()
            && last.group == group
            && last.trigger == facts.trigger.tid
        {
            return (last.id, last.log.clone());
        }
        self.last = Some(Run { trigger: facts.trigger.tid, group, id: facts.seq, log: log.clone() });
        (facts.seq, log)
    }
}

/// Fills in `oom`.
pub fn oom(
    facts: &OomKillFacts,
    log: Option<LogFacts>,
    runs: &mut Runs,
    context: &Context<'_>,
    absent: &mut Absent,
) -> Oom {
    let outermost = outermost_group(&facts.lineage, context.version);
    let (id, log) = runs.of(facts, outermost, log);
    let mut oom = match (&facts.oom, &log) {
        (Some(killer), _) if killer.constraint.is_some() || killer.memcg.is_some() => {
            from_killer(killer, &facts.lineage, context, absent)
        }
        (_, Some(log)) => from_log(log, &facts.lineage, context, absent),
        _ => unknown(absent),
    };
    oom.id = Some(id);
    oom.kill = kill(facts, &oom, context, absent);
    let no_score = match oom.kill {
        Some(Kill::AllocatingTask) => Reason::AllocatingTask,
        Some(Kill::AlreadyExiting) => Reason::AlreadyExiting,
        _ if facts.oom.is_none() => Reason::NoFunctionHook,
        _ if !first_of_run(facts) => Reason::NotTheChosen,
        _ => UNREAD,
    };
    absent.because("victim.oom_score_bytes", no_score);
    oom
}

/// Why a fact that the kernel side reads is absent.
const UNREAD: Reason = Reason::NotReadInKernel;

fn from_killer(
    killer: &OomControlFacts,
    lineage: &Lineage,
    context: &Context<'_>,
    absent: &mut Absent,
) -> Oom {
    let constraint = killer.constraint.and_then(constraint).or_else(|| {
        // Not computed yet, but a cgroup's limit is known from the start.
        matches!(killer.memcg, Some(Some(_))).then_some(Constraint::Memcg)
    });
    if constraint.is_none() {
        absent.because("oom.constraint", Reason::NotYetComputed);
        absent.because("oom.scope", Reason::NotYetComputed);
        if killer.memcg == Some(None) {
            absent.because("oom.cgroup", Reason::NoLimitFired);
        }
    }
    let cgroup = match killer.memcg {
        Some(Some(id)) => match level(lineage, id) {
            Some((index, _)) => Some(fired(lineage, index, context, absent)),
            None => {
                absent.because("oom.cgroup.path", Reason::NotAnAncestor);
                cgroup::nothing_read(&keys::OOM_CGROUP, Reason::NotAnAncestor, context.version, absent);
                Some(OomCgroup {
                    cgroup: Cgroup { path: None, id: Some(id.to_string()) },
                    ..OomCgroup::default()
                })
            }
        },
        Some(None) => None,
        None => {
            absent.because("oom.cgroup", UNREAD);
            None
        }
    };
    if killer.domain_bytes.is_none() {
        absent.because("oom.domain_bytes", Reason::NotYetComputed);
    }
    absent.unless(killer.order, "oom.order", UNREAD);
    let mut oom = Oom {
        scope: constraint.map(Constraint::scope),
        constraint,
        order: killer.order,
        domain_bytes: killer.domain_bytes,
        evidence: Some(killer.evidence),
        cgroup,
        ..Oom::default()
    };
    gfp(&mut oom, (killer.gfp_mask, None), UNREAD, context, absent);
    oom
}

fn from_log(log: &LogFacts, lineage: &Lineage, context: &Context<'_>, absent: &mut Absent) -> Oom {
    let cgroup = log.oom_memcg.as_ref().map(|path| {
        match (0..lineage.levels.len()).find(|index| path_of(lineage, *index).as_deref() == Some(path)) {
            Some(index) => fired(lineage, index, context, absent),
            None => {
                absent.because("oom.cgroup.id", Reason::NotAnAncestor);
                cgroup::nothing_read(&keys::OOM_CGROUP, Reason::NotAnAncestor, context.version, absent);
                OomCgroup {
                    cgroup: Cgroup { path: Some(text_from_kernel(path)), id: None },
                    ..OomCgroup::default()
                }
            }
        }
    });
    if cgroup.is_none() && log.constraint == Constraint::Memcg {
        absent.because("oom.cgroup", Reason::AmbiguousLogLine);
    }
    absent.because("oom.domain_bytes", Reason::NoFunctionHook);
    if log.order.is_none() {
        absent.because("oom.order", Reason::NotInKernelLog);
    }
    let mut oom = Oom {
        scope: Some(log.constraint.scope()),
        constraint: Some(log.constraint),
        order: log.order,
        evidence: Some(Evidence::KernelLog),
        cgroup,
        ..Oom::default()
    };
    let (mask, names) = log.gfp_mask.clone().map_or((None, None), |(mask, names)| (Some(mask), names));
    gfp(&mut oom, (mask, names), Reason::NotInKernelLog, context, absent);
    oom
}

/// No evidence shows what ran out.
fn unknown(absent: &mut Absent) -> Oom {
    for key in [
        "oom.scope",
        "oom.constraint",
        "oom.evidence",
        "oom.cgroup",
        "oom.domain_bytes",
        "oom.order",
        "oom.gfp_mask",
        "oom.gfp_mask_raw",
    ] {
        absent.because(key, Reason::NoHookAndNoLogLine);
    }
    Oom::default()
}

/// The cgroup whose limit fired.
fn fired(lineage: &Lineage, index: usize, context: &Context<'_>, absent: &mut Absent) -> OomCgroup {
    cgroup_of(&keys::OOM_CGROUP, lineage, index, context.version, absent)
}

fn gfp(
    oom: &mut Oom,
    flags: (Option<u32>, Option<String>),
    unknown: Reason,
    context: &Context<'_>,
    absent: &mut Absent,
) {
    let (mask, names) = flags;
    oom.gfp_mask_raw = mask;
    oom.gfp_mask = names.or_else(|| Some(context.gfp?.names(mask?)));
    if mask.is_none() {
        for key in ["oom.gfp_mask", "oom.gfp_mask_raw"] {
            absent.because(key, unknown);
        }
    } else if oom.gfp_mask.is_none() {
        absent.because("oom.gfp_mask", Reason::NoFlagNames);
    }
}

/// Whether only `vm.oom_kill_allocating_task` can show how the victim was chosen.
pub fn may_be_allocating_task(facts: &OomKillFacts, log: Option<&LogFacts>) -> bool {
    match &facts.oom {
        // The OOM killer's reason cannot be read. It takes the allocating task before it compares scores.
        Some(killer) => killer.message.is_none() && killer.oom_score_bytes == Some(0),
        None => log.is_none_or(|log| log.constraint != Constraint::Memcg),
    }
}

fn kill(facts: &OomKillFacts, oom: &Oom, context: &Context<'_>, absent: &mut Absent) -> Option<Kill> {
    if facts.signalled == Some(false) {
        return Some(Kill::AlreadyExiting);
    }
    if oom.order == Some(-1) {
        return Some(Kill::Sysrq);
    }
    if let Some(message) = facts.oom.as_ref().and_then(|killer| killer.message.as_deref()) {
        // The other processes of its group are in the same run, but did not allocate.
        if contains(message, b"(oom_kill_allocating_task)") && first_of_run(facts) {
            return Some(Kill::AllocatingTask);
        }
    } else if may_be_allocating_task(facts, None) && oom.scope.is_some_and(|scope| scope != Scope::Memcg) {
        // The kernel takes the allocating task if possible, before it compares scores.
        let own = facts.victim.tgid.is_some() && facts.victim.tgid == facts.trigger.tgid;
        match context.kill_allocating_task {
            Some(true) if own => return Some(Kill::AllocatingTask),
            None if own => {
                absent.because("oom.kill", Reason::SysctlUnreadable);
                return None;
            }
            _ => {}
        }
    }
    match in_group(&facts.lineage, oom, context.version) {
        Some(true) => return Some(Kill::Group),
        Some(false) => {}
        None => {
            absent.because("oom.kill", Reason::GroupOrSelected);
            return None;
        }
    }
    if facts.signalled.is_none() {
        absent.because("oom.kill", Reason::SignalUnknown);
        return None;
    }
    Some(Kill::Selected)
}

/// Whether the victim is the first of a run whose start a hook has seen.
fn first_of_run(facts: &OomKillFacts) -> bool {
    facts.run.is_none_or(|run| run == facts.seq)
}

/// Whether `memory.oom.group` is set in a cgroup from the victim's up to the one whose limit fired, or up to
/// below the root. The kernel checks these. `None` if it is set in a cgroup that may be above the limit.
fn in_group(lineage: &Lineage, oom: &Oom, version: CgroupVersion) -> Option<bool> {
    let levels = &lineage.levels;
    // The root has no such file.
    let below_root = if lineage.levels_cut { levels.len() } else { levels.len().saturating_sub(1) };
    let set = |count: usize| levels.iter().take(count).any(|facts| facts.oom_group == Some(true));
    if version != CgroupVersion::V2 || !set(below_root) {
        return Some(false);
    }
    let domain = oom.cgroup.as_ref().and_then(|cgroup| cgroup.cgroup.id.as_deref());
    let position = |id: &str| levels.iter().position(|facts| facts.id.to_string() == id);
    match (oom.scope, domain) {
        (Some(Scope::Memcg), Some(id)) => Some(match position(id) {
            Some(index) => set(index.saturating_add(1).min(below_root)),
            // Too deep; else the victim was moved away, and the kernel does not kill its group.
            None => lineage.levels_cut,
        }),
        (Some(Scope::Memcg) | None, _) => set(1).then_some(true),
        (Some(_), _) => Some(true),
    }
}

/// The outermost cgroup with `memory.oom.group`: the largest group that could die in one run.
fn outermost_group(lineage: &Lineage, version: CgroupVersion) -> Option<CgroupId> {
    if version != CgroupVersion::V2 {
        return None;
    }
    lineage.levels.iter().rev().find(|facts| facts.oom_group == Some(true)).map(|facts| facts.id)
}

fn level(lineage: &Lineage, id: CgroupId) -> Option<(usize, &MemcgFacts)> {
    lineage.levels.iter().enumerate().find(|(_, facts)| facts.id == id)
}

/// The path of the cgroup `id`, if it is the victim's or an ancestor, and the path is whole.
pub(super) fn path_of_level(lineage: &Lineage, id: CgroupId) -> Option<String> {
    let (index, _) = level(lineage, id)?;
    path_of(lineage, index).as_deref().map(text_from_kernel)
}

fn constraint(value: u32) -> Option<Constraint> {
    // `enum oom_constraint` of include/linux/oom.h, which is the same on every kernel with this tracepoint.
    match value {
        0 => Some(Constraint::None),
        1 => Some(Constraint::Cpuset),
        2 => Some(Constraint::MemoryPolicy),
        3 => Some(Constraint::Memcg),
        _ => None,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
