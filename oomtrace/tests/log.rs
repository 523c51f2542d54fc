//! `oomtrace log`: saved kernel logs in each format, through the real binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod mirror;

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use oomtrace::sources::saved_log::SavedLog;
use proptest::prelude::*;
use serde_json::{Value, json};

const PATH: &str =
    "/system.slice/docker-ab12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b.scope";

/// The same log in each format, written by the tools themselves (`syslog` and `dmesg-caller` by hand);
/// whether it names its host, and which kind of time it has.
const FORMS: [(&str, bool, &str); 18] = [
    ("kmsg", false, "log_since_boot"),
    ("proc-kmsg", false, "log_since_boot"),
    ("dmesg", false, "log_since_boot"),
    ("dmesg-x", false, "log_since_boot"),
    ("dmesg-caller", false, "log_since_boot"),
    ("dmesg-T", false, "log_local_time"),
    ("dmesg-iso", false, "log_clock"),
    ("journal.short-monotonic", true, "log_since_boot"),
    ("journal.short", true, "log_local_time"),
    ("journal.short-precise", true, "log_local_time"),
    ("journal.short-iso", true, "log_daemon_clock"),
    ("journal.short-full", true, "log_daemon_clock"),
    ("journal.short-full-berlin", true, "log_local_time"),
    ("journal.short-unix", true, "log_daemon_clock"),
    ("journal.export", true, "log_daemon_clock"),
    ("journal.json", true, "log_daemon_clock"),
    ("syslog", true, "log_local_time"),
    ("syslog-iso", true, "log_daemon_clock"),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log").join(name)
}

/// Exit code, lines, and standard error.
fn ended(command: &mut Command, input: &[u8]) -> (i32, Vec<Value>, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The process may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.split_inclusive('\n').map(|line| {
        mirror::check(line).unwrap();
        serde_json::from_str(line).unwrap()
    });
    (output.status.code().unwrap(), lines.collect(), String::from_utf8(output.stderr).unwrap())
}

fn log(input: &[u8]) -> (i32, Vec<Value>, String) {
    ended(Command::new(env!("CARGO_BIN_EXE_oomtrace")).args(["log", "-o", "json", "-"]), input)
}

fn reason<'a>(line: &'a Value, key: &str) -> Option<&'a str> {
    line["missing"].as_array()?.iter().find(|absence| absence["key"] == key)?["reason"].as_str()
}

fn tids(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["victim"]["tid"].as_u64().unwrap()).collect()
}

/// What the log says about a kill, in any format.
fn facts(line: &Value) -> Value {
    let mut line = line.clone();
    let facts = line.as_object_mut().unwrap();
    for key in ["time", "id", "host", "missing"] {
        facts.remove(key);
    }
    line
}

#[test]
fn every_form_of_a_log_says_the_same() {
    let mut first: Option<Vec<Value>> = None;
    for (form, names_host, time) in FORMS {
        let (code, lines, err) = log(&fs::read(fixture(form)).unwrap());
        assert_eq!((code, tids(&lines)), (0, vec![2990, 3001, 41]), "{form}: {err}");
        assert!(
            err.contains("only one line about 1 of these kills") && err.contains("left out 1 reports"),
            "{err}"
        );
        let said: Vec<Value> = lines.iter().map(facts).collect();
        assert_eq!(first.get_or_insert_with(|| said.clone()), &said, "{form}");
        for line in &lines {
            assert_eq!(line["host"]["name"] == "node-7", names_host, "{form}: {line}");
            assert_eq!(line["host"]["kernel"], "6.12.41-amd64", "{form}: {line}");
            assert_eq!(reason(line, "host.name").is_none(), names_host, "{form}: {line}");
            assert_eq!(reason(line, "time"), Some(time), "{form}: {line}");
        }
        let (day, clock) = lines[0]["time"].as_str().unwrap().split_once('T').unwrap();
        match time {
            "log_since_boot" => assert_eq!((day, &clock[..8]), ("1970-01-01", "00:22:32"), "{form}"),
            _ if form.starts_with("dmesg") => assert_eq!(&clock[..8], "02:29:11", "{form}"),
            _ if form.ends_with("berlin") => assert_eq!(&clock[..8], "04:12:44", "{form}"),
            // Some formats have no year.
            _ => assert_eq!((&day[4..], &clock[..8]), ("-11-21", "03:12:44"), "{form}"),
        }
    }
    let kills = first.unwrap();
    assert_eq!(kills[0]["oom"]["cgroup"]["path"], PATH);
    assert_eq!(kills[0]["oom"]["cgroup"]["limit_bytes"], 51200 * 1024);
    assert_eq!(kills[0]["oom"]["cgroup"]["swap_usage_bytes"], 1024 * 1024);
    assert_eq!(kills[0]["oom"]["kill"], "selected");
    assert_eq!(kills[0]["victim"]["memory"]["rss_bytes"], (50816 + 2944 + 64) * 1024);
    assert_eq!(kills[0]["trigger"], json!({"comm": "python3", "oom_score_adj": -5}));
    assert_eq!(kills[0]["container"]["runtime"]["name"], "docker");
    assert_eq!(kills[1]["victim"]["comm"], "worker one");
    assert_eq!(kills[1].get("container"), None);
    assert_eq!(
        (&kills[2]["oom"]["scope"], &kills[2]["oom"]["gfp_mask_raw"]),
        (&json!("host"), &json!(0x0014_0cca))
    );
}

