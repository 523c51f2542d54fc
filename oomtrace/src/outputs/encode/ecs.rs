//! An event as a document of the Elastic Common Schema: what has a field there, and all else below `oomtrace`.
//!
//! The keys of the line are moved, none is lost: this knows only those that have a place in ECS.

use serde_json::{Map, Value, json};

use crate::{
    event::Event,
    outputs::encode::{
        MAX_LINE_BYTES,
        fit::fit,
        json::{self, encode},
    },
};

/// The version whose fields these are.
const VERSION: &str = "9.4.0";

/// Keys of a line, and their fields. Where the first is not there, nothing is.
const FIELDS: [(&str, &str); 26] = [
    ("time", "@timestamp"),
    ("message", "message"),
    ("severity", "log.level"),
    ("seq", "event.sequence"),
    ("origin", "event.provider"),
    ("host.name", "host.name"),
    ("host.boot_id", "host.boot.id"),
    ("host.kernel", "host.os.kernel"),
    ("tags", "labels"),
    ("container.id", "container.id"),
    ("container.name", "container.name"),
    ("container.runtime.name", "container.runtime"),
    ("container.image.name", "container.image.name"),
    ("container.label", "container.labels"),
    ("k8s.namespace.name", "orchestrator.namespace"),
    ("k8s.pod.name", "orchestrator.resource.name"),
    ("k8s.pod.uid", "orchestrator.resource.id"),
    ("k8s.container.name", "kubernetes.container.name"),
    ("victim.pid", "process.pid"),
    ("victim.tid", "process.thread.id"),
    ("victim.parent_pid", "process.parent.pid"),
    ("victim.comm", "process.name"),
    ("victim.executable", "process.executable"),
    ("victim.command_line", "process.command_line"),
    ("victim.uid", "process.user.id"),
    ("victim.start_time", "process.start"),
];

/// Fields that have the value of another, as Elastic's own shippers write them.
const COPIES: [(&str, &str); 3] = [
    ("orchestrator.namespace", "kubernetes.namespace"),
    ("orchestrator.resource.name", "kubernetes.pod.name"),
    ("orchestrator.resource.id", "kubernetes.pod.uid"),
];

/// Replaces what is in `out` by the document of `event`, on a line that is as short as any.
///
/// # Errors
/// As [`json::line`].
pub fn line(event: &Event, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    const ROOM: usize = MAX_LINE_BYTES - 1;
    let mut room = ROOM;
    let mut line = json::map(event, room, out)?;
    loop {
        encode(&document(event, line.clone()), out)?;
        let excess = out.len().saturating_sub(ROOM);
        if excess == 0 || room <= ROOM / 2 {
            break;
        }
        // What it has more than the line it has whatever is cut.
        room = room.saturating_sub(excess).max(ROOM / 2);
        encode(&line, out)?;
        fit(&mut line, room, out)?;
    }
    out.push(b'\n');
    Ok(())
}

fn document(event: &Event, mut line: Map<String, Value>) -> Map<String, Value> {
    let id = id(&mut line);
    let mut document = Map::new();
    for (key, field) in FIELDS {
        let Some(value) = take(&mut line, key) else { continue };
        put(&mut document, field, of_type(field, value));
    }
    for (field, copy) in COPIES {
        if let Some(value) = get(&document, field).cloned() {
            put(&mut document, copy, value);
        }
    }
    let mut constants = vec![
        ("ecs.version", json!(VERSION)),
        ("event.kind", json!("event")),
        ("event.module", json!("oomtrace")),
        ("event.dataset", json!("oomtrace.events")),
        ("event.action", json!(event.kind().replace('_', "-"))),
        ("event.category", json!([category(event)])),
        ("event.type", json!([what(event)])),
        ("event.severity", json!(event.severity().syslog())),
        ("host.os.type", json!("linux")),
    ];
    constants.extend(id.map(|id| ("event.id", id)));
    if get(&document, "orchestrator").is_some() {
        constants.push(("orchestrator.type", json!("kubernetes")));
        constants.push(("orchestrator.resource.type", json!("pod")));
    }
    for (field, value) in constants {
        put(&mut document, field, value);
    }
    document.insert("oomtrace".into(), Value::Object(line));
    document
}

/// What is reported twice has the same, and is stored once.
fn id(line: &mut Map<String, Value>) -> Option<Value> {
    let number = line.get("stream").and_then(Value::as_str).zip(line.get("seq").and_then(Value::as_u64));
    match number {
        Some((stream, seq)) => Some(json!(format!("{stream}-{seq}"))),
        None => take(line, "id"),
    }
}

fn category(event: &Event) -> &'static str {
    match event {
        Event::OomKill(_) | Event::SharedMmKill(_) | Event::SignalKill(_) | Event::Incident(_) => "process",
        _ => "host",
    }
}

fn what(event: &Event) -> &'static str {
    match event {
        Event::OomKill(_) | Event::SharedMmKill(_) | Event::SignalKill(_) | Event::Stop(_) => "end",
        Event::Start(_) => "start",
        _ => "info",
    }
}

/// As the field has it: ids of users are keywords, and labels have no dots, which would be objects.
fn of_type(field: &str, value: Value) -> Value {
    match (field, value) {
        ("process.user.id", Value::Number(uid)) => Value::String(uid.to_string()),
        ("container.labels", Value::Object(labels)) => without_dots(labels),
        (_, value) => value,
    }
}

/// As Elastic's own shippers write labels; as they are, if two would have one name.
fn without_dots(labels: Map<String, Value>) -> Value {
    let renamed: Map<String, Value> =
        labels.iter().map(|(key, value)| (key.replace('.', "_"), value.clone())).collect();
    Value::Object(if renamed.len() == labels.len() { renamed } else { labels })
}

/// Takes out the value at a dotted path, and each object that is empty then.
fn take(map: &mut Map<String, Value>, path: &str) -> Option<Value> {
    let Some((first, rest)) = path.split_once('.') else { return map.shift_remove(path) };
    let inner = map.get_mut(first)?.as_object_mut()?;
    let value = take(inner, rest);
    if inner.is_empty() {
        map.shift_remove(first);
    }
    value
}

fn get<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => map.get(path),
        Some((first, rest)) => get(map.get(first)?.as_object()?, rest),
    }
}

fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => _ = map.insert(path.to_owned(), value),
        Some((first, rest)) => {
            let inner = map.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
