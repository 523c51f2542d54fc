//! `oomtrace report`: recorded lines through the real binary, as text and as a page.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "not all samples are needed here")]
mod samples;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use oomtrace::event::{Event, OomKill, Origin, Scope};
use tempfile::TempDir;

fn report(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oomtrace"))
        .arg("report")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// Exit code and standard output for these lines.
fn report_of(lines: &str, arguments: &[&str]) -> (i32, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oom.jsonl"), lines).unwrap();
    let output = report(dir.path(), &[arguments, &["oom.jsonl"]].concat());
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// A kill with this number, so many minutes after three o'clock.
fn kill(seq: u64, minute: u64) -> OomKill {
    let mut kill = samples::oom_kill();
    kill.envelope = samples::envelope(Origin::Ebpf, Some(seq));
    kill.envelope.time = format!("2026-11-21T{:02}:{:02}:00.000000000Z", 3 + minute / 60, minute % 60);
    kill
}

fn json(kill: OomKill) -> String {
    samples::json(&Event::OomKill(Box::new(kill)))
}

/// A kill because that host ran out.
fn host_kill(seq: u64, minute: u64, host: &str) -> String {
    let mut kill = kill(seq, minute);
    kill.envelope.host.name = Some(host.to_owned());
    kill.envelope.stream = Some(format!("stream of {host}"));
    kill.oom.scope = Some(Scope::Host);
    kill.oom.cgroup = None;
    kill.container = None;
    kill.systemd = Some(oomtrace::event::Systemd { unit: "postgresql.service".into(), user: None });
    json(kill)
}

#[test]
fn what_happened_on_two_hosts() {
    let mut lines = json(kill(1, 0)) + &json(kill(2, 1));
    // Of another limit and of a larger process.
    let mut larger = kill(3, 130);
    larger.oom.cgroup.as_mut().unwrap().limit_bytes = Some(100 << 20);
    larger.oom.cgroup.as_mut().unwrap().peak_bytes = Some(100 << 20);
    larger.victim.memory.rss_bytes = Some(90 << 20);
    lines += &json(larger);
    // By a limit above its own cgroup.
    let mut above = kill(4, 131);
    above.oom.cgroup.as_mut().unwrap().cgroup.id = Some("1".into());
    lines += &json(above);
    lines += &host_kill(5, 132, "node-8");
    for (name, event) in samples::all() {
        if !name.starts_with("oom_kill") && !name.starts_with("start") {
            lines += &samples::json(&event);
        }
    }
    let (code, out) = report_of(&lines, &[]);
    assert_eq!(code, 0, "{out}");
    insta::assert_snapshot!(out, @r"
    2026-11-21 03:00 to 2026-11-21 05:12 UTC: 22 lines
    5 OOM kills on 2 hosts; what ran out: memcg 4, host 1
    1 process died with a victim whose memory they shared
    the runtimes show 0 of these kills, do not show 1, and 0 could not be asked
    reported as lost: ring_full 3; 1 gap: the kernel counted 5 kills there, 4 were reported; function hooks went silent 1 time

    SERVICE                     KILLS  LAST (UTC)                        LIMIT       PEAK  LARGEST VICTIM
    shop/api (compose)              4  2026-11-21 05:11  50.0 MiB to 100.0 MiB  100.0 MiB  python3 90.0 MiB; 1 by a limit above it
    postgresql.service (unit)       1  2026-11-21 05:12                                    python3 52.5 MiB; 1 because the host ran out

    KILLS, ONE HOUR A LINE (UTC)
    2026-11-21 03:00       2  ###########################
    2026-11-21 04:00       0
    2026-11-21 05:00       3  ########################################

    HOSTS THAT RAN OUT
    node-8  1 of 1 kill, last 2026-11-21 05:12

    SERVICE                LIMIT  HIGHEST USE      %  WATCHED FOR
    compose:shop/api    50.0 MiB     31.0 MiB     62  24.0 h

    INCIDENTS BY HOW THEY CAME
         1  growth
         1  unknown

    LIMITS THAT CAME NEAR
         1  shop/api (compose)
         1  db.service (unit)

    KILLS THAT THE RUNTIME DOES NOT SHOW
         1  shop/api (compose)

    SHOWN AS OOM-KILLED WITHOUT A KILL
         1  b42716fe5dc3ba9807f4e2c6a1b8d5f3e0c9a7b4d2f1e6c8a3b5d7e90c4f21ba

    RAN OUT OF MEMORY WITHOUT A KILL
         1  shop/api (compose)

    KILLED BY OTHERS THAN THE OOM KILLER, BY SENDER
         1  runtime
         1  systemd-oomd
    ");
}

#[test]
fn a_kill_in_a_pod_is_counted_for_its_container_in_the_namespace() {
    let (_, out) = report_of(&json(samples::oom_kill_in_a_pod()), &[]);
    let line = out.lines().find(|line| line.starts_with("shop/api (k8s)")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("1 by a limit above it"), "{line}");
    assert!(!line.contains("50.0 MiB"), "the pod's limit is not the container's: {line}");
}

/// As the kernel's log has it: without the ids of cgroups.
#[test]
fn a_limit_of_its_own_cgroup_is_known_by_the_path_too() {
    let mut kill = kill(1, 0);
    kill.victim.cgroup.id = None;
    kill.oom.cgroup.as_mut().unwrap().cgroup.id = None;
    let (_, out) = report_of(&json(kill), &[]);
    assert!(out.contains("50.0 MiB") && !out.contains("by a limit above it"), "{out}");
}

#[test]
fn a_time_since_boot_is_no_time_of_the_calendar() {
    let mut kill = kill(1, 0);
    kill.envelope.origin = Origin::Kmsg;
    kill.envelope.time = "1970-01-01T00:01:40.000000000Z".into();
    let (_, out) = report_of(&json(kill), &[]);
    assert!(out.starts_with("at unknown times: 1 line\n1 OOM kill ") && !out.contains("1970"), "{out}");
}

#[test]
fn a_line_written_twice_is_counted_once() {
    let (code, out) = report_of(&(json(kill(1, 0)) + &json(kill(1, 0)) + &json(kill(2, 0))), &[]);
    assert_eq!(code, 0);
    assert!(out.contains("\n2 OOM kills on 1 host"), "{out}");
}

#[test]
fn what_is_not_understood_is_counted_and_the_rest_is_reported() {
    let dir = TempDir::new().unwrap();
    let line = json(kill(1, 0));
    let torn = &line[..line.len() / 2];
    let unknown = json(kill(2, 0)).replacen("\"type\":\"oom_kill\"", "\"type\":\"oom_kiss\"", 1);
    let wrong = json(kill(3, 0)).replacen("\"rss_bytes\":55050240", "\"rss_bytes\":\"much\"", 1);
    fs::write(dir.path().join("a"), format!("{torn}\n{line}\n{unknown}{wrong}no line\n")).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    let output = report(dir.path(), &["a", "empty"]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(65), "{err}");
    assert!(out.contains("\n1 OOM kill on 1 host"), "{out}");
    assert!(err.contains("2 lines are torn or not oomtrace's (the first is line 1 of a)"), "{err}");
    assert!(err.contains("2 lines are of another version"), "{err}");

    let output = report(dir.path(), &["a", "none"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none: "));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 OOM kill"), "the other file is reported");
}

#[test]
fn only_the_time_and_the_containers_that_were_asked_for() {
    let mut other = kill(3, 61);
    other.container.as_mut().unwrap().name = Some("other".into());
    let lines = json(kill(1, 0)) + &json(kill(2, 60)) + &json(other);
    let (_, out) = report_of(&lines, &["--since", "2026-11-21T04:00:00Z"]);
    assert!(out.contains("\n2 OOM kills"), "{out}");
    let (_, out) = report_of(&lines, &["--until", "2026-11-21T04:00:00Z"]);
    assert!(out.contains("\n1 OOM kill "), "{out}");
    let (_, out) = report_of(&lines, &["--container", "other"]);
    assert!(out.contains("\n1 OOM kill "), "{out}");
    let (_, out) = report_of(&lines, &["--most", "1", "--type", "oom_kill"]);
    assert!(out.contains("\n3 OOM kills"), "{out}");
}

#[test]
fn nothing_is_a_report_too() {
    let (code, out) = report_of("", &[]);
    assert_eq!((code, &*out), (0, "no lines of oomtrace\n"));
}

#[test]
fn names_cannot_change_the_page_or_the_terminal() {
    let hostile = "</td><script>alert('x')</script>\u{1b}[2J&\"\u{202e}";
    let mut kill = kill(1, 0);
    kill.container = None;
    kill.victim.comm = Some(hostile.into());
    kill.victim.cgroup.path = Some(format!("/{hostile}"));
    kill.envelope.host.name = Some(hostile.into());
    kill.oom.scope = Some(Scope::Host);
    let mut verdict = samples::verdict();
    verdict.container.name = Some(hostile.into());
    verdict.container.label.clear();
    verdict.false_positive = vec![hostile.into()];
    let lines = json(kill) + &samples::json(&Event::Verdict(Box::new(verdict)));

    let (_, out) = report_of(&lines, &[]);
    assert!(out.contains("alert"), "{out}");
    assert!(!out.contains(['\u{1b}', '\u{202e}']), "{out:?}");

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oom.jsonl"), lines).unwrap();
    assert!(report(dir.path(), &["--html", "page.html", "oom.jsonl"]).status.success());
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert_eq!(page.matches("alert").count(), 5, "each name is there: {page}");
    assert!(!page.contains("<script") && !page.contains(['\u{1b}', '\u{202e}']), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is loaded");
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oom.jsonl"), json(kill(1, 0))).unwrap();
    let output = report(dir.path(), &["--html", "no/page.html", "oom.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write no/page.html"));
}

/// A shell puts the first of the files in the place of a forgotten OUT.
#[test]
fn a_file_that_is_no_page_is_not_replaced() {
    let dir = TempDir::new().unwrap();
    let lines = json(kill(1, 0));
    fs::write(dir.path().join("oom.jsonl"), &lines).unwrap();
    fs::write(dir.path().join("oom.jsonl.1"), &lines).unwrap();
    let output = report(dir.path(), &["--html", "oom.jsonl", "oom.jsonl.1"]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("is no page of `oomtrace report`"), "{err}");
    assert_eq!(fs::read_to_string(dir.path().join("oom.jsonl")).unwrap(), lines);
    for _ in 0..2 {
        assert_eq!(report(dir.path(), &["--html", "page.html", "oom.jsonl"]).status.code(), Some(0));
    }
}

#[test]
fn a_line_of_another_version_is_not_counted() {
    let other = json(kill(1, 0)).replace("{\"schema\":1,", "{\"schema\":2,");
    for arguments in [&[][..], &["--container", "nope"]] {
        let (code, out) = report_of(&other, arguments);
        assert!(code == 65 && !out.contains("1 OOM kill"), "{arguments:?}: {out}");
    }
}

#[test]
fn what_another_writer_put_there_cannot_forge_a_row_or_hide_a_loss() {
    let hostile = json(kill(1, 0)).replace("\"scope\":\"memcg\"", "\"scope\":\"a\\n0 OOM kills\\u001b[2J\"");
    let (_, out) = report_of(&hostile, &[]);
    assert!(!out.contains('\u{1b}') && !out.contains("\n0 OOM kills"), "{out:?}");
    let mut lost = samples::all().into_iter().find(|(name, _)| *name == "lost").unwrap().1;
    let Event::Lost(event) = &mut lost else { panic!("{lost:?}") };
    let mut lines = String::new();
    for number in 0..2 {
        event.count = 777;
        event.envelope.id = Some(format!("lost-{number}"));
        lines += &samples::json(&Event::Lost(event.clone())).replace("777", &(1_u64 << 63).to_string());
    }
    let (_, out) = report_of(&lines, &[]);
    assert!(out.contains(&u64::MAX.to_string()), "{out}");
}