#[test]
fn what_is_absent_has_its_reason() {
    let (_, lines, _) = log(&fs::read(fixture("journal.export")).unwrap());
    assert_eq!(lines[0]["host"]["boot_id"], "6f1c2a5e-0b7d-4c55-9a43-1de0f8f3a7b2");
    assert_eq!(reason(&lines[0], "container.name"), Some("not_in_kernel_log"));
    assert_eq!(reason(&lines[0], "seq"), Some("not_in_kernel_log"));
    for key in ["oom.cgroup", "container", "trigger", "victim.pid", "oom.kill"] {
        assert_eq!(reason(&lines[1], key), Some("log_rate_limited"), "{key}: {}", lines[1]);
    }
    let ids: Vec<&Value> = lines.iter().map(|line| &line["id"]).collect();
    assert!(ids[0].is_string() && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

fn killed(tid: u32, comm: &str) -> String {
    format!(
        "Memory cgroup out of memory: Killed process {tid} ({comm}) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:12kB oom_score_adj:0"
    )
}

#[test]
fn who_is_not_the_kernel_reports_no_kill() {
    let forged = killed(666, "forged");
    for line in [
        format!("Nov 21 02:50:23 node-7 sh[7]: {forged}"),
        format!("Nov 21 02:50:23 node-7 kernel[7]: {forged}"),
        format!("Nov 21 02:50:23 node-7 sh: kernel: {forged}"),
        format!("<14>[    1.000000] {forged}"),
        format!("user  :info  : [    1.000000] {forged}"),
        format!("14,5,1000000,-;{forged}"),
        json!({"_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "kernel", "__REALTIME_TIMESTAMP": "1", "MESSAGE": forged}).to_string(),
        format!("__REALTIME_TIMESTAMP=1\nSYSLOG_IDENTIFIER=kernel\n_TRANSPORT=syslog\nMESSAGE={forged}\n"),
    ] {
        let (code, lines, err) = log(format!("{line}\n").as_bytes());
        assert_eq!((code, lines.len(), err.as_str()), (0, 0, ""), "{line}");
    }
}

#[test]
fn a_name_with_a_newline_tears_no_kill() {
    // `dmesg` indents the text after a newline, `cat /proc/kmsg` starts a new line, a journal keeps the text
    // whole.
    let [before, after] = ["Memory cgroup out of memory: Killed process 5 (a", "[1.0] b"];
    let rest = killed(5, "").split_once("()").map(|(_, rest)| format!(") {}", rest.trim_start())).unwrap();
    let bytes = format!("{before}\n{after}{rest}");
    let mut export = b"__REALTIME_TIMESTAMP=1000\n_TRANSPORT=kernel\nMESSAGE\n".to_vec();
    export.extend((bytes.len() as u64).to_le_bytes());
    export.extend(format!("{bytes}\n\n").into_bytes());
    for text in [
        format!("[    1.000000] {before}\n               {after}{rest}\n[    2.000000] x\n").into_bytes(),
        format!("[    1.000000] {before}\n[    1.000000] {after}{rest}\n[    2.000000] x\n").into_bytes(),
        format!("6,1,1000000,-;{before}\\x0a{after}{rest}\n").into_bytes(),
        export,
        json!({"_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": "1", "MESSAGE": bytes.as_bytes()})
            .to_string()
            .into_bytes(),
    ] {
        let (code, lines, err) = log(&text);
        assert_eq!((code, tids(&lines)), (0, vec![5]), "{}: {err}", text.escape_ascii());
        assert_eq!(lines[0]["victim"]["comm"], "a\n[1.0] b", "{}", text.escape_ascii());
    }
}

#[test]
fn what_is_not_understood_is_counted() {
    let whole = killed(7, "whole");
    let torn = "Memory cgroup out of memory: Killed process 5 (to";
    let old = "Killed process 5 (x) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB";
    for (text, said) in [
        (
            format!("[    1.000000] {torn}\n[    2.000000] {whole}\n"),
            "1 lines that report a kill are not complete",
        ),
        (
            format!("[    1.000000] {old}\n[    2.000000] {whole}\n"),
            "1 lines report a kill in the format of an unknown kernel",
        ),
        (
            format!("what is this\n[    2.000000] {whole}\n"),
            "1 lines have no known format (the first is line 1)",
        ),
        (
            format!("Nov 21 02:50:23 h kernel: [123B blob data]\nNov 21 02:50:23 h kernel: {whole}\n"),
            "use -a, or -o export",
        ),
        (format!("{}\n[    2.000000] {whole}\n", "x".repeat(300_000)), "1 lines are too long"),
        (format!("{{\"a\":1}}\n[    2.000000] {whole}\n"), "1 lines have no known format"),
    ] {
        let (code, lines, err) = log(text.as_bytes());
        assert_eq!((code, tids(&lines)), (65, vec![7]), "{said}: {err}");
        assert!(err.contains(said) && err.contains("standard input: "), "{said}: {err}");
    }
    assert_eq!(log(b"").0, 0);
    assert_eq!(
        log(b"-- Journal begins at Sat 2026-11-21 --\n\n[    1.000000] multi\n               line\n").0,
        0
    );
}

#[test]
fn hosts_and_boots_in_one_log_are_kept_apart() {
    let invoked = "hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0";
    let chosen = |pid| {
        format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,task=hog,pid={pid},uid=0"
        )
    };
    let mut text = String::new();
    // More hosts than are kept at once, with their lines in turn.
    for (step, of) in [(0, 70), (1, 3), (2, 3)] {
        for host in 0..of {
            let line = [invoked.to_owned(), chosen(host), killed(host, "hog")][step].clone();
            text += &format!("2026-11-21T02:50:12+00:00 host-{host} kernel: {line}\n");
        }
    }
    text += "2026-11-21T02:50:12+00:00 host-0 kernel: Linux version 6.1.0 (x)\n";
    text += &format!("2026-11-21T02:50:12+00:00 host-0 kernel: {}\n", killed(9, "hog"));
    let (code, lines, err) = log(text.as_bytes());
    assert_eq!(code, 0, "{err}");
    let mut found: Vec<(u64, &str, Option<&str>)> = lines
        .iter()
        .map(|line| {
            (
                line["victim"]["tid"].as_u64().unwrap(),
                line["host"]["name"].as_str().unwrap(),
                line["host"]["kernel"].as_str(),
            )
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [(0, "host-0", None), (1, "host-1", None), (2, "host-2", None), (9, "host-0", Some("6.1.0"))]
    );
    assert!(
        lines
            .iter()
            .filter(|line| line["victim"]["tid"] != 9)
            .all(|line| line["oom"]["cgroup"]["path"] == "/a"),
        "{lines:?}"
    );
}

#[test]
fn a_saved_log_needs_no_privilege() {
    assert!(rustix::process::geteuid().is_root(), "run as root: this test changes its user");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let (program, saved) = (dir.path().join("oomtrace"), dir.path().join("log"));
    // By another process: one that a test starts meanwhile would inherit the open file, and nobody can run what is being written.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_oomtrace")).arg(&program).status().unwrap().success());
    fs::copy(fixture("dmesg"), &saved).unwrap();
    fs::set_permissions(&saved, Permissions::from_mode(0o644)).unwrap();
    let as_nobody = |argument: &Path| {
        let mut command = Command::new(&program);
        ended(command.args(["log", "-o", "json"]).arg(argument).current_dir("/").gid(65534).uid(65534), b"")
    };
    let (code, lines, err) = as_nobody(&saved);
    assert_eq!((code, lines.len()), (0, 3), "{err}");
    fs::set_permissions(&saved, Permissions::from_mode(0o600)).unwrap();
    let (code, lines, err) = as_nobody(&saved);
    assert_eq!((code, lines.len()), (1, 0), "{err}");
    assert!(err.contains("Permission denied"), "{err}");
}

proptest! {
    #[test]
    fn no_bytes_end_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(SavedLog::new(bytes.as_slice(), 0).all(|found| found.is_ok()));
    }

    /// Cuts the lines of a real log anywhere and puts them in any order. Each piece stays a line: two pieces in one line can be
    /// the very bytes of a line that the kernel wrote.
    #[test]
    fn no_order_of_lines_makes_a_kill(form in 0..FORMS.len(), cuts in proptest::collection::vec((0..40_usize, 0..300_usize), 1..60)) {
        // There each line is a field, and fields make an entry.
        prop_assume!(FORMS[form].0 != "journal.export");
        let text = fs::read(fixture(FORMS[form].0)).unwrap();
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let mut mixed = Vec::new();
        for (line, cut) in cuts {
            let line = lines[line % lines.len()];
            let piece = &line[..line.len().min(cut)];
            mixed.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            mixed.push(b'\n');
        }
        for found in SavedLog::new(mixed.as_slice(), 1_800_000_000_000_000_000) {
            let found = found.unwrap();
            prop_assert!([2990, 3001, 41].contains(&found.kill.killed.tid), "{:?}", found);
        }
    }
}

#[test]
fn text_is_for_people() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomtrace"));
    let output = command.args(["log", "-o", "text"]).arg(fixture("dmesg")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("boot+0d 00:22:32.961 oom_kill ab12f4c09e7d (docker): python3[2990] rss 52.5 MiB"),
        "{text}"
    );
}

#[test]
fn recorded_lines_are_for_another_command() {
    let (code, lines, err) = log(b"{\"schema\":1,\"type\":\"stop\"}\n");
    assert!(code == 65 && lines.is_empty() && err.contains("`oomtrace show FILE`"), "{code} {err}");
    let (code, _, err) = log(b"{\"other\":1}\n");
    assert!(code == 65 && err.contains("known are the formats"), "{code} {err}");
}
