//! The JSON Schema accepts each printed line and nothing else.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, reason = "not each test crate needs each sample")]

mod samples;

use oomtrace::event::schema::schema;
use serde_json::{Value, json};

fn validator() -> jsonschema::Validator {
    let schema = schema();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap()
}

#[test]
fn every_line_is_valid() {
    let validator = validator();
    for (name, event) in samples::all() {
        let line: Value = serde_json::from_str(&samples::json(&event)).unwrap();
        if let Err(error) = validator.validate(&line) {
            panic!("{name}: {error}");
        }
    }
}

/// An unknown key is rejected in each object of each line, also deep inside.
#[test]
fn unknown_keys_are_rejected() {
    let validator = validator();
    for (name, event) in samples::all() {
        let line: Value = serde_json::from_str(&samples::json(&event)).unwrap();
        let mut pointers = Vec::new();
        objects(&line, String::new(), &mut pointers);
        for pointer in pointers {
            let mut line = line.clone();
            line.pointer_mut(&pointer).unwrap()["surprise"] = json!(1);
            assert!(!validator.is_valid(&line), "{name}: surprise in {pointer:?}");
        }
    }
}

fn objects(value: &Value, pointer: String, found: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (key, value) in map {
            objects(value, format!("{pointer}/{key}"), found);
        }
        found.push(pointer);
    }
}

#[test]
fn broken_lines_are_rejected() {
    let validator = validator();
    let (_, event) = samples::all().remove(1);
    let line: Value = serde_json::from_str(&samples::json(&event)).unwrap();
    for (pointer, bad) in [
        ("/schema", json!(2)),
        ("/schema", json!("1")),
        ("/type", json!("oom")),
        ("/time", json!("2026-11-21T03:12:45.123Z")),
        ("/time", json!("2026-11-21T03:12:45.123456789+01:00")),
        ("/time", json!("2026-13-21T03:12:45.123456789Z")),
        ("/seq", json!(-1)),
        ("/seq", json!(1.5)),
        ("/seq", json!(null)),
        ("/origin", json!("guess")),
        ("/severity", json!("fatal")),
        ("/message", json!(null)),
        ("/host/name", json!(7)),
        ("/oom/kill", json!(null)),
        ("/oom/domain_bytes", json!((1_u64 << 53) + 1)),
        ("/oom/cgroup/id", json!(4242)),
        ("/oom/cgroup/id", json!("0x10")),
        ("/victim/cgroup/id", json!("")),
        ("/victim/cgroup", json!({})),
        ("/victim/memory", json!({})),
        ("/victim/oom_score_bytes", json!(-(1_i64 << 53) - 1)),
        ("/victim/uid", json!(1_u64 << 32)),
        ("/victim/start_time", json!("yesterday")),
        ("/victim/comm", json!(null)),
        ("/container/label", json!({})),
        ("/container/label", json!({"a": 1})),
    ] {
        let mut line = line.clone();
        *line.pointer_mut(pointer).unwrap() = bad.clone();
        assert!(!validator.is_valid(&line), "{pointer} = {bad}");
    }
}

#[test]
fn required_keys_are_required() {
    let validator = validator();
    for (index, keys) in [
        (0, vec!["schema", "type", "time", "message", "severity", "origin", "version", "instance", "hooks"]),
        (1, vec!["schema", "type", "time", "message", "severity", "origin", "oom", "victim"]),
        (3, vec!["schema", "of", "victim"]),
        (4, vec!["schema", "type", "time"]),
        (5, vec!["schema", "type", "time", "signal"]),
        (7, vec!["of", "killed"]),
        (9, vec!["of", "killed"]),
        (10, vec!["of", "after_ns", "still_there"]),
        (11, vec!["count", "reason"]),
        (12, vec!["kernel_kills", "reported", "since"]),
        (13, vec!["state"]),
        (14, vec!["of", "container"]),
        (15, vec!["reason", "events", "lost"]),
    ] {
        let (name, event) = samples::all().remove(index);
        for key in keys {
            let mut line: Value = serde_json::from_str(&samples::json(&event)).unwrap();
            assert!(line.as_object_mut().unwrap().remove(key).is_some(), "{name} has {key}");
            assert!(!validator.is_valid(&line), "{name} without {key}");
        }
    }
}

/// The output of `oomtrace schema`: a change of the contract is visible here first.
#[test]
fn schema_snapshot() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema()).unwrap());
}
