//! The longest possible events.

use oomtrace::event::*;

pub fn absences(detail: &str, many: usize) -> Missing {
    let absence = |n| Absence {
        key: format!("key{n}").into(),
        reason: Reason::NoHookAndNoLogLine,
        detail: Some(detail.to_owned().into()),
    };
    (0..many).map(absence).collect()
}

pub fn fullest(text: &str, many: usize) -> Event {
    let t = || Some(text.to_owned());
    let cgroup = Cgroup { path: t(), id: t() };
    let map = || (0..many).map(|n| (format!("{n}{text}"), text.to_owned())).collect();
    Event::OomKill(Box::new(OomKill {
        envelope: Envelope {
            schema: SCHEMA,
            time: text.into(),
            message: text.into(),
            severity: Severity::Info,
            seq: Some(u64::MAX),
            stream: t(),
            id: None,
            origin: Origin::Oomtrace,
            host: Host { name: t(), boot_id: t(), kernel: t() },
            tags: map(),
        },
        oom: Oom {
            id: Some(1 << 53),
            scope: Some(Scope::Mempolicy),
            constraint: Some(Constraint::MemoryPolicy),
            kill: Some(Kill::AllocatingTask),
            order: Some(i32::MIN),
            gfp_mask: t(),
            gfp_mask_raw: Some(u32::MAX),
            domain_bytes: Some(1 << 53),
            evidence: Some(Evidence::KernelLog),
            cgroup: Some(fullest_cgroup(cgroup.clone())),
        },
        victim: fullest_victim(text, cgroup.clone()),
        trigger: Some(Trigger { pid: Some(u32::MAX), comm: t(), oom_score_adj: Some(i32::MIN), cgroup }),
        container: Some(Container {
            id: text.into(),
            name: t(),
            runtime: RuntimeName { name: text.into(), user: Some(u32::MAX) },
            image: Some(Image { name: text.into() }),
            restart_count: Some(1 << 53),
            label: map(),
            nested: vec![text.into(); many],
        }),
        k8s: Some(K8s {
            namespace: Some(Name { name: text.into() }),
            pod: Pod { name: t(), uid: t() },
            qos: Some(Qos::Guaranteed),
            container: Some(K8sContainer { name: text.into(), restart_count: Some(1 << 53) }),
        }),
        systemd: Some(Systemd { unit: text.into(), user: Some(u32::MAX) }),
        truncated: vec![text.into(); many],
        missing: absences(text, many),
    }))
}

/// As [`fullest`], of a signal.
pub fn fullest_signal(text: &str, many: usize) -> Event {
    let Event::OomKill(kill) = fullest(text, many) else { unreachable!() };
    let t = || Some(text.to_owned());
    let cgroup = Cgroup { path: t(), id: t() };
    Event::SignalKill(Box::new(SignalKill {
        envelope: Envelope { seq: None, id: t(), ..kill.envelope },
        signal: Signal::Kill,
        how: Some(How::PidNamespaceEnded),
        processes: Some(u64::MAX),
        target: SignalTarget {
            pid: Some(u32::MAX),
            namespace_pid: Some(u32::MAX),
            comm: t(),
            uid: Some(u32::MAX),
            start_time: t(),
            cgroup: cgroup.clone(),
        },
        sender: SignalSender {
            pid: Some(u32::MAX),
            comm: t(),
            executable: t(),
            uid: Some(u32::MAX),
            parent_comm: t(),
            cgroup: cgroup.clone(),
            container: kill.container.clone().map(Into::into),
            systemd: kill.systemd.clone(),
        },
        killer: Some(Killer::SystemdOomd),
        killer_confirmed: Some(false),
        sigterm_before_ns: Some(1 << 53),
        sigterm_sender: SigtermSender { pid: Some(u32::MAX), comm: t(), uid: Some(u32::MAX) },
        cgroup: fullest_cgroup(cgroup),
        host_memory: Some(HostMemoryThen {
            after_ns: 1 << 53,
            total_bytes: Some(1 << 53),
            available_bytes: Some(1 << 53),
            swap_total_bytes: Some(1 << 53),
            swap_free_bytes: Some(1 << 53),
        }),
        container: kill.container,
        k8s: kill.k8s,
        systemd: kill.systemd,
        truncated: kill.truncated,
        missing: kill.missing,
    }))
}

fn fullest_cgroup(cgroup: Cgroup) -> OomCgroup {
    OomCgroup {
        cgroup,
        limit_bytes: Some(1 << 53),
        usage_bytes: Some(1 << 53),
        peak_bytes: Some(1 << 53),
        swap_limit_bytes: Some(1 << 53),
        swap_usage_bytes: Some(1 << 53),
        memsw_limit_bytes: Some(1 << 53),
        memsw_usage_bytes: Some(1 << 53),
        oom_group: Some(false),
        events: Some(MemoryEvents {
            low: Some(1 << 53),
            high: Some(1 << 53),
            max: Some(1 << 53),
            oom: Some(1 << 53),
            oom_kill: Some(1 << 53),
            oom_group_kill: Some(1 << 53),
        }),
    }
}

fn fullest_victim(text: &str, cgroup: Cgroup) -> Victim {
    let t = || Some(text.to_owned());
    Victim {
        pid: Some(u32::MAX),
        tid: Some(u32::MAX),
        namespace_pid: Some(u32::MAX),
        parent_pid: Some(u32::MAX),
        comm: t(),
        executable: t(),
        command_line: t(),
        uid: Some(u32::MAX),
        start_time: t(),
        oom_score_adj: Some(i32::MIN),
        threads: Some(u32::MAX),
        oom_score_bytes: Some(-(1 << 53)),
        memory: VictimMemory {
            rss_bytes: Some(1 << 53),
            anon_rss_bytes: Some(1 << 53),
            file_rss_bytes: Some(1 << 53),
            shmem_rss_bytes: Some(1 << 53),
            swap_bytes: Some(1 << 53),
            pgtables_bytes: Some(1 << 53),
            total_vm_bytes: Some(1 << 53),
        },
        cgroup: VictimCgroup {
            lru: Some(Lru {
                anon_bytes: Some(1 << 53),
                file_bytes: Some(1 << 53),
                unevictable_bytes: Some(1 << 53),
            }),
            tasks: Some(Tasks {
                count: Some(1 << 53),
                limit: Some(1 << 53),
                peak: Some(1 << 53),
                cgroup: Some(cgroup.clone()),
            }),
            ..cgroup.into()
        },
    }
}
