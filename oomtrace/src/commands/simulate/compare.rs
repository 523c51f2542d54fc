//! Compares an event with the kernel's own report of the same kill.

use std::fmt::{self, Display, Write};

use crate::{
    event::{Constraint, OomKill, text_from_kernel},
    facts::kernel_log::{Killed, OomDomain, OomReport},
};

/// Fields with both values.
pub struct Comparison {
    fields: Vec<Field>,
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
        }
    }
}

/// Compares `kill` with the report and with the settings of the new cgroup.
pub fn compare(kill: &OomKill, report: &OomReport, cgroup_id: u64, limit_bytes: usize) -> Comparison {
    let mut comparison = Comparison { fields: Vec::new() };
    let c = &mut comparison;
    if let Some(killed) = report.killed.first() {
        of_killed_line(c, kill, killed);
    } else {
        c.field("Killed process line", "none", Some("a kill"));
    }
    c.field("victim.pid", report.pid(), kill.victim.pid);
    c.field("victim.cgroup.id", cgroup_id, kill.victim.cgroup.id.as_ref());
    if let Some(constraint) = report.constraint() {
        c.field("oom.constraint", name(constraint), kill.oom.constraint.map(name));
    }
    let oom_cgroup = kill.oom.cgroup.as_ref();
    if let Some(split) = report.split() {
        c.field("victim.cgroup.path", text_from_kernel(&split.task_memcg), kill.victim.cgroup.path.as_ref());
        if let OomDomain::Memcg(path) = &split.domain {
            let ours = oom_cgroup.and_then(|cgroup| cgroup.cgroup.path.as_ref());
            c.field("oom.cgroup.path", text_from_kernel(path), ours);
        }
    }
    c.field("oom.cgroup.limit_bytes", limit_bytes, oom_cgroup.and_then(|cgroup| cgroup.limit_bytes));
    if let Some(invoked) = &report.invoked {
        c.field(
            "trigger.comm",
            text_from_kernel(&invoked.comm),
            kill.trigger.as_ref().and_then(|t| t.comm.as_ref()),
        );
        c.field("oom.order", invoked.order, kill.oom.order);
        c.field("oom.gfp_mask_raw", invoked.gfp_mask_raw, kill.oom.gfp_mask_raw);
        c.field("oom.gfp_mask", &invoked.gfp_mask_names, kill.oom.gfp_mask.as_ref());
    }
    comparison
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
