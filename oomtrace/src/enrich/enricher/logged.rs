//! An event for a kill that only the kernel's log reports: what its lines say, and why the rest is absent.

use crate::{
    enrich::{
        absent::Absent,
        enricher::{Enricher, seen},
    },
    event::{
        Absence, Cgroup, CgroupVersion, Constraint, Envelope, Evidence, Host, Kill, Oom, OomCgroup, OomKill,
        Origin, Reason, Trigger, Victim, VictimCgroup, VictimMemory, text_from_kernel,
    },
    facts::{
        BootTime, Limit, Lineage,
        kernel_log::{LoggedKill, OomDomain, OomReport, Split, Usage, UsageKind},
    },
    host::clock,
};

/// Which log a kill is from.
#[derive(Clone, Debug)]
pub enum LogOrigin {
    /// The log of this host since boot. The kill was before the programs were attached.
    BeforeStart,
    /// The log of this host since boot, without programs.
    ThisBoot,
    /// A saved log.
    Saved {
        /// Nanoseconds since 1970.
        unix_ns: i128,
        /// Why the time is not exact.
        inexact: Reason,
        /// The host, as far as the log names it.
        host: Host,
    },
}

const NOT_LOGGED: Reason = Reason::NotInKernelLog;
const RATE_LIMITED: Reason = Reason::LogRateLimited;
const AMBIGUOUS: Reason = Reason::AmbiguousLogLine;
const OF_A_GROUP: Reason = Reason::NotTheChosen;

impl Enricher {
    /// The event for a kill that only the kernel's log reports.
    pub fn logged_kill(&mut self, kill: &LoggedKill, origin: &LogOrigin) -> OomKill {
        let mut absent = Absent::default();
        let report = kill.report.as_ref();
        let split = report.and_then(OomReport::split);
        let why = match report {
            None => RATE_LIMITED,
            Some(_) if !kill.chosen => OF_A_GROUP,
            Some(_) => AMBIGUOUS,
        };
        let time = match origin {
            LogOrigin::Saved { .. } => BootTime(0),
            _ => clock::boot_time_of_log(kill.meta.time_us.saturating_mul(1000)),
        };
        let envelope = self.logged_envelope(kill, time, origin, &mut absent);
        let path = split.as_ref().filter(|_| kill.chosen).map(|split| split.task_memcg.clone());
        let identity = if path.is_some() {
            self.identify(seen(&[], &Lineage::default(), path.as_deref()), time, &mut absent)
        } else {
            absent.because("container", why);
            Default::default()
        };
        let oom = self.logged_oom(kill, split.as_ref(), &mut absent);
        let victim = logged_victim(kill, path, why, &mut absent);
        let trigger = report.and_then(|report| report.invoked.as_ref()).map(|invoked| {
            absent.because("trigger.pid", NOT_LOGGED);
            absent.because("trigger.cgroup.path", NOT_LOGGED);
            absent.because("trigger.cgroup.id", NOT_LOGGED);
            Trigger {
                pid: None,
                comm: Some(text_from_kernel(&invoked.comm)),
                oom_score_adj: Some(invoked.oom_score_adj),
                cgroup: Cgroup::default(),
            }
        });
        absent.unless(trigger.as_ref(), "trigger", if report.is_none() { RATE_LIMITED } else { NOT_LOGGED });
        let mut missing = absent.into_missing();
        if let LogOrigin::Saved { .. } = origin {
            // No runtime was asked, because the log may be another host's.
            let unknown = |absence: &&mut Absence| absence.reason == Reason::ContainerUnknown;
            missing.iter_mut().filter(unknown).for_each(|absence| absence.reason = NOT_LOGGED);
        }
        OomKill {
            envelope,
            oom,
            victim,
            trigger,
            container: identity.container,
            k8s: identity.k8s,
            systemd: identity.systemd,
            truncated: Vec::new(),
            missing,
        }
    }

