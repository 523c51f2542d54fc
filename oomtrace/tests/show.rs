//! `oomtrace show`: recorded lines through the real binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "not all samples are needed here")]
mod samples;

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use oomtrace::{
    event::{Event, Origin},
    outputs::encode::{Render, text::Palette},
    recorded::Recorded,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// Exit code, standard output, standard error.
fn show_in(dir: &Path, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oomtrace"))
        .arg("show")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn show(arguments: &[&str], input: &str) -> (i32, String, String) {
    show_in(Path::new("/"), &[arguments, &["-"]].concat(), input.as_bytes())
}

fn as_text(event: &Event) -> String {
    let mut line = Vec::new();
    Render::Text(Palette::default()).line(event, &mut line).unwrap();
    String::from_utf8(line).unwrap()
}

/// A kill with this number, so many seconds after the first.
fn kill(seq: u64, second: u64) -> String {
    let mut kill = samples::oom_kill();
    kill.envelope = samples::envelope(Origin::Ebpf, Some(seq));
    kill.envelope.time = format!("2026-11-21T03:{:02}:{:02}.000000000Z", second / 60, second % 60);
    samples::json(&Event::OomKill(Box::new(kill)))
}

fn numbers(out: &str) -> Vec<&str> {
    out.lines().map(|line| line.rsplit_once("(event ").unwrap().1.trim_end_matches(')')).collect()
}

#[test]
fn the_text_is_that_of_the_run() {
    let lines: String = samples::all().iter().map(|(_, event)| samples::json(event)).collect();
    let text: String = samples::all().iter().map(|(_, event)| as_text(event)).collect();
    // Two samples are one line written twice: a kill, and a kill in a pod, have one number.
    let mut once: Vec<&str> = Vec::new();
    for line in text.lines() {
        if !(line.contains("oom_kill shop/") && once.iter().any(|line| line.contains("oom_kill api-service")))
        {
            once.push(line);
        }
    }
    let (code, out, err) = show(&[], &lines);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().collect::<Vec<_>>(), once, "{err}");
}

#[test]
fn json_is_passed_as_it_is() {
    // A key that this version does not know, blanks, and another order of keys.
    let line = kill(1, 0).replacen("{\"schema\":1,", "{\"schema\":1, \"later_key\":{\"a\":[1]},", 1);
    assert_eq!(show(&["-o", "json"], &line), (0, line.clone(), String::new()));
    let (code, out, _) = show(&["-o", "json", "--comm", "python3"], &line);
    assert_eq!((code, out), (0, line.clone()));
    assert_eq!(show(&["-o", "json", "--comm", "x"], &line), (0, String::new(), String::new()));
    assert_eq!(numbers(&show(&[], &line).1), ["1"]);
}

#[test]
fn other_formats_have_events_and_nothing_else() {
    let later = kill(3, 2).replace("oom_kill", "oom_later");
    let other = kill(2, 1).replace("node-7", "node-8");
    let (code, out, err) = show(&["-o", "ecs"], &format!("{}{other}{later}", kill(1, 0)));
    assert_eq!(code, 65, "{err}");
    let documents: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2, "{out}");
    assert_eq!(
        (&documents[0]["host"]["name"], &documents[1]["host"]["name"]),
        (&"node-7".into(), &"node-8".into())
    );
}

