//! Tests of the comparison: a real kill and its log, and every field of its line made wrong. Each must be
//! found.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};

use super::*;
use crate::kernel_log::Reports;
use crate::trace_event::Marked;

fn logged() -> LoggedKill {
    let mut reports = Reports::default();
    for line in include_str!("../../fixtures/raised_adj.log").lines() {
        reports.take(line.as_bytes(), false);
    }
    reports.kills.pop().unwrap()
}

fn line(value: Value) -> Line {
    Line { text: value.to_string(), value, read_at_ns: moment("2026-11-21T05:04:30.540000000Z").unwrap() }
}

fn told() -> Value {
    serde_json::from_str(include_str!("../../fixtures/raised_adj.json")).unwrap()
}

/// What the scenario knew.
fn expected() -> Expected {
    let place = Place { path: b"/oomtrace-test-28034/raised-adj".to_vec(), id: 39491 };
    Expected {
        host: HostFacts {
            name: "node".into(),
            kernel: "6.18.44".into(),
            boot_id: "6f1c0d5e-0000-4000-8000-000000000000".into(),
            page_bytes: 4096,
            processors: 2,
            ticks_a_second: 100,
            boot_wall_ns: moment("2026-11-21T04:04:30.500000000Z").unwrap(),
            memory_and_swap: (24 << 30, 0),
        },
        version: Version::V1,
        memory_cgroups: true,
        hook: "fentry".into(),
        victim: ProcessFacts {
            pid: 28041,
            tid: 28041,
            parent_pid: 28034,
            namespace_pid: 28041,
            comm: b"hog-adj".to_vec(),
            uid: 4242,
            oom_score_adj: 517,
            start_ticks: 360_000,
            executable: b"/usr/bin/hog".to_vec(),
            command_line: b"/usr/bin/hog hog".to_vec(),
            threads: 1,
            anon_bytes: 0,
        },
        cgroup: place.clone(),
        scope: "memcg",
        kill: "selected",
        fired: Some(FiredLimit {
            place,
            limit_bytes: 16 << 20,
            swap_limit_bytes: None,
            events: [("oom_kill".to_owned(), 1)].into(),
            events_of_this_kill_alone: true,
            another_dies: false,
            refusals: Some(19),
            peak_bytes: Some(16 << 20),
            oom_group: false,
            lowered_from: None,
        }),
        trigger: ExpectedTrigger::Victim(b"hog-adj".to_vec()),
        released_ns: moment("2026-11-21T05:04:30.530000000Z").unwrap(),
    }
}

#[test]
fn a_true_line_has_no_differences() {
    assert_eq!(expected().differences(&line(told()), &logged()), []);
}

/// JSON pointers of all values that contain no others.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value.as_object() {
        Some(object) => object.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found)),
        None => found.push(at.to_owned()),
    }
}

/// Texts that are not facts.
fn is_fact(pointer: &String) -> bool {
    pointer != "/missing" && pointer != "/message"
}

/// Wrong values that are close: as from a bug in units, rounding or attribution.
fn wrong(value: &Value) -> Vec<Value> {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            [number + 1, number - 1, number / 1024, number * 10 + 7]
                .into_iter()
                .filter(|wrong| *wrong != number)
                .map(Value::from)
                .collect()
        }
        Value::String(text) => {
            vec![json!(format!("{text}x")), json!(text.replacen("05:", "06:", 1) + " "), json!("")]
        }
        Value::Bool(flag) => vec![json!(!flag)],
        other => panic!("{other}"),
    }
}

#[test]
fn every_field_made_wrong_is_found() {
    let (expected, logged, told) = (expected(), logged(), told());
    let mut pointers = Vec::new();
    leaves(&told, "", &mut pointers);
    pointers.retain(is_fact);
    assert!(pointers.len() > 50);
    for pointer in pointers {
        for value in wrong(told.pointer(&pointer).unwrap()) {
            let within_bounds = match &*pointer {
                // Refusals after the kill count too, and a cgroup's peak may be higher than the usage at the
                // kill.
                "/oom/cgroup/events/max" => value.as_u64().is_some_and(|value| (1..=19).contains(&value)),
                "/oom/cgroup/peak_bytes" => {
                    value.as_u64().is_some_and(|value| ((16 << 20) - (136 << 12)..=16 << 20).contains(&value))
                }

                _ => false,
            };
            if within_bounds {
                continue;
            }
            let mut lie = told.clone();
            *lie.pointer_mut(&pointer).unwrap() = value.clone();
            let found = expected.differences(&line(lie), &logged);
            let field = pointer.trim_start_matches('/').replace('/', ".");
            // If `seq` is wrong, `oom.id` differs from it.
            let field = if field == "seq" { "oom.id".to_owned() } else { field };
            assert!(found.iter().any(|one| one.field == field), "{field} = {value} was not found: {found:?}");
        }
    }
}