    fn logged_envelope(
        &mut self,
        kill: &LoggedKill,
        time: BootTime,
        origin: &LogOrigin,
        absent: &mut Absent,
    ) -> Envelope {
        let mut envelope = self.envelope(time, None, Origin::Kmsg);
        let no_seq = match origin {
            LogOrigin::BeforeStart => Reason::BeforeStart,
            LogOrigin::ThisBoot | LogOrigin::Saved { .. } => NOT_LOGGED,
        };
        absent.because("seq", no_seq);
        let LogOrigin::Saved { unix_ns, inexact, host } = origin else {
            absent.because("time", Reason::LogClock);
            if let Some(boot_id) = &envelope.host.boot_id {
                // Each reading of this log finds the same line.
                envelope.id = Some(format!("{boot_id}-kmsg-{}", kill.meta.seq));
            }
            return envelope;
        };
        absent.because("time", *inexact);
        if *host == Host::default() {
            absent.because("host", NOT_LOGGED);
        } else {
            absent.unless(host.name.as_ref(), "host.name", NOT_LOGGED);
            absent.unless(host.boot_id.as_ref(), "host.boot_id", NOT_LOGGED);
            absent.unless(host.kernel.as_ref(), "host.kernel", NOT_LOGGED);
        }
        envelope.time = clock::rfc3339(*unix_ns);
        envelope.host = host.clone();
        envelope
    }

    fn logged_oom(&self, kill: &LoggedKill, split: Option<&Split>, absent: &mut Absent) -> Oom {
        absent.because("oom.id", NOT_LOGGED);
        absent.because("oom.domain_bytes", NOT_LOGGED);
        let message = kill.killed.message.as_slice();
        // The message says what ran out. For the host, only the report says more.
        let by_message = message.starts_with(b"Memory cgroup").then_some(Constraint::Memcg);
        let report = kill.report.as_ref();
        let constraint = report.and_then(OomReport::constraint).or(by_message);
        let invoked = report.and_then(|report| report.invoked.as_ref());
        let why = if report.is_none() { RATE_LIMITED } else { NOT_LOGGED };
        for (known, key) in [
            (constraint.is_some(), "oom.constraint"),
            (constraint.is_some(), "oom.scope"),
            (invoked.is_some(), "oom.order"),
            (invoked.is_some(), "oom.gfp_mask"),
            (invoked.is_some(), "oom.gfp_mask_raw"),
        ] {
            if !known {
                absent.because(key, why);
            }
        }
        let how = match (report, invoked) {
            _ if message.ends_with(b"(oom_kill_allocating_task)") => Some(Kill::AllocatingTask),
            (Some(_), Some(invoked)) if invoked.order == -1 => Some(Kill::Sysrq),
            (Some(report), _) if report.group.is_some() => Some(Kill::Group),
            (Some(_), Some(_)) => Some(Kill::Selected),
            _ => None,
        };
        Oom {
            id: None,
            scope: constraint.map(Constraint::scope),
            constraint,
            kill: absent.unless(how, "oom.kill", why),
            order: invoked.map(|invoked| invoked.order),
            gfp_mask: invoked.map(|invoked| invoked.gfp_mask_names.clone()),
            gfp_mask_raw: invoked.map(|invoked| invoked.gfp_mask_raw),
            domain_bytes: None,
            evidence: Some(Evidence::KernelLog),
            cgroup: (constraint == Some(Constraint::Memcg))
                .then(|| self.logged_cgroup(report, split, absent))
                .flatten(),
        }
    }

