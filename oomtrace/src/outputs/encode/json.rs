//! An event to a line of JSON of fewer than 4096 bytes, whatever is in it.
//!
//! Nearly every line fits as it is and is written once, straight from the types. One that does
//! not, or that holds a number JSON readers would round, takes a second way over
//! [`Value`], which knows nothing of the types and so cannot forget a field of theirs.

use std::cell::Cell;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use serde_json::{Map, Value, json};

use crate::{
    event::{Envelope, Event, MAX_NUMBER, Reason, Severity},
    outputs::encode::{MAX_LINE_BYTES, cut, text},
};

/// What is cut and down to how many bytes, the least important first.
const CUTS: [(&str, usize); 17] = [
    ("victim.command_line", 256),
    ("container.label", 512),
    ("victim.executable", 256),
    ("container.image.name", 256),
    ("trigger.cgroup.path", 256),
    ("limits", 1024),
    ("hooks", 1024),
    ("false_positive", 1024),
    ("cgroups", 2048),
    ("container.nested", 256),
    ("missing", 512),
    ("victim.cgroup.path", 512),
    ("oom.cgroup.path", 512),
    ("cgroup.path", 512),
    ("message", 100),
    ("tags", 256),
    ("victim.command_line", 64),
];

/// Then everything, down to this many bytes each. What is left fits: the test `fullest_event` has all of it.
const CAPS: [usize; 4] = [256, 128, 64, 32];

/// Maps and lists of any length: entries may go. Those that are optional go when they are empty.
const OPEN_MAPS: [&str; 2] = ["label", "tags"];
const OPTIONAL: [&str; 7] = ["label", "tags", "missing", "nested", "limits", "false_positive", "cgroups"];

/// Replaces what is in `out` by the line of `event`.
///
/// # Errors
/// None is known: the types of [`crate::event`] hold nothing that JSON cannot.
pub fn line(event: &Event, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let whole = Whole { event, message: &text::message(event) };
    let exact = encode(&whole, out)?;
    if !exact || out.len() >= MAX_LINE_BYTES {
        let mut value = serde_json::to_value(&whole)?;
        if let Value::Object(line) = &mut value {
            if !exact {
                keep_exact(line);
                encode(line, out)?;
            }
            fit(line, out)?;
        }
    }
    out.push(b'\n');
    Ok(())
}

/// An event and what is told of it in words, in the order of a line.
struct Whole<'a> {
    event: &'a Event,
    message: &'a str,
}

impl Serialize for Whole<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a, T> {
            schema: u32,
            r#type: &'static str,
            time: &'a str,
            message: &'a str,
            severity: Severity,
            #[serde(flatten)]
            event: &'a T,
        }
        fn line<T: Serialize, S: serde::Serializer>(
            whole: &Whole<'_>,
            event: &T,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let Whole { event: of, message } = *whole;
            let Envelope { schema, time, .. } = of.envelope();
            let line =
                Line { schema: *schema, r#type: of.kind(), time, message, severity: of.severity(), event };
            line.serialize(serializer)
        }
        match self.event {
            Event::Start(event) => line(self, event, serializer),
            Event::OomKill(event) => line(self, event, serializer),
            Event::SharedMmKill(event) => line(self, event, serializer),
            Event::MemcgOom(event) => line(self, event, serializer),
            Event::Lost(event) => line(self, event, serializer),
            Event::Gap(event) => line(self, event, serializer),
            Event::Hooks(event) => line(self, event, serializer),
            Event::Verdict(event) => line(self, event, serializer),
            Event::Stop(event) => line(self, event, serializer),
        }
    }
}

/// `value` on a line of any length, with all that an event's line escapes.
///
/// # Errors
/// `value` cannot be JSON, or `out` refuses.
pub fn print(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let mut line = Vec::new();
    encode(value, &mut line)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// Replaces what is in `out` by `value`. Says whether each number is one that readers keep exactly.
fn encode(value: &impl Serialize, out: &mut Vec<u8>) -> Result<bool, serde_json::Error> {
    out.clear();
    let exact = Cell::new(true);
    value.serialize(&mut Serializer::with_formatter(out, LineFormatter { exact: &exact }))?;
    Ok(exact.get())
}

/// Compact JSON that escapes all control characters and line separators, not only those that JSON must,
/// and notices large numbers.
struct LineFormatter<'a> {
    exact: &'a Cell<bool>,
}

