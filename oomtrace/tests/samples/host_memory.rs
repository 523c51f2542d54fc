//! The memory of a host that ran out.

use oomtrace::event::*;

use super::{ID, STREAM, container, envelope};

/// An unlimited container has all, and a small one died.
pub fn host_memory() -> HostMemory {
    HostMemory {
        envelope: Envelope { id: Some(format!("{STREAM}-host-42")), ..envelope(Origin::Oomtrace, None) },
        of: vec![42],
        killed: 1,
        scope: Some(Scope::Host),
        order: Some(0),
        victim: HostVictim {
            pid: Some(2990),
            comm: Some("python3".into()),
            oom_score_adj: Some(1000),
            usage_bytes: Some(429_916_160),
        },
        memory: Some(totals()),
        charged: Some(Charged {
            evidence: ChargedEvidence::Kernel,
            after_ns: 310_000,
            cgroups: 214,
            usage_bytes: Some(23_407_034_368),
            removed: Some(RemovedCgroups { count: 49, usage_bytes: 123_383_808 }),
        }),
        top: top(),
        killed_largest: Some(false),
        container: Some(container()),
        k8s: None,
        systemd: None,
        truncated: vec![],
        missing: Missing::new(),
    }
}

fn totals() -> HostTotals {
    HostTotals {
        evidence: HostEvidence::KernelLog,
        total_bytes: Some(25_276_317_696),
        free_bytes: Some(71_303_168),
        lru: Lru {
            anon_bytes: Some(22_548_578_304),
            file_bytes: Some(104_857_600),
            unevictable_bytes: Some(0),
        },
        file_bytes: Some(1_178_599_424),
        shmem_bytes: Some(1_073_741_824),
        slab_reclaimable_bytes: Some(62_914_560),
        slab_unreclaimable_bytes: Some(536_870_912),
        pagetables_bytes: Some(67_108_864),
        kernel_stack_bytes: Some(33_554_432),
        vmalloc_bytes: Some(58_720_256),
        percpu_bytes: Some(8_388_608),
        hugetlb_bytes: Some(0),
        swap_total_bytes: Some(0),
        swap_free_bytes: Some(0),
        unexplained_bytes: Some(1_817_575_424),
    }
}

fn top() -> Vec<TopUser> {
    let small = |id: &str, name: &str| Container {
        id: id.to_owned(),
        name: Some(name.to_owned()),
        runtime: RuntimeName { name: "docker".into(), user: None },
        ..Container::default()
    };
    let user = |id: &str, usage_bytes: u64| TopUser { id: id.to_owned(), usage_bytes, ..TopUser::default() };
    vec![
        TopUser {
            unlimited: true,
            container: Some(small(&ID.replace("ab12", "cd34"), "shop-worker-1")),
            ..user("4311", 9_663_676_416)
        },
        TopUser {
            limit_bytes: Some(6_442_450_944),
            systemd: Some(Systemd { unit: "postgresql.service".into(), user: None }),
            ..user("311", 4_294_967_296)
        },
        TopUser {
            killed: true,
            unlimited: true,
            container: Some(small(ID, "api-service")),
            ..user("4242", 429_916_160)
        },
        TopUser { removed: true, ..user("4100", 104_857_600) },
        TopUser { without_below: true, path: Some("/batch".into()), ..user("77", 8_388_608) },
    ]
}
