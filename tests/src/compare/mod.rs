//! Compares one `oom_kill` line with the truth, field by field: the kernel log, the kernel's files, and what
//! the scenario did. No I/O: everything was read before.

mod fields;
mod fired;
mod host_memory;
mod incident;
mod lru;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::cgroup::{Place, Version};
use crate::kernel_log::LoggedKill;
use crate::process::ProcessFacts;
use crate::tracer::Line;

use fields::Fields;
pub(crate) use fields::moment;
pub use host_memory::{host_memory, top};
pub use incident::{Split, incident};
pub use memory::memory;
use memory::{Dies, held_back_bytes, rss_kb, victim_memory};

/// A field with a wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its dotted path.
    pub field: String,
    /// The source that contradicts it.
    pub source: &'static str,
    /// The right value.
    pub truth: String,
    /// oomtrace's value.
    pub told: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field {}: {} {}, oomtrace {}", self.field, self.source, self.truth, self.told)
    }
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// `uname -n`.
    pub name: String,
    /// `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Bytes a page.
    pub page_bytes: u64,
    /// Processors in use.
    pub processors: u64,
    /// Clock ticks a second.
    pub ticks_a_second: u64,
    /// The wall clock at boot, ns.
    pub boot_wall_ns: i128,
    /// `MemTotal` and `SwapTotal`, bytes.
    pub memory_and_swap: (u64, u64),
}

/// The cgroup whose limit fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredLimit {
    /// The cgroup.
    pub place: Place,
    /// The limit that was set.
    pub limit_bytes: u64,
    /// Its swap limit, if one was set: of swap alone on v2, of memory and swap on v1.
    pub swap_limit_bytes: Option<u64>,
    /// Its counts after the kill.
    pub events: BTreeMap<String, u64>,
    /// Its counters belong to this kill alone, so they must be equal, not only reached.
    pub events_of_this_kill_alone: bool,
    /// Another process dies in it at the same time and gives memory back.
    pub another_dies: bool,
    /// Refused charges that v1 counted (`memory.failcnt`).
    pub refusals: Option<u64>,
    /// The largest charge, read after the kill.
    pub peak_bytes: Option<u64>,
    /// `memory.oom.group`.
    pub oom_group: bool,
    /// The earlier limit, if the limit was set below the usage. The usage is then between the two.
    pub lowered_from: Option<u64>,
}

/// Which process allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedTrigger {
    /// The victim's own process, perhaps another thread: the name of that thread.
    Victim(Vec<u8>),
    /// Another process.
    Other {
        /// Its facts.
        facts: ProcessFacts,
        /// Its cgroup.
        cgroup: Place,
    },
    /// The process in the kernel log.
    Anybody,
}

/// What the line of one kill must contain.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The machine.
    pub host: HostFacts,
    /// Where memory cgroups are.
    pub version: Version,
    /// Whether memory cgroups exist.
    pub memory_cgroups: bool,
    /// How oomtrace reads the OOM killer's state: `fentry`, `kprobe`, `none`.
    pub hook: String,
    /// The victim before the kill.
    pub victim: ProcessFacts,
    /// Its cgroup.
    pub cgroup: Place,
    /// `oom.scope`.
    pub scope: &'static str,
    /// `oom.kill`.
    pub kill: &'static str,
    /// The limit that fired.
    pub fired: Option<FiredLimit>,
    /// Which process allocated.
    pub trigger: ExpectedTrigger,
    /// The time before any process began to allocate, ns of the wall clock.
    pub released_ns: i128,
}

impl Expected {
    /// All differences between the line and the truth.
    pub fn differences(&self, line: &Line, log: &LoggedKill) -> Vec<Difference> {
        let mut fields = Fields::new(line);
        self.envelope(&mut fields);
        self.victim(&mut fields, log);
        self.oom(&mut fields, log);
        self.oom_cgroup(&mut fields, log);
        self.trigger(&mut fields, log);
        for key in ["container", "k8s", "systemd"] {
            fields.absent(key, "the scenario has", "none");
        }
        fields.differences
    }

