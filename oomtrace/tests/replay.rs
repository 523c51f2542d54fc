//! Records through the real binary: kills that were recorded on a host, and some made by hand. Every line is
//! valid by the schema that the binary prints and by the mirror of the contract.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "records are small")]
#![allow(dead_code, reason = "not each test crate needs each record")]

mod mirror;
mod records;
mod traced;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oomtrace_common::record::*;
use records::{OomKill, Sent};
use serde_json::Value;
use tempfile::TempDir;
use zerocopy::FromZeros;

/// The binary under test, and an empty root directory.
struct Replay {
    root: TempDir,
}

impl Replay {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn run(&self, records: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomtrace"));
        command.arg("replay").arg("--root").arg(self.root.path()).args(arguments).arg(records);
        command.output().unwrap()
    }

    /// The output for a recording. Each JSON line is checked.
    fn lines(&self, records: &Path, arguments: &[&str]) -> String {
        let output = self.run(records, arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.is_empty(), "{:?}: {stderr}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        if !arguments.contains(&"text") {
            let schema = schema();
            let mut known = BTreeSet::new();
            for line in text.split_inclusive('\n') {
                mirror::check(line).unwrap_or_else(|why| panic!("{why} in {line}"));
                let value: Value = serde_json::from_str(line).unwrap();
                let identity = [&value["stream"], &value["seq"], &value["id"]].map(ToString::to_string);
                assert!(known.insert(identity), "not to be told from an earlier line: {line}");
                schema.validate(&value).unwrap_or_else(|why| panic!("{why} in {line}"));
                for absence in value["missing"].as_array().into_iter().flatten() {
                    let key = absence["key"].as_str().unwrap();
                    let pointer = format!("/{}", key.replace('.', "/"));
                    assert_eq!(
                        value.pointer(&pointer),
                        None,
                        "{key} is there and said to be missing: {line}"
                    );
                }
            }
        }
        text
    }

    /// Writes records to a file.
    fn file(&self, records: &[Vec<u8>]) -> PathBuf {
        let path = self.root.path().join("records");
        let kept = |record: &Vec<u8>| [&(record.len() as u32).to_le_bytes(), record.as_slice()].concat();
        std::fs::write(&path, records.iter().flat_map(kept).collect::<Vec<u8>>()).unwrap();
        path
    }

    /// The events of records made by hand, and the last line.
    fn made(&self, records: &[Vec<u8>]) -> String {
        self.lines(&self.file(records), &[])
    }
}

fn schema() -> jsonschema::Validator {
    let output = Command::new(env!("CARGO_BIN_EXE_oomtrace")).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap()
}

/// Kills on 6.18 with memory on cgroup v1, recorded without a function hook: simple, of a thread, of shared
/// memory, of an exiting process, by a parent's limit, with hostile names, 42 levels deep.
fn recording() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/replay/kills-6.18-hybrid.rec"))
}

#[test]
fn recorded_kills_as_json() {
    insta::assert_snapshot!(Replay::new().lines(&recording(), &["--cgroup", "hybrid"]));
}

#[test]
fn recorded_kills_as_text() {
    insta::assert_snapshot!(Replay::new().lines(&recording(), &["--cgroup", "hybrid", "-o", "text"]));
}

/// The same records give the same bytes: nothing depends on this host or the time.
#[test]
fn a_replay_is_the_same_each_time() {
    let first = Replay::new().lines(&recording(), &["--cgroup", "hybrid"]);
    assert_eq!(Replay::new().lines(&recording(), &["--cgroup", "hybrid"]), first);
}

/// Whose container a cgroup was, and what the killer was told to do, is for the records to say: this host's files are
/// another host's.
#[test]
fn a_replay_asks_for_no_file_of_this_host() {
    let replay = Replay::new();
    let mut record = records::oom_kill(1);
    let container = format!("docker-{}.scope\0user-1000.slice\0user.slice\0", "ab".repeat(32));
    let levels = [30, 20, 10, 1].map(records::unlimited);
    records::lineage(&mut record, container.as_bytes(), &levels);
    (record.oom, record.victim.tgid) = (records::no_killer(), record.trigger.tgid);
    let file = replay.file(&[record.sent()]);
    let asked = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomtrace"));
        let (paths, code) = traced::paths(command.arg("replay").args(arguments).arg(&file));
        assert_eq!(code, 0);
        // What comes before is the loader's. An empty path is that of a file which is open already.
        let opened = paths.iter().position(|path| path == file.to_str().unwrap()).unwrap();
        let after = paths.into_iter().skip(opened + 1);
        after.filter(|path| !path.is_empty() && path != "/proc/self/fd/1").collect::<Vec<_>>()
    };
    assert_eq!(asked(&[]), [""; 0]);
    // With a host's files to look at it does look at them, each part of a path by itself: that would have been seen above.
    let root = replay.root.path().to_str().unwrap();
    let of_root = asked(&["--root", root]);
    for part in [&format!("{root}/proc/sys/vm/oom_kill_allocating_task"), "etc", "var", "run"] {
        assert!(of_root.iter().any(|path| path == part), "{part}: {of_root:?}");
    }
}

