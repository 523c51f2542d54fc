//! `oomtrace explain`: the card of one kill, through the real binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "not all samples are needed here")]
mod samples;

use std::{fs, path::Path, process::Command};

use oomtrace::event::{Absence, Event, OomKill, Origin, Reason, Scope};
use tempfile::TempDir;

/// Exit code, standard output and standard error for these lines.
fn explain(lines: &str, arguments: &[&str]) -> (i32, String, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oom.jsonl"), lines).unwrap();
    explain_in(dir.path(), &[arguments, &["oom.jsonl"]].concat())
}

fn explain_in(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_oomtrace"))
        .arg("explain")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn kill(seq: u64, minute: u64) -> OomKill {
    let mut kill = samples::oom_kill();
    kill.envelope = samples::envelope(Origin::Ebpf, Some(seq));
    kill.envelope.time = format!("2026-11-21T03:{minute:02}:00.000000000Z");
    kill
}

fn json(kill: OomKill) -> String {
    samples::json(&Event::OomKill(Box::new(kill)))
}

/// Three kills of one service, one of another, and all that belongs to event 42.
fn lines() -> String {
    let mut lines = json(kill(41, 1)) + &json(kill(42, 2));
    for (_, event) in samples::all() {
        if matches!(event, Event::Verdict(_) | Event::SharedMmKill(_) | Event::Incident(_) | Event::Lost(_)) {
            lines += &samples::json(&event);
        }
    }
    lines += &json(kill(45, 3));
    let mut other = kill(46, 4);
    other.oom.scope = Some(Scope::Host);
    other.oom.cgroup = None;
    other.container = None;
    lines + &json(other)
}

#[test]
fn the_card_of_a_kill() {
    let (code, out, err) = explain(&lines(), &["--event", "42"]);
    assert_eq!(code, 0, "{err}");
    insta::assert_snapshot!(out, @r#"
    OOM kill of shop/api (compose) on host node-7 at 2026-11-21 03:02:00 UTC (event 42)

    verdict        python3[2990] was killed: its container reached its limit of 50.0 MiB
                   it grew for 43 min, from 15.0 MiB, 49.2 MiB an hour
                   49.0 MiB in the last sample, 6.9 s before
                   without page cache 48.0 MiB, which grew from 12.0 MiB, 49.2 MiB an hour
                   a burst to 48.0 MiB, 20 min before, between two samples: the kernel's memory.peak shows it
    memory before  limit 50.0 MiB │                                ████████████████
                                  │                ████████████████████████████████
                                  │ ▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆████████████████████████████████
                                  │▄███████████████████████████████████████████████
                                  │████████████████████████████████████████████████
                                0 └────────────────────────────────────────────────
                                   43 min before                           the kill
                   264 samples, 10.0 s or more apart; each column is the highest of its time
    filled by      49.9 MiB of 50.0 MiB (the kernel's own report, from before the kill)
                   memory of processes (anon)      45.0 MiB   90 %  ██████████████████
                   tmpfs or shared memory           4.0 MiB    8 %  █▌
                   page cache                     460.0 KiB   <1 %  ▏
                   kernel                         560.0 KiB    1 %  ▏
                     kernel stacks                144.0 KiB   <1 %  ▏
                     page tables                  252.0 KiB   <1 %  ▏
                     slab, reclaimable             88.0 KiB   <1 %  ▏
                     slab, other                   75.7 KiB   <1 %  ▏
                     for each processor               288 B   <1 %  ▏
    who            2 processes with 55.5 MiB
                   that is more than the usage: shared pages count twice, and files may be charged to others
                   python3[2990]                   52.5 MiB  killed
                   sh[2967]                         3.0 MiB
    shared mm kill api-service (docker): python3[2995] shares the memory of the victim of event 42 and died too
    how often      3 kills of this service in these files since 2026-11-21 03:01:00; the one before: 2026-11-21 03:01:00; the next: 2026-11-21 03:03:00
                   counted by the tracer: 7 kills of compose:shop/api since 2026-11-20T19:02:33 UTC, each after 42 min to 46 min
    findings       not cache: 45.0 MiB are the processes' own memory
                   no swap: nothing could be moved out
                   -Xmx allows a heap of 50.0 MiB, and the limit is 50.0 MiB: the kernel kills before the program itself can run out
    look at        the option of the heap: set it well below the limit of 50.0 MiB, or the limit well above 50.0 MiB
                   what grows in python3: compare two heap profiles, taken some time apart. Of a growth that lasts, oomtrace prints a `limit_near` line before the kill: that is the time for one
                   alerts that ask the runtime: its own state does not show this kill

    victim         python3[2990], command line "python3 app.py", uid 0, oom_score_adj 0
                   its memory: 52.5 MiB resident (anonymous 49.6 MiB, files 2.8 MiB, shared 0 B), swap 0 B, page tables 164.0 KiB
    cgroup         usage 49.9 MiB, limit 50.0 MiB, highest use 50.0 MiB, swap 0 B, kills that the kernel counted in it: 1
    where          container api-service (docker), image api:v2.0, restarted 3 times before, cgroup /docker/ab12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b
    trigger        the victim itself asked for the memory
    released       the victim was gone after 10.2 ms; the cgroup then held 8.6 MiB
    runtime        api-service (docker): docker says of event 42: not OOM-killed, exit code 0, running: it missed the kill; flags b42716fe5dc3ba9807f4e2c6a1b8d5f3e0c9a7b4d2f1e6c8a3b5d7e90c4f21ba too, which had no kill
    losses         lines of this stream that report losses: 1 (see `oomtrace report`)
    "#);
}

#[test]
fn a_kill_of_which_little_is_known() {
    let (_, out, _) = explain(&json(samples::oom_kill_in_a_pod()), &[]);
    insta::assert_snapshot!(out, @r#"
    OOM kill of shop/api (k8s) on host node-7 at 2026-11-21 03:12:45 UTC (event 42)

    verdict        python3[2990] was killed: another cgroup than its own reached its limit of 50.0 MiB: /kubepods/burstable/pod0b6f3a52-7f0e-4f0c-8f52-0a8f1d0e5c11
    not there      no `incident` line of this kill follows it in these files: what filled the memory and how it came is not known
    how often      no other kill of it in these files

    victim         python3[2990], uid 0, oom_score_adj 0
                   its memory: 52.5 MiB resident (anonymous 49.6 MiB, files 2.8 MiB, shared 0 B), swap 0 B, page tables 164.0 KiB
    cgroup         usage 49.9 MiB, limit 50.0 MiB, highest use 50.0 MiB, kills that the kernel counted in it: 1
    where          pod shop/api-7d9f/api, container api-service (containerd), image api:v2.0, restarted 3 times before, unit containerd.service, cgroup /kubepods/burstable/pod0b6f3a52-7f0e-4f0c-8f52-0a8f1d0e5c11/ab12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b
    trigger        kubelet[3001] asked for the memory, in /system.slice/kubelet.service
    not known      victim.command_line (memory_released)
                   oom.domain_bytes, victim.oom_score_bytes (no_function_hook)
                   victim.cgroup.tasks.cgroup.path (other_hierarchy)
                   victim.executable (proc_busy: "pid 2988")
    "#);
}

/// As the kernel's log has it: without the ids of cgroups.
#[test]
fn a_limit_of_its_own_cgroup_is_known_by_the_path_too() {
    let mut kill = kill(1, 0);
    kill.victim.cgroup.id = None;
    kill.oom.cgroup.as_mut().unwrap().cgroup.id = None;
    let (_, out, _) = explain(&json(kill), &[]);
    assert!(out.contains("python3[2990] was killed: its container reached its limit of 50.0 MiB"), "{out}");
    assert!(!out.contains("another cgroup"), "{out}");
}

#[test]
fn a_time_since_boot_is_no_time_of_the_calendar() {
    let mut kill = kill(1, 0);
    kill.envelope.time = "1970-01-01T00:01:40.000000000Z".into();
    kill.missing.push(Absence::new("time", Reason::LogSinceBoot));
    let (_, out, _) = explain(&json(kill), &[]);
    assert!(out.contains(" at boot+0d 00:01:40.000 (event 1)"), "{out}");
}

#[test]
fn without_a_number_it_is_the_last_that_the_filters_take() {
    let (_, out, _) = explain(&lines(), &[]);
    assert!(out.contains("(event 46)") && out.contains("the host ran out of memory"), "{out}");
    let (_, out, _) = explain(&lines(), &["--container", "api-service"]);
    assert!(out.contains("(event 45)") && !out.contains("docker says"), "{out}");
    let (_, out, _) = explain(&lines(), &["--until", "2026-11-21T03:02:00Z"]);
    assert!(out.contains("(event 41)"), "{out}");
}

#[test]
fn one_kill_is_chosen_by_number_or_by_a_name() {
    for (arguments, event) in [
        (&["42"][..], 42),
        (&["api-service"], 45),
        (&["shop/api"], 45),
        (&["compose:shop/api"], 45),
        (&["ab12f4c09e7d"], 45),
        (&["api-*"], 45),
        (&["--last"], 46),
        (&["api-service", "--last"], 45),
        (&["api-service", "--until", "2026-11-21T03:02:30Z"], 42),
        (&["--event", "41", "--container", "api-service"], 41),
    ] {
        let (code, out, err) = explain(&lines(), arguments);
        assert!(code == 0 && out.contains(&format!("(event {event})")), "{arguments:?}: {out}{err}");
        let one = arguments.iter().any(|argument| *argument == "42" || *argument == "41") || event == 46;
        assert!(one || out.contains("The last of "), "{out}");
    }
    let (code, _, err) = explain(&lines(), &["web"]);
    assert!(code == 1 && err.contains("no kill of a container, pod, unit or service web"), "{err}");
    assert!(err.contains("no file has this name"), "{err}");
    for arguments in [&["42", "--last"][..], &["42", "--event", "41"], &["api-service", "--event", "41"]] {
        let (code, out, err) = explain(&lines(), arguments);
        assert!(code == 2 && out.is_empty() && err.contains("--event"), "{arguments:?}: {err}");
    }
}

/// What is there as a file is read; to say otherwise, there are options.
#[test]
fn a_word_that_is_a_file_is_a_file() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oom.jsonl"), lines()).unwrap();
    fs::write(dir.path().join("42"), json(kill(51, 9))).unwrap();
    let (_, out, err) = explain_in(dir.path(), &["42"]);
    assert!(out.contains("(event 51)") && err.contains("42 is a file here"), "{out}{err}");
    let (_, out, err) = explain_in(dir.path(), &["oom.jsonl", "42"]);
    assert!(
        out.contains("(event 51)") && !err.contains("is a file here"),
        "the second is always a file: {out}{err}"
    );
    let (_, out, _) = explain_in(dir.path(), &["--event", "42", "oom.jsonl"]);
    assert!(out.contains("(event 42)"), "{out}");
    fs::create_dir(dir.path().join("api-service")).unwrap();
    let (_, out, _) = explain_in(dir.path(), &["api-service", "oom.jsonl"]);
    assert!(out.contains("(event 45)"), "a directory cannot be read: {out}");
    let (code, _, err) = explain_in(dir.path(), &["oom.jsonll", "oom.jsonl"]);
    assert!(
        code == 1 && err.contains("service oom.jsonll is in these files (and no file has this name)"),
        "{err}"
    );
}

#[test]
fn the_last_warning_of_the_same_cgroup_is_on_the_card() {
    let mut killed = kill(42, 20);
    let cgroup = killed.oom.cgroup.as_mut().unwrap();
    let mut near = samples::all().into_iter().find(|(name, _)| *name == "limit_near").unwrap().1;
    let Event::LimitNear(event) = &mut near else { panic!("{near:?}") };
    event.envelope.time = "2026-11-21T03:08:00.000000000Z".into();
    cgroup.cgroup.id.clone_from(&event.cgroup.id);
    let (_, out, _) = explain(&(samples::json(&near) + &json(killed.clone())), &[]);
    assert!(
        out.contains("limit near     api-service (docker): 46.0 MiB of 50.0 MiB cannot be reclaimed"),
        "{out}"
    );
    assert!(out.contains("that was said 12 min before the kill"), "{out}");
    killed.envelope.host.boot_id = Some("another".into());
    let (_, out, _) = explain(&(samples::json(&near) + &json(killed)), &[]);
    assert!(!out.contains("limit near"), "ids begin anew at each boot: {out}");
}

/// Not told as "none" where it is not known.
#[test]
fn losses_of_too_many_streams_are_not_known() {
    let mut lost = samples::all().into_iter().find(|(name, _)| *name == "lost").unwrap().1;
    let Event::Lost(event) = &mut lost else { panic!("{lost:?}") };
    let mut lines = json(kill(41, 1));
    for stream in 0..16_385 {
        event.envelope.stream = Some(format!("{stream:032x}"));
        event.envelope.id = Some(format!("{stream:032x}-lost"));
        lines += &samples::json(&Event::Lost(event.clone()));
    }
    let (_, out, _) = explain(&lines, &[]);
    assert!(out.contains("losses         not known: too many streams"), "{out}");
}

/// The incident names only the first kills of its run.
#[test]
fn each_victim_of_a_group_has_its_incident() {
    let mut last = kill(142, 2);
    last.oom.id = Some(42);
    let mut lines = json(kill(42, 2)) + &json(last);
    let mut incident = samples::incident();
    (incident.killed, incident.of) = (101, vec![42, 43]);
    lines += &samples::json(&Event::Incident(Box::new(incident)));
    let (_, out, _) = explain(&lines, &["142"]);
    assert!(out.contains("one of 101 in this run") && out.contains("filled by"), "{out}");
}

#[test]
fn who_had_the_memory_and_what_is_stuck_are_on_the_card() {
    let mut host = kill(42, 2);
    (host.oom.scope, host.oom.cgroup) = (Some(Scope::Host), None);
    let mut lines = json(host);
    for (_, event) in samples::all() {
        if matches!(event, Event::HostMemory(_) | Event::Stuck(_)) {
            lines += &samples::json(&event);
        }
    }
    let (_, out, _) = explain(&lines, &["42"]);
    for part in [
        "host memory    the host ran out: shop-worker-1 (docker)",
        "- postgresql.service 4.0 GiB",
        "stuck  ",
        "the largest users under `host memory`",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

/// Of forty kills too, also where the files of hosts overlap in time.
#[test]
fn the_kills_next_to_it_are_those_in_time() {
    let many: String = (1..=40).map(|minute| json(kill(minute, minute))).collect();
    let (_, out, _) = explain(&many, &["5"]);
    assert!(out.contains("40 kills") && out.contains("one before: 2026-11-21 03:04:00"), "{out}");
    assert!(out.contains("the next: 2026-11-21 03:06:00"), "{out}");
    let mut other = kill(1, 10);
    (other.envelope.stream, other.envelope.host.name) = (Some("other".into()), Some("node-8".into()));
    let (_, out, _) = explain(&(json(kill(2, 1)) + &json(kill(3, 20)) + &json(other)), &["--last"]);
    assert!(out.contains("03:20:00 UTC (event 3)") && out.contains("The last of 3 kills"), "{out}");
    assert!(out.contains("on several hosts; the one before: 2026-11-21 03:10:00"), "{out}");
    assert!(!out.contains("the next"), "{out}");
}

/// Only the kill must be inside.
#[test]
fn what_is_said_of_a_kill_may_be_outside_the_time_that_was_asked_for() {
    let until = "2026-11-21T03:02:00.5Z";
    let (_, out, _) = explain(&lines(), &["--event", "42", "--until", until]);
    assert!(out.contains("filled by"), "the incident was told later: {out}");
    let since = "2026-11-21T03:01:30Z";
    let (_, out, _) = explain(&lines(), &["--event", "42", "--since", since, "--until", until]);
    assert!(out.contains("3 kills") && out.contains("one before: 2026-11-21 03:01:00"), "{out}");
}

#[test]
fn a_warning_that_is_not_remembered_is_not_known() {
    let mut near = samples::all().into_iter().find(|(name, _)| *name == "limit_near").unwrap().1;
    let Event::LimitNear(event) = &mut near else { panic!("{near:?}") };
    let mut lines = String::new();
    for cgroup in 0..1025 {
        event.cgroup.id = Some(cgroup.to_string());
        event.envelope.id = Some(format!("near-{cgroup}"));
        lines += &samples::json(&Event::LimitNear(event.clone()));
    }
    let (_, out, _) = explain(&(lines + &json(kill(42, 20))), &[]);
    assert!(out.contains("limit near     not known: lines of too many cgroups"), "{out}");
}

#[test]
fn a_row_that_is_not_on_the_card_is_not_pointed_at() {
    let (_, out, _) = explain(&lines(), &["46"]);
    assert!(out.contains("who used its memory") && !out.contains("`host memory`"), "{out}");
}

#[test]
fn a_kill_that_is_not_there_is_an_error() {
    let (code, out, err) = explain(&lines(), &["--event", "99"]);
    assert_eq!((code, &*out), (1, ""));
    assert!(err.contains("no kill with the number 99 is in these files"), "{err}");
}

#[test]
fn no_kill_has_a_number_so_large() {
    let (code, out, err) = explain(&lines(), &["99999999999999999999"]);
    assert!(code == 2 && out.is_empty() && err.contains("larger than any number"), "{err}");
}

#[test]
fn a_day_that_no_calendar_has_is_not_understood() {
    let mut impossible = kill(47, 5);
    impossible.envelope.time = "2026-02-31T03:05:00.000000000Z".into();
    let (code, out, _) = explain(&(lines() + &json(impossible)), &["--event", "47"]);
    assert_eq!((code, &*out), (65, ""));
}

#[test]
fn names_cannot_change_the_terminal() {
    let hostile = "\u{1b}[2J\u{202e}\n";
    let mut kill = kill(1, 0);
    kill.victim.comm = Some(hostile.into());
    kill.victim.command_line = Some(hostile.into());
    kill.victim.cgroup.path = Some(hostile.into());
    kill.container.as_mut().unwrap().name = Some(hostile.into());
    kill.container.as_mut().unwrap().label.clear();
    kill.container.as_mut().unwrap().image.as_mut().unwrap().name = hostile.into();
    let plain = explain(&json(self::kill(1, 0)), &[]).1;
    let (_, out, _) = explain(&json(kill), &[]);
    assert!(!out.contains(['\u{1b}', '\u{202e}']), "{out:?}");
    assert_eq!(out.lines().count(), plain.lines().count(), "{out}");
}
