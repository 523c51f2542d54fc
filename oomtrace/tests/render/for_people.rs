//! The text format.

use super::*;

#[test]
fn colour_is_only_colour() {
    for (name, event) in samples::all() {
        let coloured = text(&event, Palette::coloured());
        assert!(coloured.contains("\u{1b}["), "{name}");
        let mut plain = String::new();
        for (index, part) in coloured.split("\u{1b}[").enumerate() {
            plain.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
        }
        assert_eq!(plain, text(&event, Palette::default()), "{name}");
    }
}

#[test]
fn text_says_how_a_victim_came_to_be_one() {
    for (how, words) in [
        (Kill::Group, ", killed with its group"),
        (Kill::AllocatingTask, ", killed for allocating"),
        (Kill::Sysrq, ", requested by sysrq"),
        (Kill::AlreadyExiting, ", was already exiting"),
    ] {
        let line = text(&kill(|event| event.oom.kill = Some(how)), Palette::default());
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn text_says_whose_it_is() {
    let line = |user| {
        let event = kill(|event| event.container.as_mut().unwrap().runtime.user = user);
        text(&event, Palette::default())
    };
    assert!(line(None).contains(" api-service (docker)"), "{}", line(None));
    assert!(line(Some(4242)).contains(" 4242/api-service (docker)"), "{}", line(Some(4242)));
    let unit = |user| {
        let event = kill(|event| {
            event.container = None;
            event.systemd = Some(Systemd { unit: "postgresql.service".into(), user });
        });
        text(&event, Palette::default())
    };
    assert!(unit(None).contains(" postgresql.service"), "{}", unit(None));
    assert!(unit(Some(4242)).contains(" 4242/postgresql.service"), "{}", unit(Some(4242)));
}

#[test]
fn text_says_what_is_not_known() {
    let event = kill(|event| {
        event.oom = Oom::default();
        event.victim = Victim { tid: Some(7), ..Victim::default() };
        event.trigger = None;
        event.container = None;
    });
    insta::assert_snapshot!(text(&event, Palette::default()));
}

#[test]
fn sizes_are_rounded_down_to_a_tenth() {
    for (bytes, shown) in [
        (0, "rss 0 B,"),
        (1023, "rss 1023 B,"),
        (1024, "rss 1.0 KiB,"),
        ((1 << 20) - 1, "rss 1023.9 KiB,"),
        (1 << 20, "rss 1.0 MiB,"),
        (55050240, "rss 52.5 MiB,"),
        (u64::MAX, "rss 15.9 EiB,"),
    ] {
        let line = text(&kill(|event| event.victim.memory.rss_bytes = Some(bytes)), Palette::default());
        assert!(line.contains(shown), "{shown} in {line}");
    }
}

#[test]
fn text_names_what_of_a_host_is_large() {
    let text_of = |vmalloc_bytes| {
        let mut event = samples::host_memory();
        event.memory.as_mut().unwrap().vmalloc_bytes = Some(vmalloc_bytes);
        text(&Event::HostMemory(Box::new(event)), Palette::default())
    };
    assert!(text_of(1 << 30).contains(", mapped by the kernel (vmalloc) 1.0 GiB, not explained"));
    assert!(!text_of(1 << 28).contains("vmalloc"));
}

#[test]
fn text_says_that_a_container_lives_on() {
    let mut event = samples::incident();
    event.findings = vec![Finding {
        pid: Some(2967),
        comm: Some("sh".to_owned()),
        ..Finding::new(FindingId::ChildKilledContainerLives)
    }];
    let text = text(&Event::Incident(Box::new(event)), Palette::default());
    assert!(
        text.contains("\n  - the container lives on without it: its first process sh[2967] is still there")
    );
}
