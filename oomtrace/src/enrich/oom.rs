//! What a run of the killer was about: whose limit fired, why, and how the victim came to be
//! one. Pure: facts in, `oom` of the event out, with a reason for each fact that is absent.
//!
//! The killer's own state is the best evidence, then the kernel's log, then the limits of
//! the victim's ancestors. Nothing weaker is ever used.

use crate::{
    decode::{CgroupId, Limit, Lineage, MemcgFacts, OomControlFacts, OomKillFacts},
    enrich::absent::Absent,
    event::{
        Cgroup, CgroupVersion, Constraint, Evidence, Kill, MemoryEvents, Oom, OomCgroup, Scope,
        text_from_kernel,
    },
    kernel::gfp::GfpNames,
};

/// What the kernel's log says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// `constraint=`.
    pub constraint: Constraint,
    /// `oom_memcg=`; `None` for `global_oom` and where the line does not tell one from the other.
    pub oom_memcg: Option<Vec<u8>>,
    /// `gfp_mask=`, and its names.
    pub gfp_mask: Option<(u32, Option<String>)>,
    /// `order=`.
    pub order: Option<i32>,
}

/// What of the host decides how facts are read.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where memory cgroups are.
    pub version: CgroupVersion,
    /// Names of allocation flags, where the kernel publishes them.
    pub gfp: Option<&'a GfpNames>,
    /// `memory.max` is reached when less than this is left: each CPU charges ahead by a batch.
    pub charge_batch_bytes: u64,
    /// `vm.oom_kill_allocating_task`; `None` where it cannot be read.
    pub kill_allocating_task: Option<bool>,
}

/// `MEMCG_CHARGE_BATCH`: 64 pages since 5.18, 32 before.
pub const CHARGE_BATCH_PAGES: u64 = 64;

/// Victims of one run, where no hook marks where a run starts.
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
    /// The run of a victim, and what the log said of it: its own lines, or those of the first of its group.
    fn of(
        &mut self,
        facts: &OomKillFacts,
        group: Option<CgroupId>,
        log: Option<LogFacts>,
    ) -> (u64, Option<LogFacts>) {
        if let Some(run) = facts.run {
            return (run, log);
        }
        // One task runs the killer once at a time, and a group dies in one run. The members
        // after the first have no `oom-kill:` line of their own.
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
        _ => from_limits(&facts.lineage, context, absent),
    };
    oom.id = Some(id);
    oom.kill = kill(facts, &oom, context, absent);
    if oom.kill == Some(Kill::AllocatingTask) {
        absent.because("victim.oom_score_bytes", "the allocating task is killed whatever its score");
    } else if facts.oom.is_none() {
        absent.because("victim.oom_score_bytes", NEEDS_HOOK);
    } else {
        absent.because("victim.oom_score_bytes", "killed with the one chosen, not for its own score");
    }
    oom
}

/// Where the cgroup whose limit fired stands in the event.
const KEY: &str = "oom.cgroup";
const NEEDS_HOOK: &str = "only a function hook sees it";
const NOT_IN_LIMITS: &str = "no function hook, and no oom-kill line in the kernel log";

fn from_killer(
    killer: &OomControlFacts,
    lineage: &Lineage,
    context: &Context<'_>,
    absent: &mut Absent,
) -> Oom {
    let constraint = killer.constraint.and_then(constraint).or_else(|| {
        // Before the killer has worked it out; a cgroup's limit is known from the start.
        matches!(killer.memcg, Some(Some(_))).then_some(Constraint::Memcg)
    });
    if constraint.is_none() {
        absent.because("oom.constraint", "the killer had not yet worked it out");
        absent.because("oom.scope", "the killer had not yet worked it out");
    }
    let cgroup = match killer.memcg {
        Some(Some(id)) => match level(lineage, id) {
            Some((index, facts)) => Some(cgroup_of(lineage, index, facts, context.version, KEY, absent)),
            None => {
                absent.because("oom.cgroup.limit_bytes", "not among the victim's ancestors that were read");
                Some(OomCgroup {
                    cgroup: Cgroup { path: None, id: Some(id.to_string()) },
                    ..OomCgroup::default()
                })
            }
        },
        Some(None) => None,
        None => {
            absent.because("oom.cgroup", "oom_control.memcg could not be read");
            None
        }
    };
    if killer.domain_bytes.is_none() {
        absent.because("oom.domain_bytes", "the killer had not yet worked it out");
    }
    let mut oom = Oom {
        scope: constraint.map(Constraint::scope),
        constraint,
        order: killer.order,
        domain_bytes: killer.domain_bytes,
        evidence: Some(killer.evidence),
        cgroup,
        ..Oom::default()
    };
    gfp(&mut oom, killer.gfp_mask, None, context, absent);
    oom
}

