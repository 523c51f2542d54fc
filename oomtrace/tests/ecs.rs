//! `-o ecs`: the keys of a line in the fields of Elastic's schema, and none lost.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "not each test crate needs each part")]
#[path = "render/fullest.rs"]
mod fullest;
#[allow(dead_code, reason = "not each test crate needs each sample")]
mod samples;

use std::collections::{BTreeMap, BTreeSet};

use oomtrace::{
    event::*,
    outputs::encode::{MAX_LINE_BYTES, Render},
};
use serde_json::Value;

/// Fields and their types, and the names of sets of fields, as Elastic publishes them.
const PUBLISHED: &str = include_str!("fixtures/ecs-9.5.0-dev.csv");

fn document(event: &Event) -> Value {
    let mut line = Vec::new();
    Render::Ecs.line(event, &mut line).unwrap();
    assert!(line.len() <= MAX_LINE_BYTES, "{} bytes", line.len());
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    serde_json::from_slice(&line).unwrap()
}

/// Each value that is no object, by its path.
fn leaves(path: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&path, value, out);
            }
        }
        value => assert_eq!(out.insert(path.to_owned(), value.clone()), None, "{path}"),
    }
}

fn leaves_of(value: &Value) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    leaves("", value, &mut out);
    out
}

#[test]
fn every_field_is_a_published_one_of_its_type_or_below_a_name_of_our_own() {
    let published: BTreeMap<&str, &str> = PUBLISHED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(','))
        .collect();
    for own in ["oomtrace", "kubernetes"] {
        assert!(!published.contains_key(own), "{own} is a set of ECS's by now");
    }
    for (name, event) in samples::all() {
        for (path, value) in leaves_of(&document(&event)) {
            if path.starts_with("oomtrace.") || path.starts_with("kubernetes.") {
                continue;
            }
            let field = ["labels.", "container.labels."].iter().find(|map| path.starts_with(**map));
            let field = field.map_or(path.as_str(), |map| map.trim_end_matches('.'));
            let kind = *published.get(field).unwrap_or_else(|| panic!("{name}: ECS has no {path}"));
            let fits = match kind {
                "long" => value.is_u64(),
                "date" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
                "keyword" | "wildcard" | "match_only_text" | "object" => {
                    value.is_string()
                        || value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
                }
                other => panic!("{path}: {other}"),
            };
            assert!(fits, "{name}: {path} is {kind}, not {value}");
        }
    }
}

#[test]
fn no_value_of_a_line_is_lost() {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (name, event) in samples::all() {
        let line = leaves_of(&serde_json::from_str(&samples::json(&event)).unwrap());
        let document: BTreeSet<String> = leaves_of(&document(&event)).values().map(text).collect();
        for (path, value) in line {
            assert!(document.contains(&text(&value)), "{name}: {path} {value} is not in the document");
        }
    }
}

#[test]
fn what_is_reported_twice_has_one_id() {
    let id = |event: &Event| document(event)["event"]["id"].clone();
    let kill = samples::oom_kill();
    assert_eq!(id(&Event::OomKill(Box::new(kill.clone()))), format!("{}-42", samples::STREAM));
    let mut other = kill;
    other.envelope.seq = Some(43);
    assert_eq!(id(&Event::OomKill(Box::new(other))), format!("{}-43", samples::STREAM));
    let lost = samples::lost();
    assert_eq!(id(&Event::Lost(Box::new(lost.clone()))), lost.envelope.id.unwrap());
}

#[test]
fn a_kill_in_a_pod() {
    let document = document(&Event::OomKill(Box::new(samples::oom_kill_in_a_pod())));
    for (path, value) in [
        ("/event/action", "oom-kill"),
        ("/event/category/0", "process"),
        ("/event/type/0", "end"),
        ("/log/level", "error"),
        ("/container/runtime", "containerd"),
        ("/container/labels/com_docker_compose_project", "shop"),
        ("/orchestrator/namespace", "shop"),
        ("/orchestrator/resource/name", "api-7d9f"),
        ("/kubernetes/pod/name", "api-7d9f"),
        ("/kubernetes/container/name", "api"),
        ("/process/name", "python3"),
        ("/process/user/id", "0"),
        ("/oomtrace/oom/scope", "memcg"),
    ] {
        assert_eq!(document.pointer(path).and_then(Value::as_str), Some(value), "{path}");
    }
    assert_eq!(document["process"]["pid"], 2990);
    assert_eq!(document["oomtrace"]["victim"]["memory"]["rss_bytes"], 55050240);
}

#[test]
fn labels_that_would_have_one_name_keep_their_dots() {
    let mut kill = samples::oom_kill();
    kill.container.as_mut().unwrap().label =
        [("a.b", "1"), ("a_b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let document = document(&Event::OomKill(Box::new(kill)));
    assert_eq!(document["container"]["labels"], serde_json::json!({"a.b": "1", "a_b": "2"}));
}

#[test]
fn the_fullest_line_fits() {
    for text in ["x", "\u{1}", "é\u{2028}"] {
        let document = document(&fullest::fullest(&text.repeat(500), 20));
        assert!(document["oomtrace"]["truncated"].is_array());
    }
}
