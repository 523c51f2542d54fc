//! Prometheus's text format, version 0.0.4.

use std::fmt::Write as _;

/// The head of a metric: its help and its type.
pub(super) fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A counter with its series: the labels of each, in braces, and its value.
pub(super) fn counter(
    out: &mut String,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (String, u64)>,
) {
    all(out, name, (help, "counter"), series);
}

/// A gauge with its series.
pub(super) fn gauge(
    out: &mut String,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (String, u64)>,
) {
    all(out, name, (help, "gauge"), series);
}

fn all(
    out: &mut String,
    name: &str,
    (help, kind): (&str, &str),
    series: impl IntoIterator<Item = (String, u64)>,
) {
    head(out, name, help, kind);
    for (labels, value) in series {
        let _infallible = writeln!(out, "{name}{labels} {value}");
    }
}

/// The value of a label, escaped. Control characters are replaced, because a terminal would obey them.
pub(super) fn label_value(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
}
