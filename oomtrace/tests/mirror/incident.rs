//! The parts of an incident.

#![allow(dead_code, reason = "the fields are there to be parsed")]

use serde::Deserialize;

macro_rules! strict {
    ($(struct $name:ident { $($body:tt)* })*) => {
        $(#[derive(Deserialize)] #[serde(deny_unknown_fields)] pub struct $name { $($body)* })*
    };
}

macro_rules! words {
    ($(enum $name:ident { $($word:ident = $text:literal),* $(,)? })*) => {
        $(#[derive(Deserialize)] pub enum $name { $(#[serde(rename = $text)] $word),* })*
    };
}

words! {
    enum MemoryEvidence { A = "kernel_log", B = "cgroupfs" }
    enum TableEvidence { A = "kernel_log" }
    enum FindingId {
        A = "anon_fills_limit", B = "shmem_large", C = "kernel_large", D = "cache_present", E = "no_swap",
        F = "limit_above_victim", G = "bystander", H = "protected_largest", I = "heap_flag_over_limit",
        J = "memory_stays", K = "host_not_full", L = "child_killed_container_lives",
    }
    enum Part {
        A = "kernel_stack", B = "pagetables", C = "slab_reclaimable", D = "slab_unreclaimable", E = "sock",
        F = "percpu",
    }
    enum HeapOption { A = "-Xmx", B = "-XX:MaxRAMPercentage", C = "--max-old-space-size" }
    enum BeforeOf { A = "limit", B = "victim" }
    enum Shape { A = "short", B = "at_limit", C = "burst", D = "steps", E = "growth", F = "irregular" }
    enum NearBecause { A = "rising", B = "full" }
    enum Reaper { A = "not_needed", B = "reaped", C = "failed" }
}

strict! {
    struct IncidentVictim { pid: Option<u32>, comm: Option<String> }
    struct IncidentCgroup {
        path: Option<String>,
        id: Option<String>,
        limit_bytes: Option<u64>,
        usage_bytes: Option<u64>,
        memory: Option<CgroupMemory>,
    }
    struct CgroupMemory {
        evidence: MemoryEvidence,
        anon_bytes: Option<u64>,
        file_bytes: Option<u64>,
        shmem_bytes: Option<u64>,
        kernel_bytes: Option<u64>,
        kernel_stack_bytes: Option<u64>,
        pagetables_bytes: Option<u64>,
        slab_reclaimable_bytes: Option<u64>,
        slab_unreclaimable_bytes: Option<u64>,
        sock_bytes: Option<u64>,
        percpu_bytes: Option<u64>,
        file_dirty_bytes: Option<u64>,
        file_writeback_bytes: Option<u64>,
        lru: Option<Lru>,
    }
    struct Lru { anon_bytes: Option<u64>, file_bytes: Option<u64>, unevictable_bytes: Option<u64> }
    struct StuckThread { tid: u32, state: String, wchan: Option<String> }
    struct ProcessTable {
        evidence: TableEvidence,
        count: u64,
        rss_bytes: u64,
        largest: Option<Vec<TableRow>>,
    }
    struct TableRow { pid: u32, comm: String, rss_bytes: u64, oom_score_adj: i32 }
    struct Finding {
        id: FindingId,
        bytes: Option<u64>,
        part: Option<Part>,
        pid: Option<u32>,
        comm: Option<String>,
        oom_score_adj: Option<i32>,
        option: Option<HeapOption>,
        percent: Option<u64>,
        order: Option<i32>,
    }
    struct Before {
        of: BeforeOf,
        interval_ns: u64,
        samples: u64,
        age_ns: Option<u64>,
        shape: Option<Shape>,
        over_ns: Option<u64>,
        start_bytes: Option<u64>,
        floor_slope: Option<FloorSlope>,
        last: Option<LastSample>,
        at_limit_ns: Option<u64>,
        unseen_peak: Option<LastSample>,
        unreclaimable: Option<UnreclaimableBefore>,
        points: Option<Vec<(i64, u64)>>,
    }
    struct FloorSlope { bytes_per_hour: i64, low_bytes_per_hour: i64, high_bytes_per_hour: i64 }
    struct LastSample { age_ns: u64, usage_bytes: u64 }
    struct UnreclaimableBefore {
        shape: Option<Shape>,
        start_bytes: Option<u64>,
        last_bytes: u64,
        floor_slope: Option<FloorSlope>,
    }
    struct Recurrence { key: String, kills: u64, since: String, lifetime_ns: Option<Lifetimes> }
    struct Lifetimes { min: u64, median: u64, max: u64 }
    struct ToLimit { min: u64, max: u64 }
    struct Released { after_ns: Option<u64>, reaper: Option<Reaper>, usage_bytes: Option<u64> }
}