    fn envelope(&self, fields: &mut Fields<'_>) {
        fields.number("schema", "the contract", 1);
        fields.text("type", "the contract", b"oom_kill");
        fields.text("origin", "the contract", b"ebpf");
        fields.text("severity", "the contract", b"error");
        fields.text("host.name", "/proc", self.host.name.as_bytes());
        fields.text("host.kernel", "/proc", self.host.kernel.as_bytes());
        fields.text("host.boot_id", "/proc", self.host.boot_id.as_bytes());
        fields.time("time", "the scenario", self.released_ns, fields.read_at_ns());
    }

    fn victim(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        let (victim, killed) = (&self.victim, &log.killed);
        fields.number("victim.tid", "kernel log", killed.tid);
        fields.number("victim.tid", "the scenario", victim.tid);
        fields.number("victim.pid", "/proc", victim.pid);
        fields.number("victim.namespace_pid", "/proc", victim.namespace_pid);
        fields.number("victim.parent_pid", "/proc", victim.parent_pid);
        fields.text("victim.comm", "kernel log", &killed.comm);
        fields.text("victim.comm", "/proc", &victim.comm);
        fields.number("victim.uid", "kernel log", killed.uid);
        fields.number("victim.uid", "/proc", victim.uid);
        fields.number("victim.oom_score_adj", "kernel log", killed.oom_score_adj);
        fields.number("victim.oom_score_adj", "/proc", victim.oom_score_adj);
        // One that dies elsewhere may lose threads before it is marked.
        let least = if self.dies() == Dies::Here { victim.threads } else { 0 };
        fields.between("victim.threads", "/proc", least.into(), victim.threads.into());
        fields.text_if_known("victim.executable", "/proc", &victim.executable);
        fields.text_if_known("victim.command_line", "/proc", &victim.command_line);
        let start = self.host.boot_wall_ns + self.ticks_ns(victim.start_ticks);
        // A tick is 10 ms, and the wall clock may be adjusted meanwhile.
        let slack = self.ticks_ns(1) + 10_000_000;
        fields.time("victim.start_time", "/proc", start - slack, start + slack);

        victim_memory(fields, log, &self.host, self.dies());
        match self.swap_pages(log) {
            Some(pages) => {
                let bytes = i128::from(pages) * i128::from(self.host.page_bytes);
                // A counter like those above, but the trace event does not have it, and the log may have the
                // exact value.
                let slack = if pages > 0 { held_back_bytes(&self.host, self.dies()) } else { 0 };
                fields.between("victim.memory.swap_bytes", "kernel log", bytes - slack, bytes + slack);
            }
            None => fields.present("victim.memory.swap_bytes", "the scenario"),
        }
        self.place(fields, "victim.cgroup", &self.cgroup);
        self.lru(fields, log);
    }

    /// The process that allocates runs the OOM killer. Another victim already has its signal when it is
    /// marked, and may run.
    fn dies(&self) -> Dies {
        match self.trigger {
            ExpectedTrigger::Victim(_) if self.kill != "group" => Dies::Here,
            _ => Dies::Elsewhere,
        }
    }

    fn ticks_ns(&self, ticks: u64) -> i128 {
        i128::from(ticks) * 1_000_000_000 / i128::from(self.host.ticks_a_second.max(1))
    }

    fn swap_pages(&self, log: &LoggedKill) -> Option<u64> {
        let no_swap = (self.host.memory_and_swap.1 == 0).then_some(0);
        log.swap_pages.get(&self.victim.tid).or(log.swap_pages.get(&self.victim.pid)).copied().or(no_swap)
    }

    fn place(&self, fields: &mut Fields<'_>, key: &str, place: &Place) {
        if !self.memory_cgroups {
            // This cgroup is in another hierarchy: it may be absent, but not wrong.
            fields.text_if_known(&format!("{key}.path"), "the scenario", &place.path);
            return;
        }
        fields.text(&format!("{key}.path"), "the scenario", &place.path);
        fields.text(&format!("{key}.id"), "the scenario", place.id.to_string().as_bytes());
    }

