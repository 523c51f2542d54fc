//! Compares an event with the kernel's own report of the same kill.

use std::fmt::{self, Display, Write};

use crate::{
    event::{Constraint, Evidence, Missing, OomKill, text_from_kernel},
    facts::kernel_log::{Killed, OomDomain, OomReport},
};

/// Fields with both values.
pub struct Comparison {
    fields: Vec<Field>,
    /// Fields that the event has from the kernel's log. To compare them with it would show nothing.
    from_log: Vec<&'static str>,
}

struct Field {
    name: &'static str,
    kernel: String,
    oomtrace: String,
}

impl Comparison {
    /// Whether all values are equal.
    pub fn all_equal(&self) -> bool {
        self.fields.iter().all(Field::equal)
    }

    /// Compares these only if the event has them from somewhere else than the kernel's log.
    fn unless_from_log(&mut self, kill: &OomKill, fields: impl FnOnce(&mut Self)) {
        let before = self.fields.len();
        fields(self);
        if kill.oom.evidence == Some(Evidence::KernelLog) {
            self.from_log.extend(self.fields.drain(before..).map(|field| field.name));
        }
    }

    fn field(&mut self, name: &'static str, kernel: impl Display, oomtrace: Option<impl Display>) {
        let oomtrace = oomtrace.map_or_else(|| "absent".to_owned(), |value| value.to_string());
        self.fields.push(Field { name, kernel: kernel.to_string(), oomtrace });
    }
}

impl Field {
    fn equal(&self) -> bool {
        self.kernel == self.oomtrace
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for field in &self.fields {
            let mark = if field.equal() { "equal " } else { "DIFFER" };
            let mut line = format!("{mark}  {:<32} kernel {}", field.name, field.kernel);
            if !field.equal() {
                write!(line, ", oomtrace {}", field.oomtrace)?;
            }
            writeln!(f, "{line}")?;
        }
        let equal = self.fields.iter().filter(|field| field.equal()).count();
        match self.fields.len() {
            all if all == equal => writeln!(f, "all {all} fields equal the kernel's own."),
            all => writeln!(f, "{} of {all} fields differ.", all - equal),
        }?;
        if self.from_log.is_empty() {
            return Ok(());
        }
        let names = self.from_log.join(", ");
        writeln!(f, "not compared, because the event has them from the kernel's log: {names}")
    }
}

/// Compares `kill` with the report and with the settings of the new cgroup.
pub fn compare(kill: &OomKill, report: &OomReport, cgroup_id: u64, limit_bytes: usize) -> Comparison {
    let mut comparison = Comparison { fields: Vec::new(), from_log: Vec::new() };
    let c = &mut comparison;
    if let Some(killed) = report.killed.first() {
        of_killed_line(c, kill, killed);
    } else {
        c.field("Killed process line", "none", Some("a kill"));
    }
    c.field("victim.pid", report.pid(), kill.victim.pid);
    c.field("victim.cgroup.id", cgroup_id, kill.victim.cgroup.id.as_ref());
    let split = report.split();
    if let Some(split) = &split {
        c.field("victim.cgroup.path", text_from_kernel(&split.task_memcg), kill.victim.cgroup.path.as_ref());
    }
    let oom_cgroup = kill.oom.cgroup.as_ref();
    c.field("oom.cgroup.limit_bytes", limit_bytes, oom_cgroup.and_then(|cgroup| cgroup.limit_bytes));
    if let Some(invoked) = &report.invoked {
        let trigger = kill.trigger.as_ref();
        c.field("trigger.comm", text_from_kernel(&invoked.comm), trigger.and_then(|t| t.comm.as_ref()));
    }
    c.unless_from_log(kill, |c| {
        if let Some(constraint) = report.constraint() {
            c.field("oom.constraint", name(constraint), kill.oom.constraint.map(name));
        }
        if let Some(OomDomain::Memcg(path)) = split.as_ref().map(|split| &split.domain) {
            let ours = oom_cgroup.and_then(|cgroup| cgroup.cgroup.path.as_ref());
            c.field("oom.cgroup.path", text_from_kernel(path), ours);
        }
        if let Some(invoked) = &report.invoked {
            c.field("oom.order", invoked.order, kill.oom.order);
            c.field("oom.gfp_mask_raw", invoked.gfp_mask_raw, kill.oom.gfp_mask_raw);
            if !lacks(&kill.missing, "oom.gfp_mask") {
                c.field("oom.gfp_mask", &invoked.gfp_mask_names, kill.oom.gfp_mask.as_ref());
            }
        }
    });
    comparison
}

