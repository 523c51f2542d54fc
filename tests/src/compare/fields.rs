//! Compares single fields of a line and keeps the differences.

use serde_json::Value;

use super::Difference;
use crate::tracer::Line;

/// A line, and the differences found so far.
pub(super) struct Fields<'a> {
    line: &'a Line,
    /// What differs.
    pub(super) differences: Vec<Difference>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(line: &'a Line) -> Self {
        Self { line, differences: Vec::new() }
    }

    pub(super) fn read_at_ns(&self) -> i128 {
        self.line.read_at_ns
    }

    fn differs(&mut self, field: &str, source: &'static str, truth: impl Into<String>) {
        let told = match self.line.get(field) {
            Some(value) => value.to_string(),
            None => format!("nothing ({})", self.reason(field).unwrap_or("and no reason")),
        };
        self.differences.push(Difference { field: field.to_owned(), source, truth: truth.into(), told });
    }

    /// The reason in `missing` for a field or for an object that contains it.
    fn reason(&self, field: &str) -> Option<&'a str> {
        let mut ends = field.match_indices('.').map(|(at, _)| at).chain([field.len()]);
        ends.find_map(|end| self.line.get(&format!("missing.{}", field.get(..end)?))?.as_str())
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.line.get(field).is_some()
    }

    /// A number that oomtrace reported.
    pub(super) fn own_number(&self, field: &str) -> Option<i128> {
        self.line.get(field).and_then(integer)
    }

    pub(super) fn number(&mut self, field: &str, source: &'static str, truth: impl Into<i128>) {
        let truth = truth.into();
        self.between(field, source, truth, truth);
    }

    pub(super) fn between(&mut self, field: &str, source: &'static str, least: i128, most: i128) {
        let told = self.line.get(field).and_then(integer);
        if !told.is_some_and(|told| (least..=most).contains(&told)) {
            let truth = if least == most { least.to_string() } else { format!("{least} to {most}") };
            self.differs(field, source, truth);
        }
    }

    pub(super) fn between_if_known(&mut self, field: &str, source: &'static str, least: i128, most: i128) {
        if self.has(field) {
            self.between(field, source, least, most);
        }
    }

    pub(super) fn flag(&mut self, field: &str, source: &'static str, truth: bool) {
        if self.line.get(field) != Some(&Value::Bool(truth)) {
            self.differs(field, source, truth.to_string());
        }
    }

    /// Text as it must be in the line: invalid UTF-8 is U+FFFD.
    pub(super) fn text(&mut self, field: &str, source: &'static str, truth: &[u8]) {
        let truth = String::from_utf8_lossy(truth);
        if self.line.get(field).and_then(Value::as_str) != Some(&*truth) {
            self.differs(field, source, Value::from(&*truth).to_string());
        }
    }

    /// Names joined with `|`. Their order differs between kernels and has no meaning.
    pub(super) fn flags(&mut self, field: &str, source: &'static str, truth: &str) {
        let sorted = |text: &str| {
            let mut names: Vec<String> = text.split('|').map(str::to_owned).collect();
            names.sort_unstable();
            names
        };
        let told = self.line.get(field).and_then(Value::as_str);
        if told.map(sorted) != Some(sorted(truth)) {
            self.differs(field, source, truth);
        }
    }

    /// Text that may be absent with a reason, or cut and named in `truncated`.
    pub(super) fn text_if_known(&mut self, field: &str, source: &'static str, truth: &[u8]) {
        let whole = String::from_utf8_lossy(truth);
        match self.line.get(field).and_then(Value::as_str) {
            Some(told) if self.is_cut(field) && !told.is_empty() && whole.starts_with(told) => {}
            None if !self.has(field) && self.reason(field).is_some() => {}
            _ => self.text(field, source, truth),
        }
    }

    fn is_cut(&self, field: &str) -> bool {
        let cut = self.line.get("truncated").and_then(Value::as_array);
        cut.is_some_and(|cut| cut.iter().any(|key| key == field))
    }

    pub(super) fn present(&mut self, field: &str, source: &'static str) {
        if !self.has(field) {
            self.differs(field, source, "something");
        }
    }

    pub(super) fn absent(&mut self, field: &str, source: &'static str, truth: &str) {
        if self.has(field) {
            self.differs(field, source, truth);
        }
    }

    /// A time, RFC 3339 with nine digits and `Z`.
    pub(super) fn time(&mut self, field: &str, source: &'static str, least_ns: i128, most_ns: i128) {
        let told = self.line.get(field).and_then(Value::as_str).and_then(moment);
        if !told.is_some_and(|told| (least_ns..=most_ns).contains(&told)) {
            self.differs(field, source, format!("{} to {}", readable(least_ns), readable(most_ns)));
        }
    }

    /// The line's cgroups, name and process, written as the kernel writes them, must equal the kernel's text.
    /// So a name that looks like a key cannot mislead this comparison.
    pub(super) fn place_as_logged(&mut self, logged: &[u8], memcg: bool) {
        let text = |field| self.line.get(field).and_then(Value::as_str).unwrap_or_default();
        let domain =
            if memcg { format!("oom_memcg={}", text("oom.cgroup.path")) } else { "global_oom".to_owned() };
        // Here the kernel names the process (its first thread) with its name, not the victim's thread.
        let told = format!("{domain},task_memcg={},task=", text("victim.cgroup.path"));
        let pid = format!(",pid={}", self.line.get("victim.pid").map(Value::to_string).unwrap_or_default());
        let logged = String::from_utf8_lossy(logged);
        if !(logged.starts_with(&told) && logged.ends_with(&pid)) {
            let field = if logged.ends_with(&pid) { "victim.cgroup.path" } else { "victim.pid" };
            self.differences.push(Difference {
                field: field.to_owned(),
                source: "kernel log",
                truth: logged.into_owned(),
                told: format!("{told}…{pid}"),
            });
        }
    }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or(value.as_u64().map(i128::from))
}

/// Nanoseconds since the epoch; `None` unless it is UTC with nine fraction digits.
pub(crate) fn moment(text: &str) -> Option<i128> {
    let fraction = text.strip_suffix('Z')?.rsplit_once('.')?.1;
    let nine = fraction.len() == 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let time: jiff::Timestamp = text.parse().ok()?;
    nine.then(|| time.as_nanosecond())
}

fn readable(ns: i128) -> String {
    jiff::Timestamp::from_nanosecond(ns).map_or_else(|_| ns.to_string(), |time| format!("{time:.9}"))
}