    fn oom(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        match fields.own_number("seq") {
            // Alone in its run of the OOM killer. The victims of a group kill share the id of the first.
            Some(seq) if self.kill != "group" => fields.number("oom.id", "its seq is", seq),
            Some(seq) => fields.between("oom.id", "its seq is", 0, seq),
            None => fields.present("seq", "the contract"),
        }
        fields.text("oom.scope", "the scenario", self.scope.as_bytes());
        fields.text("oom.kill", "the scenario", self.kill.as_bytes());
        // Without a function hook the killer's state is found in its kernel stack.
        let evidence = if self.hook == "none" { "stack" } else { &self.hook };
        fields.text("oom.evidence", "the scenario", evidence.as_bytes());
        let constraint = match self.scope {
            "memcg" => "CONSTRAINT_MEMCG",
            "cpuset" => "CONSTRAINT_CPUSET",
            "mempolicy" => "CONSTRAINT_MEMORY_POLICY",
            _ => "CONSTRAINT_NONE",
        };
        fields.text("oom.constraint", "the scenario", constraint.as_bytes());
        if let Some(chosen) = &log.chosen {
            fields.text("oom.constraint", "kernel log", chosen.constraint.as_bytes());
            if self.memory_cgroups {
                fields.place_as_logged(&chosen.place, self.scope == "memcg");
            }
        }
        match &log.invoked {
            Some(invoked) => {
                fields.number("oom.order", "kernel log", invoked.order);
                fields.number("oom.gfp_mask_raw", "kernel log", invoked.gfp_mask);
                fields.flags("oom.gfp_mask", "kernel log", &invoked.gfp_names);
            }
            None => {
                for key in ["oom.order", "oom.gfp_mask_raw", "oom.gfp_mask"] {
                    fields.present(key, "the killer's state");
                }
            }
        }
        self.domain(fields, log);
    }

    /// Facts of the OOM killer's own state.
    fn domain(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        let (memory, swap) = self.host.memory_and_swap;
        let domain = match (&self.fired, self.scope) {
            (Some(fired), _) if swap == 0 => Some(fired.limit_bytes),
            (None, "host") => Some(memory + swap),
            _ => None,
        };
        let badness = |rss_kb: u64| {
            let (domain, swap_pages) = domain.zip(self.swap_pages(log))?;
            let page_kb = i128::from(self.host.page_bytes / 1024).max(1);
            let adj = i128::from(log.killed.oom_score_adj)
                * (i128::from(domain) / i128::from(self.host.page_bytes.max(1)) / 1000);
            let pages = i128::from(rss_kb + log.killed.pgtables_kb) / page_kb + i128::from(swap_pages) + adj;
            Some(pages * i128::from(self.host.page_bytes))
        };
        let logged = badness(rss_kb(&log.killed));
        // It was chosen by its size before it began to die.
        let chosen_by = log.marked.as_ref().filter(|_| self.dies() == Dies::Elsewhere);
        let chosen_by = chosen_by.and_then(|marked| badness(marked.rss_kb())).or(logged);
        let slack = match self.dies() {
            Dies::Here => 0,
            Dies::Elsewhere => 3 * held_back_bytes(&self.host, Dies::Elsewhere),
        };
        // The allocating task and the members of a group are not chosen by their score.
        let scored = self.kill == "selected" || self.kill == "sysrq";
        for (key, truth, slack) in [
            ("oom.domain_bytes", domain.map(i128::from), 0),
            ("victim.oom_score_bytes", chosen_by.filter(|_| scored), slack),
        ] {
            match truth {
                Some(truth) => fields.between(key, "computed", truth - slack, truth + slack),
                None if scored => fields.present(key, "the killer's state"),
                None => {}
            }
        }
    }

    fn trigger(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        match &self.trigger {
            ExpectedTrigger::Victim(comm) => {
                fields.number("trigger.pid", "the scenario", self.victim.pid);
                fields.text("trigger.comm", "the scenario", comm);
                fields.number("trigger.oom_score_adj", "the scenario", self.victim.oom_score_adj);
                self.place(fields, "trigger.cgroup", &self.cgroup);
            }
            ExpectedTrigger::Other { facts, cgroup } => {
                fields.number("trigger.pid", "/proc", facts.pid);
                fields.text("trigger.comm", "/proc", &facts.comm);
                fields.number("trigger.oom_score_adj", "/proc", facts.oom_score_adj);
                self.place(fields, "trigger.cgroup", cgroup);
            }
            ExpectedTrigger::Anybody => fields.present("trigger.pid", "the contract"),
        }
        if let Some(invoked) = &log.invoked {
            fields.text("trigger.comm", "kernel log", &invoked.comm);
            fields.number("trigger.oom_score_adj", "kernel log", invoked.oom_score_adj);
        }
    }
}
