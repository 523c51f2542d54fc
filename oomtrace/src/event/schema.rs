//! The JSON Schema (draft 2020-12) of a line, made from the types.
//!
//! It is as strict as the contract: no unknown key, no null, no number above 2^53. A later version may add
//! keys, so a reader of several versions must not reject unknown ones.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::event::{Event, MAX_NUMBER, SCHEMA};

/// The schema of every line.
pub fn schema() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Event>();
    let mut schema = Value::from(schema);
    tighten(&mut schema);
    close(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.shift_insert(0, "title".to_owned(), json!(format!("A line of oomtrace, version {SCHEMA}")));
        root.shift_insert(0, "$id".to_owned(), json!(format!("urn:oomtrace:event:{SCHEMA}")));
        if let Some(dialect) = root.shift_remove("$schema") {
            root.shift_insert(0, "$schema".to_owned(), dialect);
        }
    }
    schema
}

/// Removes nulls (an unknown fact has no key) and names of integer types (JSON has none), and sets bounds for
/// numbers.
fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(tighten);
            without_null(map);
            bound_integers(map);
            forbid_empty(map);
            // A key that `Event` writes itself is not "write only".
            map.shift_remove("writeOnly");
        }
        Value::Array(list) => list.iter_mut().for_each(tighten),
        _ => {}
    }
}

fn without_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&json!("null")));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            map.shift_remove("anyOf");
            map.extend(only);
        }
    }
}

fn bound_integers(map: &mut Map<String, Value>) {
    let (least, most) = match map.get("format").and_then(Value::as_str) {
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("uint64") => (json!(0), json!(MAX_NUMBER)),
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        Some("int64") => (json!(-MAX_NUMBER.cast_signed()), json!(MAX_NUMBER)),
        _ => return,
    };
    map.shift_remove("format");
    map.insert("minimum".to_owned(), least);
    map.insert("maximum".to_owned(), most);
}

/// An empty list or map that may be absent is absent.
fn forbid_empty(map: &mut Map<String, Value>) {
    let required = map.get("required").cloned().unwrap_or_default();
    let is_required =
        |key: &String| required.as_array().is_some_and(|keys| keys.iter().any(|one| one == key));
    let Some(Value::Object(properties)) = map.get_mut("properties") else { return };
    for (key, property) in properties.iter_mut() {
        let least = match property.get("type").and_then(Value::as_str) {
            Some("array") => "minItems",
            Some("object") => "minProperties",
            _ => continue,
        };
        if let Value::Object(property) = property
            && !is_required(key)
        {
            property.insert(least.to_owned(), json!(1));
        }
    }
}

/// Rejects unknown keys. The type of an event is beside a `$ref` to the other keys. Only
/// `unevaluatedProperties` sees both as one object.
fn close(schema: &mut Value) {
    let mut events = Vec::new();
    if let Some(Value::Array(variants)) = schema.get_mut("oneOf") {
        for variant in variants.iter_mut().filter_map(Value::as_object_mut) {
            variant.insert("unevaluatedProperties".to_owned(), json!(false));
            if let Some(reference) = variant.get("$ref").and_then(Value::as_str) {
                events.push(reference.trim_start_matches("#/$defs/").to_owned());
            }
        }
    }
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        for (name, definition) in definitions.iter_mut() {
            if let Value::Object(definition) = definition
                && definition.contains_key("properties")
                && !events.contains(name)
            {
                definition.insert("additionalProperties".to_owned(), json!(false));
            }
        }
    }
}