/// Whether `missing` says why this key is absent: a kernel need not publish the names of its flags.
fn lacks(missing: &Missing, key: &str) -> bool {
    missing.iter().any(|absence| absence.key == key)
}

fn of_killed_line(c: &mut Comparison, kill: &OomKill, killed: &Killed) {
    let (victim, memory) = (&kill.victim, &kill.victim.memory);
    c.field("victim.tid", killed.tid, victim.tid);
    c.field("victim.comm", text_from_kernel(&killed.comm), victim.comm.as_ref());
    c.field("victim.uid", killed.uid, victim.uid);
    c.field("victim.oom_score_adj", killed.oom_score_adj, victim.oom_score_adj);
    c.field("victim.memory.total_vm_bytes", killed.total_vm_bytes, memory.total_vm_bytes);
    c.field("victim.memory.anon_rss_bytes", killed.anon_rss_bytes, memory.anon_rss_bytes);
    c.field("victim.memory.file_rss_bytes", killed.file_rss_bytes, memory.file_rss_bytes);
    c.field("victim.memory.shmem_rss_bytes", killed.shmem_rss_bytes, memory.shmem_rss_bytes);
    c.field("victim.memory.pgtables_bytes", killed.pgtables_bytes, memory.pgtables_bytes);
}

fn name(constraint: Constraint) -> &'static str {
    match constraint {
        Constraint::None => "CONSTRAINT_NONE",
        Constraint::Cpuset => "CONSTRAINT_CPUSET",
        Constraint::MemoryPolicy => "CONSTRAINT_MEMORY_POLICY",
        Constraint::Memcg => "CONSTRAINT_MEMCG",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        enrich::enricher::{Enricher, Knowledge, LogOrigin},
        event::CgroupVersion,
        sources::saved_log::SavedLog,
    };

    const LOG: &str = "\
[1.000001] hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
[1.000002] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,task=hog,pid=7,uid=0
[1.000003] Memory cgroup out of memory: Killed process 7 (hog) total-vm:4kB, anon-rss:3kB, file-rss:2kB, shmem-rss:1kB, UID:0 pgtables:8kB oom_score_adj:0
";
    const OF_THE_KILLER: [&str; 5] =
        ["oom.constraint", "oom.cgroup.path", "oom.order", "oom.gfp_mask_raw", "oom.gfp_mask"];

    #[test]
    fn what_the_event_has_from_the_log_is_not_compared_with_the_log() {
        let logged = SavedLog::new(LOG.as_bytes(), 0).next().unwrap().unwrap().kill;
        let mut kill =
            Enricher::new(Knowledge::none("", CgroupVersion::V2)).logged_kill(&logged, &LogOrigin::ThisBoot);
        let report = logged.report.unwrap();

        assert_eq!(kill.oom.evidence, Some(Evidence::KernelLog));
        let of_log = compare(&kill, &report, 1, 2);
        assert_eq!(of_log.from_log, OF_THE_KILLER);
        kill.oom.evidence = Some(Evidence::Stack);
        let of_stack = compare(&kill, &report, 1, 2);
        assert!(of_stack.from_log.is_empty());
        assert_eq!(of_stack.fields.len(), of_log.fields.len() + OF_THE_KILLER.len());

        assert!(
            of_log.to_string().contains("not compared, because the event has them from the kernel's log")
        );
        assert!(!of_stack.to_string().contains("not compared"));
    }
}
