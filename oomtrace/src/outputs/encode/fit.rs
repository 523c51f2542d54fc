//! Shortens a line that is too long: what is cut, and in which order.

use serde_json::{Map, Value};

use crate::outputs::encode::{
    cut,
    json::{encode, width},
};

/// What is cut, and to how many bytes. The least important comes first.
const CUTS: [(&str, usize); 26] = [
    ("victim.command_line", 256),
    ("container.label", 512),
    ("victim.executable", 256),
    ("container.image.name", 256),
    ("trigger.cgroup.path", 256),
    ("sender.executable", 256),
    ("sender.cgroup.path", 256),
    ("limits", 1024),
    ("hooks", 1024),
    ("false_positive", 1024),
    ("cgroups", 2048),
    ("before.points", 96),
    ("process_table.largest", 128),
    ("threads", 256),
    ("findings", 512),
    ("top", 1024),
    ("container.nested", 256),
    ("missing", 512),
    ("victim.cgroup.path", 512),
    ("target.cgroup.path", 512),
    ("oom.cgroup.path", 512),
    ("cgroup.path", 512),
    ("top", 512),
    ("message", 100),
    ("tags", 256),
    ("victim.command_line", 64),
];

/// After that, every text is cut to this many bytes. The result fits: the test `fullest_event` contains
/// everything.
const CAPS: [usize; 4] = [256, 128, 64, 32];

/// Maps of any length, whose entries may be removed. An optional map that becomes empty is removed.
const OPEN_MAPS: [&str; 2] = ["label", "tags"];
const OPTIONAL: [&str; 11] = [
    "label",
    "tags",
    "missing",
    "nested",
    "limits",
    "false_positive",
    "cgroups",
    "largest",
    "findings",
    "top",
    "threads",
];

/// A list whose first entries count most. The last are removed first.
const FIRST_COUNT_MOST: &str = "top";

/// Cuts until the line in `out` has at most `room` bytes, without its newline.
pub(super) fn fit(
    line: &mut Map<String, Value>,
    room: usize,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    /// `"truncated":[],` and the quotes and comma of a name in it.
    const NAMING: usize = 18;
    /// The names of all keys that can be cut before this are shorter.
    const TRUNCATED: usize = 512;

    if let Some(truncated) = line.get_mut("truncated")
        && size(truncated)? > TRUNCATED
    {
        shrink("truncated", truncated, TRUNCATED)?;
        encode(line, out)?;
    }
    for (path, floor) in CUTS {
        if out.len() <= room {
            return Ok(());
        }
        let excess = out.len() - room + path.len() + NAMING;
        if let Some(part) = at(line, path) {
            let size = size(part)?;
            if size > floor && shrink(path, part, floor.max(size.saturating_sub(excess)))? {
                name_cut(line, path);
                encode(line, out)?;
            }
        }
    }
    for cap in CAPS {
        if out.len() <= room {
            break;
        }
        let mut paths = Vec::new();
        shrink_all(line, "", cap, &mut paths)?;
        paths.iter().for_each(|path| name_cut(line, path));
        encode(line, out)?;
    }
    Ok(())
}

/// The value at a dotted path.
fn at<'a>(line: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        None => line.get_mut(path),
        Some((first, rest)) => at(line.get_mut(first)?.as_object_mut()?, rest),
    }
}

/// The size of `value` in a line in bytes, without its quotes or brackets.
fn size(value: &Value) -> Result<usize, serde_json::Error> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes)?;
    Ok(bytes.len().saturating_sub(2))
}

