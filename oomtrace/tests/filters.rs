//! Which events a filter passes: samples of each type, and kills of a saved log through the real binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "not all samples are needed here")]
mod samples;

use std::{path::Path, process::Command};

use clap::Parser;
use oomtrace::{
    cli::{Cli, Command as Typed, Filters},
    event::{Event, Scope},
    filter::Filter,
};
use serde_json::Value;

fn typed(arguments: &[&str]) -> Filters {
    let all = ["oomtrace", "run"].iter().chain(arguments);
    let Some(Typed::Run(run)) = Cli::try_parse_from(all).unwrap().command else { panic!("not run") };
    run.filters
}

/// The types of the samples that pass, in the order of the samples.
fn taken(arguments: &[&str]) -> Vec<String> {
    let mut filter = Filter::from(&typed(arguments));
    let taken = samples::all().into_iter().filter(|(_, event)| filter.takes(event));
    taken.map(|(name, _)| name.to_owned()).collect()
}

const OTHERS: [&str; 5] = ["start", "lost", "gap", "hooks", "stop"];

#[test]
fn without_a_filter_all_is_printed() {
    assert_eq!(taken(&[]).len(), samples::all().len());
}

#[test]
fn what_is_not_about_a_kill_is_left_out_only_by_its_type() {
    for arguments in
        [&["--container", "nobody"][..], &["--comm", "nobody"], &["--pod", "nobody"], &["--scope", "cpuset"]]
    {
        assert_eq!(taken(arguments), OTHERS, "{arguments:?}");
    }
    assert_eq!(taken(&["--type", "lost,gap"]), ["lost", "gap"]);
    assert_eq!(taken(&["--type", "stop", "--container", "nobody"]), ["stop"]);
    assert!(taken(&["--type", "lost", "--type", "oom_kill", "--comm", "nobody"]) == ["lost"]);
}

#[test]
fn each_type_can_be_asked_for() {
    for (name, event) in samples::all() {
        let taken = taken(&["--type", event.kind()]);
        assert!(taken.iter().any(|taken| taken == name), "{name}: {taken:?}");
    }
}

#[test]
fn each_option_looks_at_its_own_fact() {
    let kills = |arguments: &[&str]| -> Vec<String> {
        let mut taken = taken(arguments);
        taken.retain(|name| !OTHERS.contains(&name.as_str()));
        taken
    };
    let all = [
        "oom_kill",
        "oom_kill_in_a_pod",
        "shared_mm_kill",
        "memcg_oom",
        "incident",
        "host_memory",
        "stuck",
        "verdict",
    ];
    let and_signals = [
        "oom_kill",
        "oom_kill_in_a_pod",
        "shared_mm_kill",
        "memcg_oom",
        "signal_kill",
        "incident",
        "host_memory",
        "stuck",
        "verdict",
        "limit_near",
        "limit_far",
        "usage",
    ];
    let in_pod = ["oom_kill_in_a_pod", "incident", "host_memory", "stuck", "verdict"];
    // The incident of other kills belongs to none that was printed.
    assert_eq!(kills(&["--container", "api-service"]), and_signals);
    assert_eq!(kills(&["--image", "api:*"]), and_signals);
    assert_eq!(kills(&["--image", "nginx", "--image", "api:v2.0"]), and_signals);
    assert_eq!(kills(&["--pod", "api-7d9f"]), in_pod);
    assert_eq!(kills(&["--namespace", "shop", "--pod", "api-*"]), in_pod);
    assert_eq!(kills(&["--namespace", "shop", "--pod", "web-*"]), [""; 0]);
    assert_eq!(kills(&["--pod", "0b6f3a52-7f0e-4f0c-8f52-0a8f1d0e5c11"]), in_pod);
    assert_eq!(kills(&["--unit", "docker.service"]), ["shared_mm_kill"]);
    assert_eq!(kills(&["--unit", "db.service"]), ["limit_near_full"]);
    assert_eq!(
        kills(&["--comm", "python3"]),
        [
            "oom_kill",
            "oom_kill_in_a_pod",
            "shared_mm_kill",
            "signal_kill",
            "incident",
            "host_memory",
            "stuck",
            "verdict"
        ]
    );
    // A signal is sent because of nothing that ran out.
    assert_eq!(kills(&["--scope", "memcg"]), all);
}

#[test]
fn who_died_with_a_victim_follows_the_victims_scope() {
    let mut filter = Filter::from(&typed(&["--scope", "host"]));
    for (scope, passes) in [(Scope::Host, true), (Scope::Memcg, false)] {
        let mut passed = Vec::new();
        for (name, mut event) in samples::all() {
            if let Event::OomKill(kill) = &mut event {
                kill.oom.scope = Some(scope);
                // The same number in another stream.
                kill.envelope.stream = Some(format!("{scope:?}"));
            }
            if let Event::SharedMmKill(kill) = &mut event {
                kill.envelope.stream = Some(format!("{scope:?}"));
            }
            if filter.takes(&event) {
                passed.push(name);
            }
        }
        assert_eq!(passed.contains(&"shared_mm_kill"), passes, "{scope:?}: {passed:?}");
    }
}

#[test]
fn the_binary_takes_them_for_a_log() {
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log/dmesg");
    let tids = |arguments: &[&str]| -> Vec<u64> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomtrace"));
        let output = command.args(["log", "-o", "json"]).args(arguments).arg(&log).output().unwrap();
        assert!(output.status.success());
        let lines = String::from_utf8(output.stdout).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["victim"]["tid"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(tids(&["--comm", "hog,python3"]), [2990, 41]);
    assert_eq!(tids(&["--scope", "host"]), [41]);
    assert_eq!(tids(&["--container", "ab12f4c09e7d"]), [2990]);
    assert_eq!(tids(&["--type", "lost"]), [0; 0]);
    assert_eq!(tids(&["--comm", "worker*"]), [3001]);
}
