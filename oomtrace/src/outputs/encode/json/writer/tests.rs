#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::*;

fn written(value: &impl Serialize) -> (String, bool) {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    value.serialize(&mut writer).unwrap();
    let exact = writer.exact;
    (String::from_utf8(out).unwrap(), exact)
}

#[test]
fn every_form_is_that_of_serde_json() {
    #[derive(Serialize)]
    enum Form {
        Unit,
        One(u8),
        Two(i8, bool),
        Named { a: Option<char>, b: (), c: f64 },
    }
    let forms = (
        [Form::Unit, Form::One(7), Form::Two(-7, true), Form::Named { a: Some('"'), b: (), c: 0.5 }],
        (u64::MAX, i64::MIN, 0, -1, 10, 99, 1_000_000),
        json!({"": [], "b": {}, "c": [null, [1, 2], {"d": -3}]}),
        std::collections::BTreeMap::from([("key", Some("value")), ("none", None)]),
    );
    assert_eq!(written(&forms), (serde_json::to_string(&forms).unwrap(), false));
}

#[test]
fn a_number_above_2_to_53_is_noticed() {
    for (number, exact) in [(1i64 << 53, true), ((1 << 53) + 1, false)] {
        assert_eq!(written(&number).1, exact);
        assert_eq!(written(&-number).1, exact);
    }
}

#[test]
fn a_key_is_a_text() {
    let map = std::collections::BTreeMap::from([(1, 2)]);
    assert!(map.serialize(&mut Writer::new(&mut Vec::new())).is_err());
}

proptest! {
    #[test]
    fn ascii_is_written_as_serde_json_writes_it(text in r#"[ -~\"\x7f\n]{0,40}"#) {
        let (line, _) = written(&text);
        let plain = is_plain(text.as_bytes());
        prop_assert_eq!(plain, line.len() == text.len() + 2);
        if !text.contains('\x7f') {
            prop_assert_eq!(serde_json::to_string(&text).unwrap(), line);
        }
    }

    #[test]
    fn any_text_is_read_as_it_was_and_breaks_no_line(text: String) {
        let (line, _) = written(&text);
        prop_assert!(!line.contains(breaks_lines));
        prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), Value::String(text));
    }
}
