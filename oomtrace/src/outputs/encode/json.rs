//! Turns an event into a line of JSON with fewer than 4096 bytes, whatever it contains.
//!
//! Nearly every line fits and is written once, directly from the types. A line that does not fit, or that has
//! a number that JSON readers would round, is converted to a [`Value`] first. This second way does not depend
//! on the types, so it cannot forget a field.

use std::cell::Cell;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use serde_json::{Map, Value, json};

use crate::{
    event::{Envelope, Event, MAX_NUMBER, Reason, Severity},
    outputs::encode::{MAX_LINE_BYTES, fit::fit, text},
};

/// Replaces the content of `out` by the line of `event`.
///
/// # Errors
/// None is known: the types of [`crate::event`] contain nothing that JSON cannot express.
pub fn line(event: &Event, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let whole = Whole { event, message: &text::message(event) };
    let exact = encode(&whole, out)?;
    if !exact || out.len() >= MAX_LINE_BYTES {
        cut_to(&whole, exact, MAX_LINE_BYTES - 1, out)?;
    }
    out.push(b'\n');
    Ok(())
}

/// The line of `event` as a map of at most `room` bytes, for another format. Replaces the content of `out`.
pub(super) fn map(
    event: &Event,
    room: usize,
    out: &mut Vec<u8>,
) -> Result<Map<String, Value>, serde_json::Error> {
    let whole = Whole { event, message: &text::message(event) };
    let exact = encode(&whole, out)?;
    cut_to(&whole, exact, room, out)
}

/// Shortens `whole`, which `out` contains, so that it fits into `room`, without a newline.
fn cut_to(
    whole: &Whole<'_>,
    exact: bool,
    room: usize,
    out: &mut Vec<u8>,
) -> Result<Map<String, Value>, serde_json::Error> {
    let Value::Object(mut line) = serde_json::to_value(whole)? else { return Ok(Map::new()) };
    if !exact {
        keep_exact(&mut line);
        encode(&line, out)?;
    }
    fit(&mut line, room, out)?;
    Ok(line)
}

/// An event with its message and severity, in the order of a line.
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
            Event::SignalKill(event) => line(self, event, serializer),
            Event::Incident(event) => line(self, event, serializer),
            Event::LimitNear(event) => line(self, event, serializer),
            Event::LimitFar(event) => line(self, event, serializer),
            Event::Usage(event) => line(self, event, serializer),
            Event::HostMemory(event) => line(self, event, serializer),
            Event::Stuck(event) => line(self, event, serializer),
            Event::Lost(event) => line(self, event, serializer),
            Event::Gap(event) => line(self, event, serializer),
            Event::Hooks(event) => line(self, event, serializer),
            Event::Verdict(event) => line(self, event, serializer),
            Event::Stop(event) => line(self, event, serializer),
        }
    }
}

/// Writes `value` as a line of any length, escaped like an event's line.
///
/// # Errors
/// If `value` cannot be JSON, or `out` refuses.
pub fn print(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let mut line = Vec::new();
    encode(value, &mut line)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// Replaces the content of `out` by `value`. Returns whether readers keep every number exactly.
pub(super) fn encode(value: &impl Serialize, out: &mut Vec<u8>) -> Result<bool, serde_json::Error> {
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

/// The size of a character in a JSON string, in bytes.
pub(super) fn width(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        char if breaks_lines(char) => 6,
        char => char.len_utf8(),
    }
}

/// Removes numbers beyond ±2^53 and adds them to `missing`. Numbers at the top level are counters, most of
/// them required: there 2^53 means "at least this".
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

/// Whether readers would round this number.
fn is_beyond(value: &Value) -> bool {
    value.as_u64().is_some_and(|number| number > MAX_NUMBER)
        || value.as_i64().is_some_and(|number| number.unsigned_abs() > MAX_NUMBER)
}