#[test]
fn a_group_kill_on_v2() {
    // Three victims of one run, in a group at the cgroup whose limit fired.
    let victim = |seq: u64| {
        let mut record = records::oom_kill(seq);
        record.run = 1;
        record.victim.tgid = 4000 + seq as u32;
        record.victim.tid = record.victim.tgid;
        record.lineage.levels[1].oom_group = 1;
        if seq > 1 {
            record.oom.present &= !oc_fact::CHOSEN_POINTS;
        }
        record.sent()
    };
    insta::assert_snapshot!(Replay::new().made(&[victim(1), victim(2), victim(3)]));
}

#[test]
fn a_pid_and_nothing_else() {
    insta::assert_snapshot!(Replay::new().made(&[records::pid_only(1).sent()]));
}

#[test]
fn the_machine_a_cpuset_and_a_policy_ran_out() {
    let global = |seq: u64, constraint: u32, order: i32| {
        let mut record = records::oom_kill(seq);
        record.oom.present = record.oom.present & !oc_fact::MEMCG | oc_fact::GLOBAL;
        (record.oom.constraint, record.oom.order) = (constraint, order);
        record.oom.message = [0; MESSAGE_LEN];
        record.sent()
    };
    insta::assert_snapshot!(Replay::new().made(&[
        global(1, 0, 2),
        global(2, 1, 0),
        global(3, 2, 0),
        global(4, 0, -1)
    ]));
}

#[test]
fn what_is_not_a_kill() {
    let mut unread = records::memcg_oom(5, OUTCOME_RELIEVED);
    unread.levels[0].present = 0;
    unread.oom = records::no_killer();
    insta::assert_snapshot!(Replay::new().made(&[
        records::cgroup_change(KIND_CGROUP_MKDIR, 30, b"/pod/leaf").sent(),
        records::shared_mm_kill(1, 9).sent(),
        records::memcg_oom(2, OUTCOME_NO_KILLABLE_PROCESS).sent(),
        records::memcg_oom(3, OUTCOME_RELIEVED).sent(),
        records::memcg_oom(4, 77).sent(),
        unread.sent(),
        records::cgroup_change(KIND_CGROUP_RMDIR, 30, b"/pod/leaf").sent(),
    ]));
}

/// Only the fact of the kill is known: no number is invented, and each key has its reason.
#[test]
fn a_kill_of_which_nothing_could_be_read() {
    let mut record = OomKill::new_zeroed();
    (record.header.kind, record.header.seq, record.header.boot_time_ns) = (KIND_OOM_KILL, 1, 5);
    let text = Replay::new().made(&[record.sent()]);
    insta::assert_snapshot!(&text);
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["oom"].as_object().unwrap().len(), 1, "its id");
    assert_eq!(line["victim"], serde_json::json!({}));
}

#[test]
fn pages_are_as_large_as_they_were() {
    let replay = Replay::new();
    let file = replay.file(&[records::oom_kill(1).sent()]);
    let rss = |arguments: &[&str]| {
        let text = replay.lines(&file, arguments);
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        line["victim"]["memory"]["anon_rss_bytes"].as_u64()
    };
    assert_eq!(rss(&[]), Some(800 * 4096));
    assert_eq!(rss(&["--page-size", "65536"]), Some(800 * 65536));
}

/// A record that cannot be read is counted, and the next one is reported.
#[test]
fn records_that_cannot_be_read_are_counted() {
    let mut unknown = records::oom_kill(1).sent();
    unknown[0] = 99;
    let mut short = records::oom_kill(2).sent();
    short.truncate(100);
    let text = Replay::new().made(&[unknown, short, vec![], records::oom_kill(4).sent()]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["type"], &lines[0]["seq"]), (&"oom_kill".into(), &4.into()));
    assert_eq!((&lines[1]["events"], &lines[1]["lost"]), (&1.into(), &3.into()));
}

#[test]
fn a_recording_that_is_none() {
    let replay = Replay::new();
    let fails = |path: &Path, with: &str| {
        let output = replay.run(path, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(with), "{stderr}");
    };
    fails(&replay.root.path().join("none"), "No such file");
    let cut = replay.root.path().join("cut");
    let mut bytes = std::fs::read(recording()).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&cut, bytes).unwrap();
    fails(&cut, "ends in the middle of a record");
    std::fs::write(&cut, [1, 0]).unwrap();
    fails(&cut, "ends in the middle of a record");
    std::fs::write(&cut, [0xff; 8]).unwrap();
    fails(&cut, "a record of 4294967295 bytes");
    assert_eq!(replay.lines(&replay.file(&[]), &[]).lines().count(), 1, "the end of none");
}
