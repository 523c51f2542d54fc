//! Every line that is shown anywhere follows the contract of [`mirror`].

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod mirror;
mod samples;

use mirror::check;
use serde_json::Value;

#[test]
fn every_line_keeps_the_contract() {
    for (name, event) in samples::all() {
        check(&samples::json(&event)).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// As on a host: lines are identified by `stream` and `seq`, or by `id`.
#[test]
fn no_two_samples_have_one_name() {
    let mut names = std::collections::BTreeSet::new();
    for (name, event) in samples::all() {
        let line: Value = serde_json::from_str(&samples::json(&event)).unwrap();
        // Two samples show the same kill.
        let of_kind = (line["type"] == "oom_kill").then_some(name);
        assert!(
            names.insert(format!("{:?} {} {} {}", of_kind, line["stream"], line["seq"], line["id"])),
            "{name} has the name of another line"
        );
    }
}

#[test]
fn a_users_container_keeps_the_contract() {
    let mut kill = samples::oom_kill();
    kill.container.as_mut().unwrap().runtime.user = Some(4242);
    kill.systemd = Some(oomtrace::event::Systemd { unit: "postgresql.service".into(), user: Some(u32::MAX) });
    let line = samples::json(&oomtrace::event::Event::OomKill(Box::new(kill)));
    check(&line).unwrap();
    assert!(line.contains(r#""runtime":{"name":"docker","user":4242}"#), "{line}");
    assert!(line.contains(r#""systemd":{"unit":"postgresql.service","user":4294967295}"#), "{line}");
}

/// A line of this version in a file, such as a snapshot, must stay valid.
#[test]
fn every_snapshot_keeps_the_contract() {
    let mut checked = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains("json_") {
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|line| line.starts_with('{')) {
                check(&format!("{line}\n")).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
                checked += 1;
            }
        }
    }
    assert!(checked >= 9, "{checked} lines in snapshots");
}

/// The examples of `docs/EVENTS.md` are real lines, at least one of each type.
#[test]
fn every_example_in_the_docs_keeps_the_contract() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/EVENTS.md")).unwrap();
    let mut types = std::collections::BTreeSet::new();
    for line in docs.lines().filter(|line| line.starts_with(r#"{"schema""#)) {
        check(&format!("{line}\n")).unwrap_or_else(|why| panic!("{why} in {line}"));
        types.insert(serde_json::from_str::<Value>(line).unwrap()["type"].to_string());
    }
    assert_eq!(types.len(), 16, "{types:?}");
}

/// The table of reasons in the docs has exactly the words of the schema, in the same order.
#[test]
fn every_reason_is_in_the_docs() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/EVENTS.md")).unwrap();
    let table = docs.split("| `reason` | Meaning |\n|---|---|\n").nth(1).unwrap();
    let in_docs: Vec<&str> = table
        .lines()
        .map_while(|line| line.strip_prefix("| `"))
        .map(|row| row.split_once("` | ").unwrap().0)
        .collect();
    let schema = oomtrace::event::schema::schema();
    let words: Vec<&str> = schema["$defs"]["Reason"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word["const"].as_str().unwrap())
        .collect();
    assert!(words.len() > 40);
    assert_eq!(in_docs, words);
}

#[test]
fn the_mirror_is_strict() {
    let (_, event) = samples::all().remove(1);
    let line = samples::json(&event);
    check(&line).unwrap();
    for (from, to) in [
        (r#""tid":2990"#, r#""tid":2990,"cpu":1"#),
        (r#""tid":2990"#, r#""tid":"2990""#),
        (r#""kernel":"6.12.41-amd64""#, r#""kernel":6"#),
        (r#""order":0"#, r#""order":null"#),
        (r#""restart_count":3,"label""#, r#""restart_count":3,"nested":[],"label""#),
        (r#""domain_bytes":52428800"#, r#""domain_bytes":9007199254740993"#),
        (r#""kill":"selected""#, r#""kill":"chosen""#),
        ("123456789Z", "123456Z"),
        (r#""schema":1,"type":"oom_kill""#, r#""type":"oom_kill","schema":1"#),
        ("\n", ""),
    ] {
        assert!(line.contains(from), "{from}");
        assert!(check(&line.replacen(from, to, 1)).is_err(), "{from} as {to}");
    }
}