impl Formatter for LineFormatter<'_> {
    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if value > MAX_NUMBER {
            self.exact.set(false);
        }
        CompactFormatter.write_u64(writer, value)
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        if value.unsigned_abs() > MAX_NUMBER {
            self.exact.set(false);
        }
        CompactFormatter.write_i64(writer, value)
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        // All of it is looked at, many bytes at a time: most texts are plain ASCII, and short.
        let high = text.bytes().fold(0, |high, byte| high | byte | byte.wrapping_add(1));
        // The first bytes of what is looked for.
        if high < 0x80 || !text.bytes().any(|byte| matches!(byte, 0x7f | 0xc2 | 0xe2)) {
            return writer.write_all(text.as_bytes());
        }
        for piece in text.split_inclusive(breaks_lines) {
            match piece.chars().next_back().filter(|char| breaks_lines(*char)) {
                Some(last) => {
                    writer.write_all(piece.strip_suffix(last).unwrap_or(piece).as_bytes())?;
                    write!(writer, "\\u{:04x}", u32::from(last))?;
                }
                None => writer.write_all(piece.as_bytes())?,
            }
        }
        Ok(())
    }
}

/// Terminals obey DEL and the C1 controls, and some readers split lines at U+0085, U+2028 and U+2029.
fn breaks_lines(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Bytes of a character within a JSON string of ours.
pub(super) fn width(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        char if breaks_lines(char) => 6,
        char => char.len_utf8(),
    }
}

/// Takes out numbers beyond ±2^53 and says so in `missing`. The numbers beside `type` are counters, most of
/// them required: 2^53 stands for "at least that".
fn keep_exact(line: &mut Map<String, Value>) {
    let mut absences = Vec::new();
    for (key, value) in line.iter_mut() {
        match value {
            Value::Number(_) => keep_counter(value),
            Value::Array(list) if list.iter().all(Value::is_number) => list.iter_mut().for_each(keep_counter),
            value => take_beyond(value, key, &mut absences),
        }
    }
    if absences.is_empty() {
        return;
    }
    let missing = line.entry("missing").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(missing) = missing {
        missing.append(&mut absences);
    }
}

fn keep_counter(value: &mut Value) {
    if is_beyond(value) {
        *value = MAX_NUMBER.into();
    }
}

fn take_beyond(value: &mut Value, path: &str, absences: &mut Vec<Value>) {
    match value {
        Value::Object(map) => map.retain(|key, value| {
            let path = format!("{path}.{key}");
            if is_beyond(value) {
                absences.push(
                    json!({"key": path, "reason": Reason::NumberTooLarge, "detail": value.to_string()}),
                );
                return false;
            }
            take_beyond(value, &path, absences);
            true
        }),
        Value::Array(list) => list.iter_mut().for_each(|value| take_beyond(value, path, absences)),
        _ => {}
    }
}

/// A number that readers would round.
fn is_beyond(value: &Value) -> bool {
    value.as_u64().is_some_and(|number| number > MAX_NUMBER)
        || value.as_i64().is_some_and(|number| number.unsigned_abs() > MAX_NUMBER)
}

/// Cuts until the line fits: `out` holds it as it is, and as it fits afterwards, without its newline.
fn fit(line: &mut Map<String, Value>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    const ROOM: usize = MAX_LINE_BYTES - 1;
    /// `"truncated":[],` and the quotes and comma of a name in it.
    const NAMING: usize = 18;
    /// All names of keys that can be cut before they come here have less.
    const TRUNCATED: usize = 512;

    if let Some(truncated) = line.get_mut("truncated")
        && size(truncated)? > TRUNCATED
    {
        shrink(truncated, TRUNCATED)?;
        encode(line, out)?;
    }
    for (path, floor) in CUTS {
        if out.len() <= ROOM {
            return Ok(());
        }
        let excess = out.len() - ROOM + path.len() + NAMING;
        if let Some(part) = at(line, path) {
            let size = size(part)?;
            if size > floor && shrink(part, floor.max(size.saturating_sub(excess)))? {
                name_cut(line, path);
                encode(line, out)?;
            }
        }
    }
    for cap in CAPS {
        if out.len() <= ROOM {
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

/// Bytes of `value` in a line, without the quotes or brackets around it.
fn size(value: &Value) -> Result<usize, serde_json::Error> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes)?;
    Ok(bytes.len().saturating_sub(2))
}

/// Cuts a text, or takes from a map or list, until it has `room` bytes or fewer. Says whether it did.
fn shrink(value: &mut Value, room: usize) -> Result<bool, serde_json::Error> {
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

/// Cuts the text of an entry, or the texts in it: never below what a key or a word of ours takes.
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

/// Which entries stay so that they have `room` bytes together: the largest go first, of equals the last.
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
                if size(value)? > cap && shrink(value, cap)? {
                    paths.push(path);
                }
            }
        }
    }
    Ok(())
}

/// Adds `path` to `truncated`, and takes out what a cut left empty.
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
