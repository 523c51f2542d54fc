//! One event of each type, with every key of the type, as in the snapshots and the docs.

mod history;
mod host_memory;
mod incident;
mod signal_kill;
mod stuck;

pub use host_memory::host_memory;
pub use incident::{incident, incident_of_many};
use oomtrace::event::*;
pub use signal_kill::{signal_kill, signal_kill_for_memory};
pub use stuck::stuck;

pub const ID: &str = "ab12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b";

/// The stream and the instance.
pub const STREAM: &str = "c7d0e1a2b3f44586978a0b1c2d3e4f50";
const INSTANCE: &str = "5b0e8c1d9f2a476381726354a0b9c8d7";

pub fn envelope(origin: Origin, seq: Option<u64>) -> Envelope {
    Envelope {
        schema: SCHEMA,
        time: "2026-11-21T03:12:45.123456789Z".into(),
        message: String::new(),
        severity: Severity::default(),
        seq,
        stream: Some(STREAM.into()),
        id: seq.is_none().then(|| format!("{INSTANCE}-1")),
        origin,
        host: Host {
            name: Some("node-7".into()),
            boot_id: Some("6f1c2a5e-0b7d-4c55-9a43-1de0f8f3a7b2".into()),
            kernel: Some("6.12.41-amd64".into()),
        },
        tags: [("cluster".to_owned(), "blue".to_owned())].into(),
    }
}

pub fn cgroup() -> Cgroup {
    Cgroup { path: Some(format!("/docker/{ID}")), id: Some("4242".into()) }
}

fn victim_cgroup() -> VictimCgroup {
    VictimCgroup {
        lru: Some(Lru { anon_bytes: Some(52043776), file_bytes: Some(16384), unevictable_bytes: Some(0) }),
        tasks: Some(Tasks { count: Some(12), limit: Some(512), peak: Some(14), cgroup: None }),
        ..cgroup().into()
    }
}

pub fn oom_cgroup() -> OomCgroup {
    OomCgroup {
        cgroup: cgroup(),
        limit_bytes: Some(52428800),
        usage_bytes: Some(52424704),
        peak_bytes: Some(52428800),
        swap_limit_bytes: Some(0),
        swap_usage_bytes: Some(0),
        memsw_limit_bytes: None,
        memsw_usage_bytes: None,
        oom_group: Some(false),
        events: Some(events()),
    }
}

fn events() -> MemoryEvents {
    MemoryEvents {
        low: Some(0),
        high: Some(0),
        max: Some(35),
        oom: Some(1),
        oom_kill: Some(1),
        oom_group_kill: Some(0),
    }
}

pub fn trigger() -> Trigger {
    Trigger { pid: Some(2990), comm: Some("python3".into()), oom_score_adj: Some(0), cgroup: cgroup() }
}

pub fn container() -> Container {
    Container {
        id: ID.into(),
        name: Some("api-service".into()),
        runtime: RuntimeName { name: "docker".into(), user: None },
        image: Some(Image { name: "api:v2.0".into() }),
        restart_count: Some(3),
        label: [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "api")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        nested: vec![],
    }
}

pub fn k8s() -> K8s {
    K8s {
        namespace: Some(Name { name: "shop".into() }),
        pod: Pod { name: Some("api-7d9f".into()), uid: Some("0b6f3a52-7f0e-4f0c-8f52-0a8f1d0e5c11".into()) },
        qos: Some(Qos::Burstable),
        container: Some(K8sContainer { name: "api".into(), restart_count: Some(3) }),
    }
}