#[test]
fn every_field_left_out_is_found() {
    let (expected, logged, told) = (expected(), logged(), told());
    let mut pointers = Vec::new();
    leaves(&told, "", &mut pointers);
    for pointer in pointers.iter().filter(|pointer| is_fact(pointer)) {
        // v1 shows these counters in no file, so they cannot be required.
        if ["/oom/cgroup/events/max", "/oom/cgroup/events/oom"].contains(&pointer.as_str()) {
            continue;
        }
        let mut lie = told.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        lie.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        let found = expected.differences(&line(lie), &logged);
        let field = pointer.trim_start_matches('/').replace('/', ".");
        assert!(found.iter().any(|one| one.field == field), "the lack of {field} was not found: {found:?}");
    }
}

#[test]
fn what_is_not_there_must_not_be_told() {
    for key in ["/container", "/k8s", "/systemd", "/oom/cgroup/oom_group", "/oom/cgroup/events/low"] {
        let mut lie = told();
        let (parent, name) = key.rsplit_once('/').unwrap();
        lie.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), json!(0));
        let found = expected().differences(&line(lie), &logged());
        let field = key.trim_start_matches('/').replace('/', ".");
        assert!(found.iter().any(|one| one.field == field), "{field} was not found: {found:?}");
    }
}

#[test]
fn without_a_hook_the_same_is_found_in_the_stack() {
    let mut expected = expected();
    expected.hook = "none".into();
    let found = |told: Value| -> Vec<String> {
        expected.differences(&line(told), &logged()).into_iter().map(|one| one.field).collect()
    };
    let mut honest = told();
    *honest.pointer_mut("/oom/evidence").unwrap() = json!("stack");
    assert_eq!(found(honest.clone()), [""; 0]);
    for evidence in ["kernel_log", "fentry"] {
        *honest.pointer_mut("/oom/evidence").unwrap() = json!(evidence);
        assert_eq!(found(honest.clone()), ["oom.evidence"]);
    }
    honest.pointer_mut("/oom").unwrap().as_object_mut().unwrap().remove("evidence");
    assert_eq!(found(honest), ["oom.evidence"]);
}

/// The trace event, if the log has `logged`.
fn marked(logged: &LoggedKill) -> Marked {
    let killed = &logged.killed;
    Marked {
        tid: killed.tid,
        total_vm_kb: killed.total_vm_kb,
        anon_kb: killed.anon_kb,
        file_kb: killed.file_kb,
        shmem_kb: killed.shmem_kb,
        pgtables_kb: killed.pgtables_kb,
    }
}

/// The fields of the victim's memory that differ.
fn memory_of(told: Value, logged: &LoggedKill, expected: &Expected) -> Vec<String> {
    let found = expected.differences(&line(told), logged).into_iter().map(|one| one.field);
    found.filter(|field| field.starts_with("victim.memory")).collect()
}

#[test]
fn the_log_may_differ_from_the_trace_event_only_where_processors_hold_back() {
    let (mut logged, mut expected) = (logged(), expected());
    logged.marked = Some(marked(&logged));
    logged.killed.anon_kb += 8;
    assert_eq!(memory_of(told(), &logged, &expected), [""; 0]);
    expected.host.kernel = "6.1.0-56-cloud-amd64".into();
    assert_eq!(memory_of(told(), &logged, &expected), ["victim.memory.anon_rss_bytes"]);
}

#[test]
fn a_victim_on_another_processor_may_move_between_the_readings_and_no_further() {
    let (mut logged, mut expected) = (logged(), expected());
    logged.marked = Some(marked(&logged));
    logged.killed.anon_kb += 500;
    let told = |more_kb: u64| {
        let mut told = told();
        for key in ["anon_rss_bytes", "rss_bytes"] {
            let figure = told.pointer_mut(&format!("/victim/memory/{key}")).unwrap();
            *figure = (figure.as_u64().unwrap() + more_kb * 1024).into();
        }
        told
    };
    expected.host.kernel = "5.10.0-46-cloud-amd64".into();
    assert!(!memory_of(told(250), &logged, &expected).is_empty(), "it stands still while it runs the killer");
    expected.trigger = ExpectedTrigger::Anybody;
    let wrong = ["victim.memory.anon_rss_bytes"];
    assert_eq!(memory_of(told(250), &logged, &expected), [""; 0]);
    assert_eq!(memory_of(told(500 + 256), &logged, &expected), [""; 0]);
    assert_eq!(memory_of(told(500 + 260), &logged, &expected), wrong);
}