    fn logged_cgroup(
        &self,
        report: Option<&OomReport>,
        split: Option<&Split>,
        absent: &mut Absent,
    ) -> Option<OomCgroup> {
        let report = absent.unless(report, "oom.cgroup", RATE_LIMITED)?;
        let path = match split.map(|split| &split.domain) {
            Some(OomDomain::Memcg(path)) => Some(path),
            _ => report.stats_memcg.as_ref(),
        };
        absent.because("oom.cgroup.id", NOT_LOGGED);
        absent.because("oom.cgroup.events", NOT_LOGGED);
        absent.because("oom.cgroup.peak_bytes", NOT_LOGGED);
        // Swap, and memory and swap together, have different lines. They show which hierarchy memory was on.
        let v2 = match (report.usage(UsageKind::Swap), report.usage(UsageKind::MemorySwap)) {
            (Some(_), _) => true,
            (None, Some(_)) => false,
            (None, None) => self.knowledge.version == CgroupVersion::V2,
        };
        let memory = report.usage(UsageKind::Memory);
        let swap = report.usage(if v2 { UsageKind::Swap } else { UsageKind::MemorySwap });
        let swap_key = if v2 { "oom.cgroup.swap_limit_bytes" } else { "oom.cgroup.memsw_limit_bytes" };
        let mut limit = |usage: Option<&Usage>, key: &'static str| match usage.map(|usage| usage.limit) {
            Some(Limit::Bytes(bytes)) => Some(bytes),
            Some(Limit::Unlimited) => absent.unless(None, key, Reason::NoLimit),
            None => absent.unless(None, key, NOT_LOGGED),
        };
        let limit_bytes = limit(memory, "oom.cgroup.limit_bytes");
        let swap_limit = limit(swap, swap_key);
        let usage_key = if v2 { "oom.cgroup.swap_usage_bytes" } else { "oom.cgroup.memsw_usage_bytes" };
        let swap_usage = absent.unless(swap.map(|usage| usage.usage_bytes), usage_key, NOT_LOGGED);
        if v2 {
            absent.because("oom.cgroup.oom_group", NOT_LOGGED);
        }
        Some(OomCgroup {
            cgroup: Cgroup {
                path: absent.unless(path.map(|path| text_from_kernel(path)), "oom.cgroup.path", AMBIGUOUS),
                id: None,
            },
            limit_bytes,
            usage_bytes: absent.unless(
                memory.map(|usage| usage.usage_bytes),
                "oom.cgroup.usage_bytes",
                NOT_LOGGED,
            ),
            swap_limit_bytes: swap_limit.filter(|_| v2),
            swap_usage_bytes: swap_usage.filter(|_| v2),
            memsw_limit_bytes: swap_limit.filter(|_| !v2),
            memsw_usage_bytes: swap_usage.filter(|_| !v2),
            ..OomCgroup::default()
        })
    }
}

fn logged_victim(kill: &LoggedKill, path: Option<Vec<u8>>, why: Reason, absent: &mut Absent) -> Victim {
    let killed = &kill.killed;
    for key in [
        "victim.namespace_pid",
        "victim.parent_pid",
        "victim.executable",
        "victim.command_line",
        "victim.start_time",
        "victim.oom_score_bytes",
        "victim.memory.swap_bytes",
        "victim.threads",
        "victim.cgroup.id",
        "victim.cgroup.lru",
        "victim.cgroup.tasks",
    ] {
        absent.because(key, NOT_LOGGED);
    }
    let pid = kill.report.as_ref().filter(|_| kill.chosen).map(OomReport::pid);
    let rss = killed.anon_rss_bytes.checked_add(killed.file_rss_bytes);
    Victim {
        pid: absent.unless(pid, "victim.pid", if kill.report.is_none() { RATE_LIMITED } else { OF_A_GROUP }),
        tid: Some(killed.tid),
        comm: Some(text_from_kernel(&killed.comm)),
        uid: Some(killed.uid),
        oom_score_adj: Some(killed.oom_score_adj),
        memory: VictimMemory {
            rss_bytes: rss.and_then(|rss| rss.checked_add(killed.shmem_rss_bytes)),
            anon_rss_bytes: Some(killed.anon_rss_bytes),
            file_rss_bytes: Some(killed.file_rss_bytes),
            shmem_rss_bytes: Some(killed.shmem_rss_bytes),
            swap_bytes: None,
            pgtables_bytes: Some(killed.pgtables_bytes),
            total_vm_bytes: Some(killed.total_vm_bytes),
        },
        cgroup: VictimCgroup {
            path: absent.unless(path.as_deref().map(text_from_kernel), "victim.cgroup.path", why),
            ..VictimCgroup::default()
        },
        ..Victim::default()
    }
}
