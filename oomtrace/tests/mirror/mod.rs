//! The contract a second time, written by hand from `docs/EVENTS.md` and not from `event`. It rejects unknown
//! keys, so that no key is added, renamed or retyped by accident.

#![allow(clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, reason = "the fields are there to be parsed")]

mod host_memory;
mod incident;
mod values;

use std::collections::BTreeMap;

use host_memory::{Charged, HostTotals, HostVictim, TopUser};
use incident::{
    Before, Finding, FloorSlope, IncidentCgroup, IncidentVictim, NearBecause, ProcessTable, Reaper,
    Recurrence, Released, StuckThread, ToLimit,
};
use serde::Deserialize;
use serde_json::Value;
use values::{check_identity, check_message, check_time, check_values};

type Map = BTreeMap<String, String>;

macro_rules! strict {
    ($(struct $name:ident { $($body:tt)* })*) => {
        $(#[derive(Deserialize)] #[serde(deny_unknown_fields)] struct $name { $($body)* })*
    };
}

macro_rules! lines {
    ($(struct $name:ident { $($body:tt)* })*) => {
        $(#[derive(Deserialize)] #[serde(deny_unknown_fields)] struct $name {
            schema: u32,
            r#type: String,
            time: String,
            seq: Option<u64>,
            stream: Option<String>,
            id: Option<String>,
            tags: Option<Map>,
            message: String,
            severity: Severity,
            origin: Origin,
            host: Option<Host>,
            truncated: Option<Vec<String>>,
            $($body)*
        })*
    };
}

