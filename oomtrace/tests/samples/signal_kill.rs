//! Signals that ended processes.

use oomtrace::event::*;

use super::{cgroup, container, events, oom_cgroup, repeatable};

/// A container that ignored its SIGTERM: its runtime sent SIGKILL when the grace ran out.
pub fn signal_kill() -> SignalKill {
    let roomy = OomCgroup {
        limit_bytes: Some(536870912),
        usage_bytes: Some(222298112),
        peak_bytes: Some(301989888),
        events: Some(MemoryEvents { max: Some(0), oom: Some(0), oom_kill: Some(0), ..events() }),
        ..oom_cgroup()
    };
    SignalKill {
        envelope: repeatable(Origin::Ebpf, "signal_kill-1052345123456789-2990"),
        signal: Signal::Kill,
        how: Some(How::Kill),
        processes: Some(1),
        target: SignalTarget {
            pid: Some(2990),
            namespace_pid: Some(1),
            comm: Some("python3".into()),
            uid: Some(0),
            start_time: Some("2026-11-21T03:12:44.000000000Z".into()),
            cgroup: cgroup(),
        },
        sender: SignalSender {
            pid: Some(4711),
            comm: Some("runc".into()),
            executable: Some("/usr/bin/runc".into()),
            uid: Some(0),
            parent_comm: Some("containerd-shim".into()),
            cgroup: Cgroup { path: Some("/system.slice/containerd.service".into()), id: Some("77".into()) },
            container: None,
            systemd: Some(Systemd { unit: "containerd.service".into(), user: None }),
        },
        killer: Some(Killer::Runtime),
        killer_confirmed: None,
        sigterm_before_ns: Some(10_002_000_000),
        sigterm_sender: SigtermSender { pid: Some(4698), comm: Some("runc".into()), uid: Some(0) },
        cgroup: roomy,
        host_memory: None,
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

/// A killer of user space ended all of a unit, and says so itself.
pub fn signal_kill_for_memory() -> SignalKill {
    let unit = |unit: &str, user| Some(Systemd { unit: unit.into(), user });
    let at = |path: &str, id: &str| Cgroup { path: Some(path.into()), id: Some(id.into()) };
    let of = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope";
    SignalKill {
        envelope: repeatable(Origin::Ebpf, "signal_kill-1052345123456789-5120"),
        how: Some(How::CgroupKill),
        processes: Some(12),
        target: SignalTarget {
            pid: Some(5120),
            namespace_pid: Some(5120),
            comm: Some("firefox".into()),
            uid: Some(1000),
            cgroup: at(of, "5100"),
            ..signal_kill().target
        },
        sender: SignalSender {
            pid: Some(612),
            comm: Some("systemd-oomd".into()),
            executable: None,
            uid: Some(998),
            parent_comm: Some("systemd".into()),
            cgroup: at("/system.slice/systemd-oomd.service", "78"),
            container: None,
            systemd: unit("systemd-oomd.service", None),
        },
        killer: Some(Killer::SystemdOomd),
        killer_confirmed: Some(true),
        sigterm_before_ns: None,
        sigterm_sender: SigtermSender::default(),
        cgroup: OomCgroup {
            cgroup: at(of, "5100"),
            limit_bytes: None,
            usage_bytes: Some(3221225472),
            peak_bytes: Some(3221225472),
            ..signal_kill().cgroup
        },
        host_memory: Some(HostMemoryThen {
            after_ns: 310_000,
            total_bytes: Some(8_323_305_472),
            available_bytes: Some(291_504_128),
            swap_total_bytes: Some(1_073_741_824),
            swap_free_bytes: Some(4_194_304),
        }),
        container: None,
        systemd: unit("app-firefox.scope", Some(1000)),
        missing: [("cgroup.limit_bytes", Reason::NoLimit), ("sender.executable", Reason::ProcTooSlow)]
            .map(|(key, reason)| Absence::new(key, reason))
            .into(),
        ..signal_kill()
    }
}