/// Cuts a text, or removes entries of a map or list, until it has at most `room` bytes. Returns whether it
/// did.
fn shrink(path: &str, value: &mut Value, room: usize) -> Result<bool, serde_json::Error> {
    match value {
        Value::String(text) => Ok(cut(text, room, width)),
        Value::Object(map) => {
            let mut sizes = Vec::with_capacity(map.len());
            for (key, value) in map.iter_mut() {
                if let Value::String(text) = value {
                    cut(text, room / 4, width);
                }
                // Two pairs of quotes, a colon and a comma.
                sizes.push(key.chars().map(width).sum::<usize>() + size(value)? + 6);
            }
            let mut keep = keep_smallest(&sizes, room).into_iter();
            map.retain(|_, _| keep.next().unwrap_or(false));
            Ok(true)
        }
        // Points of a curve: each second one stays, and the last.
        Value::Array(list) if list.iter().all(Value::is_array) => {
            while list.len() > 2 && size(&Value::Array(list.clone()))? > room {
                let last = list.len() - 1;
                let mut place = 0..;
                list.retain(|_| {
                    place.next().is_some_and(|place| place == last || place % 2 == 0 && place + 1 != last)
                });
            }
            Ok(true)
        }
        Value::Array(list) if path == FIRST_COUNT_MOST => {
            let sizes: Vec<usize> =
                list.iter().map(|value| Ok(size(value)? + 3)).collect::<Result<_, serde_json::Error>>()?;
            let fits = |sum: &mut usize, size: &usize| {
                *sum += size;
                Some(*sum <= room)
            };
            list.truncate(sizes.iter().scan(0, fits).take_while(|fits| *fits).count());
            Ok(true)
        }
        Value::Array(list) => {
            let mut sizes = Vec::with_capacity(list.len());
            for value in list.iter_mut() {
                shorten(value, room);
                sizes.push(size(value)? + 3);
            }
            let mut keep = keep_smallest(&sizes, room).into_iter();
            list.retain(|_| keep.next().unwrap_or(false));
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Cuts the text of an entry, or the texts in it, but never below the size of a key or a fixed word.
fn shorten(entry: &mut Value, room: usize) {
    const WORD: usize = 64;
    match entry {
        Value::String(text) => _ = cut(text, room / 4, width),
        Value::Object(entry) => {
            for text in entry.values_mut() {
                if let Value::String(text) = text {
                    cut(text, WORD.max(room / 8), width);
                }
            }
        }
        _ => {}
    }
}

/// Which entries stay so that together they have at most `room` bytes. The largest are removed first; of
/// equal ones, the last.
fn keep_smallest(sizes: &[usize], room: usize) -> Vec<bool> {
    let mut order: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
    order.sort_by_key(|(index, size)| (*size, *index));
    let mut keep = vec![false; sizes.len()];
    let mut total = 0;
    for (index, size) in order {
        total += size;
        if let Some(kept) = keep.get_mut(index) {
            *kept = total <= room;
        }
    }
    keep
}

fn shrink_all(
    map: &mut Map<String, Value>,
    prefix: &str,
    cap: usize,
    paths: &mut Vec<String>,
) -> Result<(), serde_json::Error> {
    for (key, value) in map.iter_mut().filter(|(key, _)| *key != "truncated") {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(inner) if !OPEN_MAPS.contains(&key.as_str()) => {
                shrink_all(inner, &path, cap, paths)?;
            }
            value => {
                if size(value)? > cap && shrink(&path, value, cap)? {
                    paths.push(path);
                }
            }
        }
    }
    Ok(())
}

/// Adds `path` to `truncated`, and removes what a cut left empty.
fn name_cut(line: &mut Map<String, Value>, path: &str) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if OPTIONAL.contains(&key) && at(line, path).is_some_and(|value| is_empty(value)) {
        if parent.is_empty() {
            line.shift_remove(key);
        } else if let Some(Value::Object(parent)) = at(line, parent) {
            parent.shift_remove(key);
        }
    }
    if !line.contains_key("truncated") {
        let before_missing = line.keys().position(|key| key == "missing").unwrap_or(line.len());
        line.shift_insert(before_missing, "truncated".to_owned(), Value::Array(Vec::new()));
    }
    if let Some(Value::Array(paths)) = line.get_mut("truncated")
        && !paths.iter().any(|known| known == path)
    {
        paths.push(path.into());
    }
}