macro_rules! words {
    ($(enum $name:ident { $($word:ident = $text:literal),* $(,)? })*) => {
        $(#[derive(Deserialize)] enum $name { $(#[serde(rename = $text)] $word),* })*
    };
}

words! {
    enum Severity { A = "error", B = "warning", C = "info" }
    enum Origin { A = "ebpf", B = "kmsg", C = "oomtrace", D = "runtime", E = "cgroupfs" }
    enum Scope { A = "memcg", B = "host", C = "cpuset", D = "mempolicy" }
    enum Constraint {
        A = "CONSTRAINT_NONE", B = "CONSTRAINT_CPUSET", C = "CONSTRAINT_MEMORY_POLICY", D = "CONSTRAINT_MEMCG",
    }
    enum Kill { A = "selected", B = "group", C = "allocating_task", D = "sysrq", E = "already_exiting" }
    enum Evidence { A = "fentry", B = "kprobe", C = "kernel_log", D = "stack" }
    enum Outcome { A = "no_killable_process", B = "relieved", C = "kill_disabled" }
    enum CgroupVersion { A = "v1", B = "v2", C = "hybrid", D = "none" }
    enum LossReason {
        A = "ring_full", B = "cgroup_ring_full", C = "no_scratch", D = "unreadable_record", E = "sink",
        F = "verdict_queue_full", G = "unexplained", H = "unnumbered_ring_full", I = "cgroup_not_kept",
        J = "name_not_read", K = "journal", L = "signal_ring_full", M = "incident_queue_full",
    }
    enum Signal { A = "SIGKILL", B = "SIGTERM" }
    enum How { A = "kill", B = "tgkill", C = "cgroup.kill", D = "pid_namespace_ended", E = "kernel" }
    enum Killer {
        A = "systemd-oomd", B = "oomd", C = "earlyoom", D = "nohang", E = "runtime", F = "kubelet", G = "systemd",
        H = "inside", I = "other",
    }
    enum Qos { A = "guaranteed", B = "burstable", C = "besteffort" }
    enum HooksState { A = "silent", B = "running" }
    enum Reason { A0 = "not_read_in_kernel", A1 = "too_deep", A2 = "not_yet_computed", A3 = "no_function_hook", A4 = "no_hook_and_no_log_line", A6 = "not_an_ancestor", A7 = "no_limit_fired", A8 = "no_limit", A9 = "no_flag_names", A10 = "allocating_task", A11 = "already_exiting", A12 = "not_the_chosen", A13 = "group_or_selected", A14 = "signal_unknown", A15 = "sysctl_unreadable", A16 = "unknown_value", A17 = "number_too_large", A18 = "not_in_kernel_log", A19 = "log_rate_limited", A20 = "ambiguous_log_line", A21 = "before_start", A22 = "log_clock", A23 = "not_in_cgroup_files", A24 = "cgroup_file_unreadable", A25 = "cgroup_path_unknown", A26 = "process_gone", A27 = "memory_released", A28 = "pid_reused", A29 = "empty", A30 = "proc_too_slow", A31 = "proc_busy", A32 = "proc_unreadable", A33 = "start_time_unknown", A34 = "not_read", A35 = "not_a_container", A36 = "pod_cgroup", A37 = "sandbox", A38 = "container_unknown", A39 = "container_elsewhere", A40 = "cgroup_delegated", A41 = "cgroup_of_user", A99 = "too_many_containers", A98 = "share_used_up", A42 = "runtime_file_unreadable", A43 = "not_in_runtime_files", A44 = "container_gone", A45 = "runtime_unreadable", A46 = "started_just_before", A47 = "other_pid_namespace", A48 = "no_memory_cgroups", B0 = "clock_set", B1 = "log_daemon_clock", B2 = "log_local_time", B3 = "log_since_boot", C0 = "kernel_log_unreadable", C1 = "memory_changed", C77 = "counters_behind", C2 = "still_there", C3 = "too_many_victims", B4 = "root_cgroup", B5 = "other_hierarchy", B6 = "recorded_too_short", B7 = "not_sampled", B8 = "limit_changed", Z6 = "cgroups_not_read" }
}

strict! {
    struct Host { name: Option<String>, boot_id: Option<String>, kernel: Option<String> }
    struct Cgroup { path: Option<String>, id: Option<String> }
    struct GapCgroup { path: String, kernel_kills: u64, reported: u64 }
    struct Oom {
        id: Option<u64>,
        scope: Option<Scope>,
        constraint: Option<Constraint>,
        kill: Option<Kill>,
        order: Option<i32>,
        gfp_mask: Option<String>,
        gfp_mask_raw: Option<u32>,
        domain_bytes: Option<u64>,
        evidence: Option<Evidence>,
        cgroup: Option<OomCgroup>,
    }
    struct OomCgroup {
        path: Option<String>,
        id: Option<String>,
        limit_bytes: Option<u64>,
        usage_bytes: Option<u64>,
        peak_bytes: Option<u64>,
        swap_limit_bytes: Option<u64>,
        swap_usage_bytes: Option<u64>,
        memsw_limit_bytes: Option<u64>,
        memsw_usage_bytes: Option<u64>,
        oom_group: Option<bool>,
        events: Option<MemoryEvents>,
    }
    struct MemoryEvents {
        low: Option<u64>,
        high: Option<u64>,
        max: Option<u64>,
        oom: Option<u64>,
        oom_kill: Option<u64>,
        oom_group_kill: Option<u64>,
    }
    struct Victim {
        pid: Option<u32>,
        tid: Option<u32>,
        namespace_pid: Option<u32>,
        parent_pid: Option<u32>,
        comm: Option<String>,
        executable: Option<String>,
        command_line: Option<String>,
        uid: Option<u32>,
        start_time: Option<String>,
        oom_score_adj: Option<i32>,
        threads: Option<u32>,
        oom_score_bytes: Option<i64>,
        memory: Option<Memory>,
        cgroup: Option<VictimCgroup>,
    }
    struct VictimCgroup { path: Option<String>, id: Option<String>, lru: Option<Lru>, tasks: Option<Tasks> }
    struct Lru { anon_bytes: u64, file_bytes: u64, unevictable_bytes: u64 }
    struct Tasks { count: Option<u64>, limit: Option<u64>, peak: Option<u64>, cgroup: Option<Cgroup> }
    struct Memory {
        rss_bytes: Option<u64>,
        anon_rss_bytes: Option<u64>,
        file_rss_bytes: Option<u64>,
        shmem_rss_bytes: Option<u64>,
        swap_bytes: Option<u64>,
        pgtables_bytes: Option<u64>,
        total_vm_bytes: Option<u64>,
    }
    struct SharedMmVictim {
        pid: Option<u32>,
        namespace_pid: Option<u32>,
        parent_pid: Option<u32>,
        comm: Option<String>,
        uid: Option<u32>,
        oom_score_adj: Option<i32>,
        start_time: Option<String>,
        cgroup: Option<Cgroup>,
    }
    struct SignalTarget {
        pid: Option<u32>,
        namespace_pid: Option<u32>,
        comm: Option<String>,
        uid: Option<u32>,
        start_time: Option<String>,
        cgroup: Option<Cgroup>,
    }
    struct SignalSender {
        pid: Option<u32>,
        comm: Option<String>,
        executable: Option<String>,
        uid: Option<u32>,
        parent_comm: Option<String>,
        cgroup: Option<Cgroup>,
        container: Option<SenderContainer>,
        systemd: Option<Systemd>,
    }
    struct SenderContainer { id: String, name: Option<String>, runtime: Runtime }
    struct HostMemoryThen {
        after_ns: u64,
        total_bytes: Option<u64>,
        available_bytes: Option<u64>,
        swap_total_bytes: Option<u64>,
        swap_free_bytes: Option<u64>,
    }
    struct SigtermSender { pid: Option<u32>, comm: Option<String>, uid: Option<u32> }
    struct Trigger {
        pid: Option<u32>,
        comm: Option<String>,
        oom_score_adj: Option<i32>,
        cgroup: Option<Cgroup>,
    }
    struct Container {
        id: String,
        name: Option<String>,
        runtime: Runtime,
        image: Option<Name>,
        restart_count: Option<u64>,
        label: Option<Map>,
        nested: Option<Vec<String>>,
    }
    struct Name { name: String }
    struct K8s { namespace: Option<Name>, pod: Pod, qos: Option<Qos>, container: Option<K8sContainer> }
    struct Pod { name: Option<String>, uid: Option<String> }
    struct K8sContainer { name: String, restart_count: Option<u64> }
    struct Systemd { unit: String, user: Option<u32> }
    struct Runtime { name: String, user: Option<u32> }
    struct Absence { key: String, reason: Reason, detail: Option<String> }
    struct Hook { name: String, attached: String, reason: Option<String> }
    struct RuntimeSays { oom_killed: Option<bool>, exit_code: Option<i64>, status: Option<String> }
}

lines! {
    struct Start {
        version: String,
        instance: String,
        hooks: Vec<Hook>,
        cgroup_version: CgroupVersion,
        runtimes: Option<Vec<String>>,
        resumed: bool,
        limits: Option<Vec<String>>,
    }
    struct OomKill {
        oom: Oom,
        victim: Victim,
        trigger: Option<Trigger>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct SharedMmKill {
        of: Vec<u64>,
        victim: SharedMmVictim,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct MemcgOom {
        cgroup: Option<OomCgroup>,
        order: Option<i32>,
        gfp_mask: Option<String>,
        gfp_mask_raw: Option<u32>,
        trigger: Option<Trigger>,
        outcome: Option<Outcome>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct SignalKill {
        signal: Signal,
        how: Option<How>,
        processes: Option<u64>,
        target: Option<SignalTarget>,
        sender: Option<SignalSender>,
        killer: Option<Killer>,
        killer_confirmed: Option<bool>,
        sigterm_before_ns: Option<u64>,
        sigterm_sender: Option<SigtermSender>,
        cgroup: Option<OomCgroup>,
        host_memory: Option<HostMemoryThen>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct Incident {
        of: Vec<u64>,
        killed: u64,
        scope: Option<Scope>,
        victim: Option<IncidentVictim>,
        cgroup: Option<IncidentCgroup>,
        process_table: Option<ProcessTable>,
        released: Option<Released>,
        before: Option<Before>,
        recurrence: Option<Recurrence>,
        findings: Option<Vec<Finding>>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct LimitNear {
        because: NearBecause,
        cgroup: Option<Cgroup>,
        limit_bytes: u64,
        usage_bytes: u64,
        unreclaimable_bytes: u64,
        over_ns: Option<u64>,
        floor_slope: Option<FloorSlope>,
        to_limit_ns: Option<ToLimit>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct LimitFar {
        cgroup: Option<Cgroup>,
        limit_bytes: Option<u64>,
        usage_bytes: Option<u64>,
        unreclaimable_bytes: Option<u64>,
        near_ns: u64,
        removed: bool,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct Usage {
        key: String,
        cgroup: Option<Cgroup>,
        cgroup_count: u64,
        limit_bytes: u64,
        peak_bytes: u64,
        floor_bytes: u64,
        watched_ns: u64,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct HostMemory {
        of: Vec<u64>,
        killed: u64,
        scope: Option<Scope>,
        order: Option<i32>,
        victim: Option<HostVictim>,
        memory: Option<HostTotals>,
        charged: Option<Charged>,
        top: Option<Vec<TopUser>>,
        killed_largest: Option<bool>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct Stuck {
        of: Vec<u64>,
        after_ns: u64,
        still_there: u64,
        victim: Option<IncidentVictim>,
        thread_count: Option<u64>,
        threads: Option<Vec<StuckThread>>,
        reaper: Option<Reaper>,
        container: Option<Container>,
        k8s: Option<K8s>,
        systemd: Option<Systemd>,
        missing: Option<Vec<Absence>>,
    }
    struct Lost { count: u64, reason: LossReason, total: u64 }
    struct Hooks { state: HooksState, limit: Option<String> }
    struct Gap { kernel_kills: u64, reported: u64, since: String, cgroups: Option<Vec<GapCgroup>> }
    struct Verdict {
        of: Vec<u64>,
        container: Container,
        runtime_says: Option<RuntimeSays>,
        missed: Option<bool>,
        false_positive: Option<Vec<String>>,
        missing: Option<Vec<Absence>>,
    }
    struct Stop { reason: String, events: u64, lost: u64, signals_left_out: Option<u64> }
}

/// Why a line does not follow the contract.
pub fn check(line: &str) -> Result<(), String> {
    let body = line.strip_suffix('\n').ok_or("no newline at the end")?;
    if body.contains(char::is_control) || line.len() >= 4096 {
        return Err("a control character, or too long".into());
    }
    if !body.starts_with(r#"{"schema":1,"type":""#) {
        return Err(format!("wrong start: {body:.40}"));
    }
    let value: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    check_values(&value)?;
    check_message(&value)?;
    check_identity(&value)?;
    check_time(&value)?;
    fn strict<T: for<'de> Deserialize<'de>>(body: &str) -> Result<(), String> {
        serde_json::from_str::<T>(body).map(drop).map_err(|error| error.to_string())
    }
    match value["type"].as_str().unwrap_or_default() {
        "start" => strict::<Start>(body),
        "oom_kill" => strict::<OomKill>(body),
        "shared_mm_kill" => strict::<SharedMmKill>(body),
        "memcg_oom" => strict::<MemcgOom>(body),
        "signal_kill" => strict::<SignalKill>(body),
        "incident" => strict::<Incident>(body),
        "host_memory" => strict::<HostMemory>(body),
        "stuck" => strict::<Stuck>(body),
        "limit_near" => strict::<LimitNear>(body),
        "limit_far" => strict::<LimitFar>(body),
        "usage" => strict::<Usage>(body),
        "lost" => strict::<Lost>(body),
        "gap" => strict::<Gap>(body),
        "hooks" => strict::<Hooks>(body),
        "verdict" => strict::<Verdict>(body),
        "stop" => strict::<Stop>(body),
        other => Err(format!("type {other:?}")),
    }
}
