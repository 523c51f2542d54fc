//! A store fixes the type of a key at the first line that has it, and many stores read dots in a key as
//! nested objects. So each dotted path must have one shape, in the schema and in all example lines of this
//! repository.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, reason = "not each test crate needs each sample")]

mod samples;

use std::collections::{BTreeMap, BTreeSet};

use oomtrace::event::schema::schema;
use serde_json::{Value, json};

/// The shapes of each dotted path, and where each was found.
#[derive(Default)]
struct Shapes(BTreeMap<String, BTreeMap<&'static str, BTreeSet<String>>>);

impl Shapes {
    fn saw(&mut self, path: &str, shape: &'static str, place: &str) {
        self.0.entry(path.to_owned()).or_default().entry(shape).or_default().insert(place.to_owned());
    }

    /// A key of an object. Each dot in it opens a nested object.
    fn key(&mut self, above: &str, key: &str, place: &str) -> String {
        let mut path = above.to_owned();
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            if names.peek().is_some() {
                self.saw(&path, "object", place);
            }
        }
        path
    }

    fn line(&mut self, path: &str, value: &Value, place: &str) {
        let shape = match value {
            Value::Object(_) => "object",
            Value::Array(list) => match list.first() {
                Some(Value::Object(_)) => "list of objects",
                _ => "list",
            },
            Value::String(_) => "string",
            Value::Number(_) => "integer",
            Value::Bool(_) => "boolean",
            Value::Null => "null",
        };
        if !path.is_empty() {
            self.saw(path, shape, place);
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let path = self.key(path, key, place);
                    self.line(&path, value, place);
                }
            }
            Value::Array(list) => {
                for value in list.iter().filter(|value| value.is_object()) {
                    self.line(path, value, place);
                }
            }
            _ => {}
        }
        // An object in a list is not an object at the path of the list.
        if shape == "list of objects" {
            self.0.get_mut(path).unwrap().remove("object");
        }
    }

    /// A schema at a path. `root` has the definitions.
    fn schema(&mut self, path: &str, schema: &Value, root: &Value, place: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            let definition = &root["$defs"][name.trim_start_matches("#/$defs/")];
            self.schema(path, definition, root, place);
        }
        let word = |schema: &Value| match schema["type"].as_str() {
            Some("string") => Some("string"),
            Some("integer") => Some("integer"),
            Some("boolean") => Some("boolean"),
            Some("object") => Some("object"),
            _ => None,
        };
        let is_word = schema["oneOf"].is_array() && !path.is_empty();
        let shape = match schema["type"].as_str() {
            _ if is_word => Some("string"),
            Some("array") => {
                let items = &schema["items"];
                let objects = items["$ref"].is_string() || word(items) == Some("object");
                Some(if objects { "list of objects" } else { "list" })
            }
            _ => word(schema),
        };
        if let Some(shape) = shape.filter(|_| !path.is_empty()) {
            self.saw(path, shape, place);
        }
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = self.key(path, key, place);
            self.schema(&path, property, root, place);
        }
        if shape == Some("list of objects") {
            self.schema(path, &schema["items"], root, place);
            self.0.get_mut(path).unwrap().remove("object");
        }
    }

    /// Paths with more than one shape.
    fn clashes(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(_, shapes)| shapes.len() > 1)
            .map(|(path, shapes)| format!("{path}: {shapes:?}"))
            .collect()
    }
}

fn of_schema() -> Shapes {
    let schema = schema();
    let mut shapes = Shapes::default();
    for variant in schema["oneOf"].as_array().unwrap() {
        let kind = variant["properties"]["type"]["const"].as_str().unwrap();
        shapes.schema("", variant, &schema, &format!("schema of {kind}"));
    }
    shapes
}

/// All lines of version 1 in the repository: samples, snapshots, docs.
fn lines() -> Vec<(String, Value)> {
    let mut lines: Vec<(String, Value)> = samples::all()
        .iter()
        .map(|(name, event)| ((*name).to_owned(), serde_json::from_str(&samples::json(event)).unwrap()))
        .collect();
    let here = env!("CARGO_MANIFEST_DIR");
    let mut files: Vec<_> = std::fs::read_dir(format!("{here}/tests/snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_string_lossy().contains("schema"))
        .collect();
    files.push(format!("{here}/../docs/EVENTS.md").into());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.starts_with(r#"{"schema":1,"#)) {
            lines.push((file.display().to_string(), serde_json::from_str(line).unwrap()));
        }
    }
    lines
}

#[test]
fn each_path_has_one_shape() {
    let mut shapes = of_schema();
    assert_eq!(shapes.0["missing"].keys().collect::<Vec<_>>(), [&"list of objects"]);
    assert_eq!(shapes.0["missing.reason"].keys().collect::<Vec<_>>(), [&"string"]);
    assert!(shapes.0.len() > 90, "{:?}", shapes.0.keys());
    let lines = lines();
    assert!(lines.len() > 25, "{} lines", lines.len());
    for (place, line) in &lines {
        shapes.line("", line, place);
    }
    assert_eq!(shapes.clashes(), [""; 0]);
}

/// Shows that the test above can fail.
#[test]
fn clashes_are_found() {
    for (line, path) in [
        (json!({"cgroup": "v1"}), "cgroup"),
        (json!({"of": 42}), "of"),
        (json!({"missing": {"trigger": "x"}}), "missing"),
        (json!({"trigger.cgroup": "x"}), "trigger.cgroup"),
        (
            json!({"container": {"label": {"com.docker.compose.project": "a", "com.docker": "b"}}}),
            "container.label.com.docker",
        ),
        (json!({"victim": {"pid": "1"}}), "victim.pid"),
    ] {
        let mut shapes = of_schema();
        shapes.line("", &line, "a line");
        let clashes = shapes.clashes();
        assert!(clashes.len() == 1 && clashes[0].starts_with(&format!("{path}: ")), "{clashes:?}");
    }
}
