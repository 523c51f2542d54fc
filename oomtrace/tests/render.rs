//! From events to lines: snapshots, and any text that a hostile container can use.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "render/any_text.rs"]
mod any_text;
#[path = "render/for_people.rs"]
mod for_people;
#[path = "render/fullest.rs"]
mod fullest;
mod samples;

use fullest::{absences, fullest, fullest_signal};
use oomtrace::event::*;
use oomtrace::outputs::encode::text::Palette;
use oomtrace::outputs::encode::{MAX_LINE_BYTES, Render, json as encode, text};
use proptest::prelude::*;
use serde_json::{Value, json};

fn text(event: &Event, palette: Palette) -> String {
    let mut line = vec![b'x'; 9000];
    Render::Text(palette).line(event, &mut line).unwrap();
    String::from_utf8(line).unwrap()
}

fn kill(change: impl FnOnce(&mut OomKill)) -> Event {
    let mut event = samples::oom_kill();
    change(&mut event);
    Event::OomKill(Box::new(event))
}

fn parse(event: &Event) -> Value {
    let line = samples::json(event);
    assert!(line.len() <= MAX_LINE_BYTES, "{} bytes: {line}", line.len());
    assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
    assert!(!line[..line.len() - 1].contains(breaks_lines), "raw control character in {line:?}");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn breaks_lines(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

fn truncated(value: &Value) -> Vec<&str> {
    value["truncated"].as_array().into_iter().flatten().map(|path| path.as_str().unwrap()).collect()
}

#[test]
fn snapshots() {
    for (name, event) in samples::all() {
        insta::assert_snapshot!(format!("json_{name}"), samples::json(&event));
        insta::assert_snapshot!(format!("text_{name}"), text(&event, Palette::default()));
    }
}

#[test]
fn what_is_written_can_be_read_back() {
    for (name, event) in samples::all() {
        let line = samples::json(&event);
        let back: Event = serde_json::from_str(&line).unwrap();
        assert_eq!(samples::json(&back), line, "{name}");
    }
}

/// The text format and the message use the same words.
#[test]
fn the_message_is_the_first_line_of_the_text() {
    for (name, event) in samples::all() {
        let value = parse(&event);
        let text = text(&event, Palette::default());
        let first = text.lines().next().unwrap();
        let without_time = first.splitn(3, ' ').nth(2).unwrap();
        let message = value["message"].as_str().unwrap();
        match message.strip_suffix('…') {
            Some(start) => assert!(without_time.starts_with(start) && start.len() > 190, "{name}: {message}"),
            None => assert_eq!(message, without_time, "{name}"),
        }
    }
}

#[test]
fn a_long_message_is_cut() {
    for name in ["n".repeat(300), "\u{1}\"".repeat(100), "é".repeat(99)] {
        let value = parse(&kill(|event| event.container.as_mut().unwrap().name = Some(name.clone())));
        let message = value["message"].as_str().unwrap();
        assert!(message.starts_with("oom_kill ") && message.ends_with('…'), "{message}");
        let escaped = value["message"].to_string().len() - 2;
        assert!((190..=text::MESSAGE_BYTES).contains(&escaped), "{escaped}: {message}");
        assert_eq!(truncated(&value), [""; 0], "it stands elsewhere as it is");
    }
}

/// A reason is never cut, even if there is little room for details.
#[test]
fn reasons_are_never_cut() {
    let value = parse(&kill(|event| {
        event.missing = absences(&"d".repeat(300), 40);
        event.oom.cgroup.as_mut().unwrap().cgroup.path = Some(format!("/{}", "p".repeat(2000)));
    }));
    assert!(truncated(&value).contains(&"missing"));
    let kept = value["missing"].as_array().unwrap();
    assert!(kept.len() > 2, "{kept:?}");
    for absence in kept {
        assert_eq!(absence["reason"], "no_hook_and_no_log_line");
        assert!(absence["detail"].as_str().unwrap().ends_with('…'));
    }
}

#[test]
fn a_line_that_fits_to_the_byte_is_not_cut() {
    let length = |text: usize| kill(|event| event.victim.command_line = Some("x".repeat(text)));
    let base = samples::json(&length(0)).len();
    let fits = samples::json(&length(MAX_LINE_BYTES - base));
    assert_eq!(fits.len(), MAX_LINE_BYTES);
    assert!(!fits.contains("truncated"));
    let value = parse(&length(MAX_LINE_BYTES - base + 1));
    assert_eq!(truncated(&value), ["victim.command_line"]);
    let cut = value["victim"]["command_line"].as_str().unwrap();
    assert!(cut.ends_with('…') && cut.len() > MAX_LINE_BYTES - base - 100, "{} bytes left", cut.len());
}

/// The command line is cut before anything that says whose kill it was.
#[test]
fn the_least_important_is_cut_first() {
    let value = parse(&kill(|event| {
        event.victim.command_line = Some("é\"".repeat(3000));
        event.victim.executable = Some("/opt/long".repeat(40));
        event.container.as_mut().unwrap().name = Some("n".repeat(200));
    }));
    assert_eq!(truncated(&value), ["victim.command_line"]);
    assert_eq!(value["container"]["name"].as_str().unwrap().len(), 200);

    let path = format!("/{}", "p".repeat(255)).repeat(42);
    let value = parse(&kill(|event| {
        event.victim.cgroup.path = Some(path.clone());
        event.oom.cgroup.as_mut().unwrap().cgroup.path = Some(path.clone());
        event.trigger.as_mut().unwrap().cgroup.path = Some(path.clone());
    }));
    assert_eq!(truncated(&value), ["trigger.cgroup.path", "victim.cgroup.path", "oom.cgroup.path"]);
    for cut in [&value["victim"]["cgroup"]["path"], &value["oom"]["cgroup"]["path"]] {
        let cut = cut.as_str().unwrap();
        assert!(cut.len() >= 500 && path.starts_with(cut.strip_suffix('…').unwrap()), "{cut}");
    }
    // A text that was cut before stays named.
    let value = parse(&kill(|event| {
        event.truncated = vec!["oom.cgroup.path".into()];
        event.victim.command_line = Some("x".repeat(9000));
    }));
    assert_eq!(truncated(&value), ["oom.cgroup.path", "victim.command_line"]);
}

#[test]
fn a_long_start_keeps_its_shape() {
    let mut start = samples::start();
    start.limits = vec!["a limit of this host, ".repeat(40); 40];
    start.hooks = vec![start.hooks[1].clone(); 60];
    let event = Event::Start(Box::new(start));
    let value = parse(&event);
    assert_eq!(truncated(&value), ["limits", "hooks"]);
    assert!(serde_json::from_value::<Event>(value).is_ok());
    assert!(text(&event, Palette::coloured()).len() <= MAX_LINE_BYTES);
}

/// All keys, each as long as possible.
#[test]
fn fullest_event() {
    for filler in ["x", "\u{1}", "\u{9b}", "\"", "…", "\u{10ffff}"] {
        let text = filler.repeat(2000);
        for (mut event, comm) in
            [(fullest(&text, 20), "victim.comm"), (fullest_signal(&text, 20), "target.comm")]
        {
            match &mut event {
                Event::OomKill(event) => event.truncated = vec![],
                Event::SignalKill(event) => event.truncated = vec![],
                _ => {}
            }
            fits_and_says_what_was_cut(&event, comm);
        }
    }
}

fn fits_and_says_what_was_cut(event: &Event, comm: &str) {
    let value = parse(event);
    let names = truncated(&value);
    assert!(names.contains(&comm) && names.contains(&"missing"), "{names:?}");
    assert!(
        names.iter().all(|name| value.pointer(&format!("/{}", name.replace('.', "/"))).is_some()
            || OPTIONAL.contains(name)),
        "{names:?}"
    );
}

const OPTIONAL: [&str; 4] = ["tags", "container.label", "container.nested", "missing"];

#[test]
fn numbers_beyond_2_53_are_told_in_words() {
    let value = parse(&kill(|event| {
        event.victim.memory.total_vm_bytes = Some(u64::MAX);
        event.victim.oom_score_bytes = Some(i64::MIN);
        event.oom.cgroup.as_mut().unwrap().limit_bytes = Some((1 << 53) + 1);
        event.oom.domain_bytes = Some(1 << 53);
    }));
    assert_eq!(value["victim"]["memory"].get("total_vm_bytes"), None);
    let too_large =
        |key: &str, detail: &str| json!({"key": key, "reason": "number_too_large", "detail": detail});
    assert_eq!(
        value["missing"],
        json!([
            too_large("oom.cgroup.limit_bytes", "9007199254740993"),
            too_large("victim.oom_score_bytes", "-9223372036854775808"),
            too_large("victim.memory.total_vm_bytes", "18446744073709551615"),
        ])
    );
    assert_eq!(value["oom"]["domain_bytes"], 1_u64 << 53);

    // Each alone is noticed, at the first number that is too large.
    for (number, score) in [((1 << 53) + 1, 0), (0, (1 << 53) + 1), (0, -(1 << 53) - 1)] {
        let value = parse(&kill(|event| {
            event.victim.memory.total_vm_bytes = Some(number);
            event.victim.oom_score_bytes = Some(score);
        }));
        assert_eq!(value["missing"].as_array().unwrap().len(), 1, "{number} {score}");
    }

    let lost = Lost { count: u64::MAX, ..samples::lost() };
    assert_eq!(parse(&Event::Lost(Box::new(lost)))["count"], 1_u64 << 53);
    let shared = SharedMmKill { of: vec![u64::MAX, 7], ..samples::shared_mm_kill() };
    assert_eq!(parse(&Event::SharedMmKill(Box::new(shared)))["of"], json!([1_u64 << 53, 7]));
}

#[test]
fn text_from_the_kernel_is_text() {
    assert_eq!(text_from_kernel(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
    assert_eq!(text_from_kernel("é\n\u{1b}".as_bytes()), "é\n\u{1b}");
}

const HOSTILE: [&str; 8] = [
    "\u{1b}[2J",
    "a\nb\r",
    "\u{9b}31m",
    "\u{202e}gpj",
    "\u{2028}x\u{85}",
    "x[1] rss 1 B, limit \"",
    ",task_memcg=/evil",
    "\\u001b\u{7f}\0",
];

/// The lines of `containers` and `check` contain such text too.
#[test]
fn hostile_text_stays_text_on_other_lines() {
    for hostile in HOSTILE {
        let mut out = Vec::new();
        encode::print(&[hostile], &mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(!line.strip_suffix('\n').unwrap().contains(breaks_lines), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()[0], hostile);
    }
}

#[test]
fn hostile_text_stays_text() {
    for hostile in HOSTILE {
        let event = kill(|event| {
            event.victim.comm = Some(hostile.into());
            event.victim.cgroup.path = Some(format!("/{hostile}"));
            event.trigger.as_mut().unwrap().pid = Some(1);
            event.trigger.as_mut().unwrap().comm = Some(hostile.into());
            event.container.as_mut().unwrap().name = Some(hostile.into());
        });
        let value = parse(&event);
        assert_eq!(value["victim"]["comm"], hostile);
        assert_eq!(value["container"]["name"], hostile);
        let line = text(&event, Palette::default());
        assert_clean(&line);
        if hostile.contains('"') {
            assert!(line.contains(r#" "x[1] rss 1 B, limit \"" (docker): "#), "{line}");
        }
    }
}

fn assert_clean(line: &str) {
    let body = line.strip_suffix('\n').unwrap();
    assert!(line.len() <= MAX_LINE_BYTES);
    let moves = |char: char| {
        breaks_lines(char)
            || ('\u{202a}'..='\u{202e}').contains(&char)
            || ('\u{2066}'..='\u{2069}').contains(&char)
    };
    assert!(!body.contains(moves), "{line:?}");
}
