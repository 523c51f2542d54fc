//! Events with random text.

use super::*;

fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just("\u{1}".to_owned()),
        Just("\u{9b}".to_owned()),
        Just("\u{2028}".to_owned()),
        Just("\\\"".to_owned()),
        Just("é…".to_owned()),
        Just("/kubepods".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    (proptest::collection::vec(piece, 1..6), 0_usize..1500)
        .prop_map(|(pieces, n)| pieces.concat().repeat(n / 6))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// With any text: one valid line of fewer than 4096 bytes, as JSON and as text, which names what was cut.
    #[test]
    fn any_event_is_one_line(
        long in any_text(), short in any_text(), many in 0_usize..40, number in any::<u64>(),
        which in proptest::collection::vec(any::<bool>(), 10),
    ) {
        let pick = |index: usize| if which[index] { long.clone() } else { short.clone() };
        let event = kill(|event| {
            let bytes = text_from_kernel(pick(0).as_bytes());
            event.victim.comm = Some(bytes);
            event.victim.command_line = Some(pick(1));
            event.victim.executable = Some(pick(2));
            event.victim.cgroup.path = Some(pick(3));
            event.victim.memory.total_vm_bytes = Some(number);
            event.oom.cgroup.as_mut().unwrap().cgroup.path = Some(pick(4));
            event.oom.cgroup.as_mut().unwrap().limit_bytes = Some(number);
            event.trigger.as_mut().unwrap().cgroup.path = Some(pick(5));
            let container = event.container.as_mut().unwrap();
            container.name = Some(pick(6));
            container.label.extend((0..many).map(|n| (format!("{n}{}", pick(7)), pick(8))));
            event.missing.extend(absences(&pick(9), many));
        });
        let value = parse(&event);
        let Event::OomKill(whole) = &event else { panic!("no kill") };
        let whole = serde_json::to_value(whole).unwrap();
        for pointer in ["/victim/comm", "/victim/command_line", "/victim/executable", "/victim/cgroup/path",
            "/oom/cgroup/path", "/trigger/cgroup/path", "/container/name", "/container/label"]
        {
            let name = pointer.trim_start_matches('/').replace('/', ".");
            let same = value.pointer(pointer) == whole.pointer(pointer);
            prop_assert_eq!(same, !truncated(&value).contains(&name.as_str()), "{}", name);
        }
        assert_clean(&text(&event, Palette::default()));
    }

    #[test]
    fn the_fullest_event_fits(text in any_text(), many in 0_usize..20) {
        parse(&fullest(&text, many));
        parse(&fullest_signal(&text, many));
    }
}

#[test]
fn a_used_buffer_is_replaced() {
    let (_, event) = samples::all().remove(1);
    let mut line = b"left over".to_vec();
    encode::line(&event, &mut line).unwrap();
    assert_eq!(line, samples::json(&event).as_bytes());
    text::line(&event, &Palette::default(), &mut line);
    assert!(line.starts_with(b"2026-"));
}

#[test]
fn labels_go_the_largest_first() {
    let value = parse(&kill(|event| {
        let labels = &mut event.container.as_mut().unwrap().label;
        labels.extend((0..100).map(|n| (format!("label-{n}"), "v".repeat(1024))));
    }));
    assert_eq!(truncated(&value), ["container.label"]);
    let labels = value["container"]["label"].as_object().unwrap();
    assert_eq!(labels["com.docker.compose.service"], "api");
    assert!(labels.len() > 4, "{labels:?}");
    // An entry whose key is too long is removed, and so is the empty map.
    let value = parse(&kill(|event| {
        event.container.as_mut().unwrap().label = [("k".repeat(8000), "v".to_owned())].into();
    }));
    assert_eq!(truncated(&value), ["container.label"]);
    assert_eq!(value["container"].get("label"), None);
}