fn from_log(log: &LogFacts, lineage: &Lineage, context: &Context<'_>, absent: &mut Absent) -> Oom {
    let cgroup = log.oom_memcg.as_ref().map(|path| {
        match (0..lineage.levels.len()).find(|index| path_of(lineage, *index).as_deref() == Some(path)) {
            Some(index) => match lineage.levels.get(index) {
                Some(facts) => cgroup_of(lineage, index, facts, context.version, KEY, absent),
                None => OomCgroup::default(),
            },
            None => {
                absent.because("oom.cgroup.limit_bytes", "not among the victim's ancestors that were read");
                OomCgroup {
                    cgroup: Cgroup { path: Some(text_from_kernel(path)), id: None },
                    ..OomCgroup::default()
                }
            }
        }
    });
    if cgroup.is_none() && log.constraint == Constraint::Memcg {
        absent
            .because("oom.cgroup", "the kernel log's line cannot be told apart: a name in it holds a comma");
    }
    absent.because("oom.domain_bytes", NEEDS_HOOK);
    if log.order.is_none() {
        absent.because("oom.order", "no invoked line in the kernel log");
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
    gfp(&mut oom, mask, names, context, absent);
    oom
}

/// The nearest ancestor that was full is the one whose limit fired: a charge goes from the
/// leaf up, and stops at the first that refuses.
fn from_limits(lineage: &Lineage, context: &Context<'_>, absent: &mut Absent) -> Oom {
    for key in ["oom.domain_bytes", "oom.order", "oom.gfp_mask", "oom.gfp_mask_raw"] {
        absent.because(key, NOT_IN_LIMITS);
    }
    let full = lineage.levels.iter().enumerate().find(|(_, facts)| is_full(facts, context));
    let Some((index, facts)) = full else {
        for key in ["oom.scope", "oom.constraint", "oom.evidence"] {
            absent.because(key, "no ancestor was at its limit, and no oom-kill line in the kernel log");
        }
        return Oom::default();
    };
    Oom {
        scope: Some(Scope::Memcg),
        constraint: Some(Constraint::Memcg),
        evidence: Some(Evidence::MemcgWalk),
        cgroup: Some(cgroup_of(lineage, index, facts, context.version, KEY, absent)),
        ..Oom::default()
    }
}

fn is_full(facts: &MemcgFacts, context: &Context<'_>) -> bool {
    let reached = |usage: Option<u64>, limit: Option<Limit>| match (usage, limit) {
        (Some(usage), Some(Limit::Bytes(limit))) => usage.saturating_add(context.charge_batch_bytes) >= limit,
        _ => false,
    };
    // On v1 the second counter holds memory and swap together, and its limit fires as well. On
    // v2 it holds swap alone: to reach that limit makes no OOM.
    let v1 = context.version != CgroupVersion::V2;
    reached(facts.usage_bytes, facts.max) || (v1 && reached(facts.swap_usage_bytes, facts.swap_max))
}

fn gfp(oom: &mut Oom, mask: Option<u32>, names: Option<String>, context: &Context<'_>, absent: &mut Absent) {
    oom.gfp_mask_raw = mask;
    oom.gfp_mask = names.or_else(|| Some(context.gfp?.names(mask?)));
    if mask.is_none() {
        for key in ["oom.gfp_mask", "oom.gfp_mask_raw"] {
            absent.because(key, "no invoked line in the kernel log");
        }
    } else if oom.gfp_mask.is_none() {
        absent.because("oom.gfp_mask", "this kernel publishes no names of its flags");
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
        if contains(message, b"(oom_kill_allocating_task)") {
            return Some(Kill::AllocatingTask);
        }
    } else if oom.scope.is_some_and(|scope| scope != Scope::Memcg) {
        // The kernel takes the allocating task where it may, before it looks at any score.
        let own = facts.victim.tgid.is_some() && facts.victim.tgid == facts.trigger.tgid;
        match context.kill_allocating_task {
            Some(true) if own => return Some(Kill::AllocatingTask),
            None if own => {
                absent.because("oom.kill", "vm.oom_kill_allocating_task cannot be read");
                return None;
            }
            _ => {}
        }
    }
    let domain = oom.cgroup.as_ref().and_then(|cgroup| cgroup.cgroup.id.as_deref());
    if in_group(&facts.lineage, domain, context.version) {
        return Some(Kill::Group);
    }
    if facts.signalled.is_none() && facts.oom.is_none() {
        absent.because("oom.kill", "signals were not followed");
        return None;
    }
    Some(Kill::Selected)
}

/// Whether `memory.oom.group` is set anywhere from the victim's cgroup up to the one whose
/// limit fired, or up to below the root: where the kernel looks.
fn in_group(lineage: &Lineage, domain: Option<&str>, version: CgroupVersion) -> bool {
    if version != CgroupVersion::V2 {
        return false;
    }
    for (index, facts) in lineage.levels.iter().enumerate() {
        let root = index + 1 == lineage.levels.len() && !lineage.levels_cut;
        if facts.oom_group == Some(true) && !root {
            return true;
        }
        if domain.is_some_and(|domain| domain == facts.id.to_string()) {
            return false;
        }
    }
    false
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

/// The path of the ancestor at `index`: the victim's without its last `index` names.
fn path_of(lineage: &Lineage, index: usize) -> Option<Vec<u8>> {
    if lineage.path_cut {
        return None;
    }
    let names: Vec<&[u8]> =
        lineage.path.split(|byte| *byte == b'/').skip(1).filter(|name| !name.is_empty()).collect();
    let kept = names.len().checked_sub(index)?;
    let mut path = Vec::with_capacity(lineage.path.len());
    for name in names.iter().take(kept) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Some(path)
}

/// A cgroup's facts in the words of its version; `key` is where in the event they stand.
pub fn cgroup_of(
    lineage: &Lineage,
    index: usize,
    facts: &MemcgFacts,
    version: CgroupVersion,
    key: &str,
    absent: &mut Absent,
) -> OomCgroup {
    let v2 = version == CgroupVersion::V2;
    let mut limit = |name: &str, limit: Option<Limit>| {
        let reason = match limit {
            Some(Limit::Bytes(bytes)) => return Some(bytes),
            Some(Limit::Unlimited) => "max: no limit is set",
            None => "this kernel does not have it",
        };
        absent.because(&format!("{key}.{name}"), reason);
        None
    };
    let limit_bytes = limit("limit_bytes", facts.max);
    let swap_limit = limit(if v2 { "swap_limit_bytes" } else { "memsw_limit_bytes" }, facts.swap_max);
    let path = path_of(lineage, index).map(|path| text_from_kernel(&path));
    if path.is_none() {
        absent.because(&format!("{key}.path"), "deeper than what is read in the kernel");
    }
    OomCgroup {
        cgroup: Cgroup { path, id: Some(facts.id.to_string()) },
        limit_bytes,
        usage_bytes: facts.usage_bytes,
        peak_bytes: facts.watermark_bytes,
        swap_limit_bytes: swap_limit.filter(|_| v2),
        swap_usage_bytes: facts.swap_usage_bytes.filter(|_| v2),
        memsw_limit_bytes: swap_limit.filter(|_| !v2),
        memsw_usage_bytes: facts.swap_usage_bytes.filter(|_| !v2),
        oom_group: facts.oom_group.filter(|_| v2),
        events: Some(if v2 {
            facts.events.clone()
        } else {
            MemoryEvents { low: None, high: None, oom_group_kill: None, ..facts.events.clone() }
        }),
    }
}

fn constraint(value: u32) -> Option<Constraint> {
    // `enum oom_constraint` of include/linux/oom.h, the same on every kernel with this tracepoint.
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