pub fn oom_kill() -> OomKill {
    OomKill {
        envelope: envelope(Origin::Ebpf, Some(42)),
        oom: Oom {
            id: Some(42),
            scope: Some(Scope::Memcg),
            constraint: Some(Constraint::Memcg),
            kill: Some(Kill::Selected),
            order: Some(0),
            gfp_mask: Some("GFP_KERNEL".into()),
            gfp_mask_raw: Some(3264),
            domain_bytes: Some(52428800),
            evidence: Some(Evidence::Fentry),
            cgroup: Some(oom_cgroup()),
        },
        victim: Victim {
            pid: Some(2990),
            tid: Some(2990),
            namespace_pid: Some(1),
            parent_pid: Some(2967),
            comm: Some("python3".into()),
            executable: Some("/usr/bin/python3.11".into()),
            command_line: Some("python3 app.py".into()),
            uid: Some(0),
            start_time: Some("2026-11-21T03:12:44.000000000Z".into()),
            oom_score_adj: Some(0),
            threads: Some(9),
            oom_score_bytes: Some(55320576),
            memory: VictimMemory {
                rss_bytes: Some(55050240),
                anon_rss_bytes: Some(52035584),
                file_rss_bytes: Some(3014656),
                shmem_rss_bytes: Some(0),
                swap_bytes: Some(0),
                pgtables_bytes: Some(167936),
                total_vm_bytes: Some(226680832),
            },
            cgroup: victim_cgroup(),
        },
        trigger: Some(trigger()),
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

/// A kill in a pod by the pod's limit, on cgroup v1 without a function hook, with few facts.
pub fn oom_kill_in_a_pod() -> OomKill {
    let pod = "/kubepods/burstable/pod0b6f3a52-7f0e-4f0c-8f52-0a8f1d0e5c11";
    let mut event = oom_kill();
    event.oom.domain_bytes = None;
    event.oom.evidence = Some(Evidence::KernelLog);
    event.oom.cgroup = Some(OomCgroup {
        cgroup: Cgroup { path: Some(pod.into()), id: Some("4100".into()) },
        swap_limit_bytes: None,
        swap_usage_bytes: None,
        memsw_limit_bytes: Some(52428800),
        memsw_usage_bytes: Some(52424704),
        oom_group: None,
        events: Some(MemoryEvents { low: None, high: None, oom_group_kill: None, ..events() }),
        ..oom_cgroup()
    });
    event.victim.cgroup.path = Some(format!("{pod}/{ID}"));
    event.victim.cgroup.tasks = Some(Tasks {
        limit: None,
        cgroup: Some(Cgroup { path: None, id: Some("311".into()) }),
        count: Some(12),
        peak: Some(14),
    });
    event.victim.command_line = None;
    event.victim.executable = None;
    event.victim.oom_score_bytes = None;
    event.trigger = Some(Trigger {
        pid: Some(3001),
        comm: Some("kubelet".into()),
        oom_score_adj: Some(-999),
        cgroup: Cgroup { path: Some("/system.slice/kubelet.service".into()), id: Some("77".into()) },
    });
    event.container = Some(Container {
        runtime: RuntimeName { name: "containerd".into(), user: None },
        nested: vec![ID.chars().rev().collect()],
        ..container()
    });
    event.k8s = Some(k8s());
    event.systemd = Some(Systemd { unit: "containerd.service".into(), user: None });
    let gone = Reason::MemoryReleased;
    event.missing = [
        ("oom.domain_bytes", Reason::NoFunctionHook),
        ("victim.cgroup.tasks.cgroup.path", Reason::OtherHierarchy),
        ("victim.cgroup.tasks.limit", Reason::NoLimit),
        ("victim.command_line", gone),
        ("victim.oom_score_bytes", Reason::NoFunctionHook),
    ]
    .map(|(key, reason)| Absence::new(key, reason))
    .into();
    event.missing.insert(4, Absence::new("victim.executable", Why::with(Reason::ProcBusy, "pid 2988")));
    event
}

pub fn shared_mm_kill() -> SharedMmKill {
    SharedMmKill {
        envelope: envelope(Origin::Ebpf, Some(43)),
        of: vec![42],
        victim: SharedMmVictim {
            pid: Some(2995),
            namespace_pid: Some(6),
            parent_pid: Some(2990),
            comm: Some("python3".into()),
            uid: Some(0),
            oom_score_adj: Some(0),
            start_time: Some("2026-11-21T03:12:44.500000000Z".into()),
            cgroup: cgroup(),
        },
        container: Some(container()),
        k8s: None,
        systemd: Some(Systemd { unit: "docker.service".into(), user: None }),
        truncated: vec![],
        missing: Missing::new(),
    }
}

pub fn memcg_oom() -> MemcgOom {
    MemcgOom {
        envelope: envelope(Origin::Ebpf, Some(44)),
        cgroup: oom_cgroup(),
        order: Some(0),
        gfp_mask: Some("GFP_KERNEL".into()),
        gfp_mask_raw: Some(3264),
        trigger: Some(trigger()),
        outcome: Some(MemcgOomOutcome::NoKillableProcess),
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

pub fn start() -> Start {
    let hook = |name: &str, attached: &str, reason: Option<&str>| HookStatus {
        name: name.into(),
        attached: attached.into(),
        reason: reason.map(Into::into),
    };
    Start {
        envelope: envelope(Origin::Oomtrace, None),
        version: "0.1.0".into(),
        instance: INSTANCE.into(),
        hooks: vec![
            hook("mark_victim", "raw_tracepoint", None),
            hook(
                "oom_kill_process",
                "none",
                Some(
                    "failed to load a fentry program for out_of_memory: Operation not permitted (os error 1); failed to \
                     attach kprobe/out_of_memory: `/sys/bus/event_source/devices/kprobe/type`: No such file or directory \
                     (os error 2)",
                ),
            ),
            hook("sample_cgroups", "test_run", None),
        ],
        cgroup_version: CgroupVersion::V2,
        runtimes: vec!["docker=/var/lib/docker".into(), "containerd=/run/containerd".into()],
        resumed: false,
        limits: vec![
            "memory is not locked (out of memory; it needs CAP_IPC_LOCK, or a higher RLIMIT_MEMLOCK): lines may be late \
             while memory is short"
                .into(),
        ],
        truncated: vec![],
    }
}

/// Like [`envelope`], for line `number` of those that only this run writes.
fn of_run(number: u32) -> Envelope {
    Envelope { id: Some(format!("{INSTANCE}-{number}")), ..envelope(Origin::Oomtrace, None) }
}

/// Like [`envelope`], for a line that another run may write too.
fn repeatable(origin: Origin, id: &str) -> Envelope {
    Envelope { id: Some(format!("{STREAM}-{id}")), ..envelope(origin, None) }
}

pub fn lost() -> Lost {
    let envelope = repeatable(Origin::Oomtrace, "lost-ring_full-5");
    Lost { envelope, count: 3, reason: LossReason::RingFull, total: 5, truncated: vec![] }
}

pub fn gap() -> Gap {
    Gap {
        envelope: repeatable(Origin::Oomtrace, "gap-1052345123456789-5-4"),
        kernel_kills: 5,
        reported: 4,
        since: "2026-11-21T03:11:45.000000000Z".into(),
        cgroups: vec![GapCgroup { path: "/system.slice".into(), kernel_kills: 3, reported: 2 }],
        truncated: vec![],
    }
}

pub fn hooks() -> Hooks {
    Hooks {
        envelope: of_run(2),
        state: HooksState::Silent,
        limit: Some(oomtrace::sources::function_hooks::SILENT.into()),
        truncated: vec![],
    }
}

pub fn verdict() -> Verdict {
    Verdict {
        envelope: repeatable(Origin::Runtime, "verdict-42"),
        of: vec![42],
        container: container(),
        runtime_says: Some(RuntimeSays {
            oom_killed: Some(false),
            exit_code: Some(0),
            status: Some("running".into()),
        }),
        missed: Some(true),
        false_positive: vec![ID.chars().rev().collect()],
        truncated: vec![],
        missing: Missing::new(),
    }
}

pub fn stop() -> Stop {
    Stop {
        envelope: of_run(3),
        reason: "SIGTERM".into(),
        events: 42,
        lost: 3,
        signals_left_out: Some(7),
        truncated: vec![],
    }
}

/// One of each type, and a second kill.
pub fn all() -> Vec<(&'static str, Event)> {
    vec![
        ("start", Event::Start(Box::new(start()))),
        ("oom_kill", Event::OomKill(Box::new(oom_kill()))),
        ("oom_kill_in_a_pod", Event::OomKill(Box::new(oom_kill_in_a_pod()))),
        ("shared_mm_kill", Event::SharedMmKill(Box::new(shared_mm_kill()))),
        ("memcg_oom", Event::MemcgOom(Box::new(memcg_oom()))),
        ("signal_kill", Event::SignalKill(Box::new(signal_kill()))),
        ("signal_kill_for_memory", Event::SignalKill(Box::new(signal_kill_for_memory()))),
        ("incident", Event::Incident(Box::new(incident()))),
        ("incident_of_many", Event::Incident(Box::new(incident_of_many()))),
        ("host_memory", Event::HostMemory(Box::new(host_memory()))),
        ("stuck", Event::Stuck(Box::new(stuck()))),
        ("lost", Event::Lost(Box::new(lost()))),
        ("gap", Event::Gap(Box::new(gap()))),
        ("hooks", Event::Hooks(Box::new(hooks()))),
        ("verdict", Event::Verdict(Box::new(verdict()))),
        ("stop", Event::Stop(Box::new(stop()))),
        ("limit_near", Event::LimitNear(Box::new(history::limit_near()))),
        ("limit_near_full", Event::LimitNear(Box::new(history::limit_near_full()))),
        ("limit_far", Event::LimitFar(Box::new(history::limit_far()))),
        ("usage", Event::Usage(Box::new(history::usage()))),
    ]
}

/// The line of an event as JSON.
pub fn json(event: &Event) -> String {
    let mut line = Vec::new();
    oomtrace::outputs::encode::json::line(event, &mut line).unwrap();
    String::from_utf8(line).unwrap()
}