#[test]
fn times_choose() {
    let lines: String = (0..5).map(|n| kill(n, n * 60)).collect();
    let chosen = |arguments: &[&str]| {
        let (code, out, err) = show(arguments, &lines);
        assert_eq!((code, err.as_str()), (0, ""));
        numbers(&out).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--since", "2026-11-21T03:02:00Z"]), ["2", "3", "4"]);
    assert_eq!(chosen(&["--until", "2026-11-21T03:02:00Z"]), ["0", "1"]);
    assert_eq!(
        chosen(&["--since", "2026-11-21T04:01:00+01:00", "--until", "2026-11-21T03:02:00.000000001Z"]),
        ["1", "2"]
    );
    // Of a clock that is right, this is long ago or still to come.
    let long_ago = lines.replace("2026-11-21", "2001-11-21");
    assert_eq!(show(&["--since", "2h"], &long_ago).1, "");
    assert_eq!(numbers(&show(&["--until", "2h"], &long_ago).1).len(), 5);
    for wrong in ["2026-11-21", "2026-11-21T03:00:00", "yesterday", "2"] {
        let (code, _, err) = show(&["--since", wrong], "");
        assert!(code == 2 && err.contains("--since"), "{wrong}: {err}");
    }
}

#[test]
fn what_is_not_understood_is_counted_and_the_rest_is_shown() {
    let (one, two) = (kill(1, 0), kill(2, 1));
    let half = &one[..one.len() / 2];
    let later = kill(3, 2).replace("oom_kill", "oom_later");
    let newer = kill(3, 2).replace("{\"schema\":1,", "{\"schema\":2,");
    let word = kill(3, 2).replace("CONSTRAINT_MEMCG", "CONSTRAINT_NEW");
    for (lines, code, said) in [
        (
            format!("{one}{half}\n{two}"),
            65,
            "1 line is torn or not oomtrace's (the first is line 2 of standard input)",
        ),
        (format!("{one}{half}{two}"), 65, "the first is line 2"),
        (format!("{one}\0\0\0{two}"), 65, "the first is line 2"),
        (format!("{one}{{\"a\":1}}\n{two}"), 65, "the first is line 2"),
        (format!("{one}{}\n{two}", "x".repeat(100_000)), 65, "the first is line 2"),
        (format!("{one}{}{two}", one.replace("2026-11-21T03", "now")), 65, "the first is line 2"),
        (format!("{one}\n\r\n{}\r\n{two}", kill(4, 0).trim_end()), 0, ""),
        (format!("{one}{later}{two}"), 65, "1 lines are of another version"),
        (format!("{one}{newer}{two}"), 65, "1 lines are of another version"),
        (format!("{one}{word}{two}"), 65, "1 lines are of another version"),
        (format!("{one}{one}{two}"), 0, "1 lines were written twice"),
        (format!("{two}{one}{}", kill(3, 0)), 0, "1 times the clock was set back"),
        (String::new(), 0, ""),
    ] {
        let (ended, out, err) = show(&[], &lines);
        assert_eq!(ended, code, "{said}: {err}");
        assert!(err.contains(said) && err.is_empty() == said.is_empty(), "{said}: {err}");
        if !lines.is_empty() {
            assert!(out.contains("(event 1)") && out.contains("(event 2)"), "{said}: {out}");
        }
    }
    // Of what another version wrote, the message is shown, and a terminal does not obey it.
    let hostile = later.replace("\"message\":\"", "\"message\":\"\\u001b[2J\\n");
    let (_, out, _) = show(&[], &hostile);
    assert!(
        out.starts_with("2026-11-21T03:00:02.000000000Z \u{fffd}[2J\u{fffd}oom_later api-service"),
        "{out}"
    );
}

#[test]
fn rotated_and_compressed_files_are_shown_in_their_order() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(format!("{}{}", kill(0, 0), kill(1, 1)).as_bytes()).unwrap();
    fs::write(path("oom.jsonl.2.gz"), encoder.finish().unwrap()).unwrap();
    // The first line is torn, and the last of the file before is here again.
    fs::write(path("oom.jsonl.1"), format!("{{\"sche\n{}{}", kill(1, 1), kill(2, 2))).unwrap();
    fs::write(path("oom.jsonl"), kill(3, 3)).unwrap();
    fs::write(path("empty"), "").unwrap();
    let (code, out, err) = show_in(dir.path(), &["oom.jsonl", "oom.jsonl.1", "oom.jsonl.2.gz", "empty"], b"");
    assert_eq!((code, numbers(&out)), (65, vec!["0", "1", "2", "3"]), "{err}");
    assert!(err.contains("1 lines were written twice") && err.contains("line 1 of oom.jsonl.1"), "{err}");
    // One that cannot be read does not hide the others.
    let (code, out, err) = show_in(dir.path(), &["gone", "oom.jsonl", "."], b"");
    assert_eq!((code, numbers(&out)), (1, vec!["3"]), "{err}");
    assert!(err.contains("gone: No such file") && err.contains(".: "), "{err}");
    let bomb = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![b' '; 64 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    fs::write(path("bomb"), bomb).unwrap();
    let (code, _, err) = show_in(dir.path(), &["bomb"], b"");
    assert!(code == 1 && err.contains("bomb: ") && err.contains("500 times"), "{err}");
}

#[test]
fn lines_of_several_hosts_are_told_apart() {
    let other = |seq| kill(seq, 9).replace("node-7", "node-8").replace("c7d0e1a2", "aaaaaaaa");
    let (code, out, err) = show(&[], &format!("{}{}{}{}", kill(1, 0), other(1), other(2), kill(2, 10)));
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}");
    assert_eq!(
        (lines[1], lines[4]),
        ("-- host \"node-8\", before: \"node-7\"", "-- host \"node-7\", before: \"node-8\"")
    );
}

#[test]
fn a_verdict_goes_with_its_kill() {
    let verdict = samples::json(&Event::Verdict(Box::new(samples::verdict())));
    let lines = format!("{}{verdict}", kill(42, 0));
    assert_eq!(show(&["--comm", "python3"], &lines).1.lines().count(), 2);
    assert_eq!(show(&["--comm", "other"], &lines).1, "");
    assert_eq!(show(&["--type", "verdict", "--comm", "python3"], &lines).1.lines().count(), 1);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let lines: String = (0..10_000).map(|n| kill(n, 0)).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_oomtrace"))
        .args(["show", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    // Refused once it has ended.
    let _gone = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

proptest! {
    #[test]
    fn no_bytes_end_the_process(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Some(line) = Recorded::of(&bytes) {
            let _known_or_not = line.event();
        }
    }

    /// A line that was cut anywhere is not taken for one.
    #[test]
    fn a_torn_line_is_no_line(cut in 1..2000_usize) {
        let line = kill(1, 0);
        let torn = &line[..line.len().saturating_sub(1 + cut)];
        prop_assert!(Recorded::of(torn.as_bytes()).is_none());
        let both = format!("{torn}{}", line.trim_end());
        let rescued = Recorded::of(both.as_bytes()).unwrap();
        prop_assert!(rescued.text == line.trim_end() && (rescued.follows_torn || torn.is_empty()));
    }
}

#[test]
fn a_kernels_log_is_for_another_command() {
    let (code, _, err) =
        show(&[], "[    1.000001] hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0\n");
    assert!(code == 65 && err.contains("`oomtrace log FILE`"), "{code} {err}");
    let (code, _, err) = show(&[], "{\"half\": \n");
    assert!(code == 65 && !err.contains("hint"), "{code} {err}");
}
