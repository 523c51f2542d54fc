//! The parts of the memory of a host that ran out.

#![allow(dead_code, reason = "the fields are there to be parsed")]

use serde::Deserialize;

use super::{Container, K8s, Systemd, incident::Lru};

macro_rules! strict {
    ($(struct $name:ident { $($body:tt)* })*) => {
        $(#[derive(Deserialize)] #[serde(deny_unknown_fields)] pub struct $name { $($body)* })*
    };
}

#[derive(Deserialize)]
pub enum HostEvidence {
    #[serde(rename = "kernel_log")]
    A,
    #[serde(rename = "meminfo")]
    B,
}

#[derive(Deserialize)]
pub enum ChargedEvidence {
    #[serde(rename = "kernel")]
    A,
    #[serde(rename = "cgroupfs")]
    B,
}

strict! {
    struct HostVictim {
        pid: Option<u32>,
        comm: Option<String>,
        oom_score_adj: Option<i32>,
        usage_bytes: Option<u64>,
    }
    struct HostTotals {
        evidence: HostEvidence,
        total_bytes: Option<u64>,
        free_bytes: Option<u64>,
        lru: Option<Lru>,
        file_bytes: Option<u64>,
        shmem_bytes: Option<u64>,
        slab_reclaimable_bytes: Option<u64>,
        slab_unreclaimable_bytes: Option<u64>,
        pagetables_bytes: Option<u64>,
        kernel_stack_bytes: Option<u64>,
        vmalloc_bytes: Option<u64>,
        percpu_bytes: Option<u64>,
        hugetlb_bytes: Option<u64>,
        swap_total_bytes: Option<u64>,
        swap_free_bytes: Option<u64>,
        unexplained_bytes: Option<u64>,
    }
    struct Charged {
        evidence: ChargedEvidence,
        after_ns: u64,
        cgroups: u64,
        usage_bytes: Option<u64>,
        removed: Option<RemovedCgroups>,
    }
    struct RemovedCgroups { count: u64, usage_bytes: u64 }
    struct TopUser {
        usage_bytes: u64,
        limit_bytes: Option<u64>,
        unlimited: Option<bool>,
        killed: Option<bool>,
        removed: Option<bool>,
        without_below: Option<bool>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        path: Option<String>,
        id: String,
    }
}
