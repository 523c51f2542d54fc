//! A signal that ended a process: its record to an event, and who is told as what. A name proves nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use oomtrace::cgroups::tree::{CgroupTree, TreeLimits};
use oomtrace::containers::Runtimes;
use oomtrace::enrich::enricher::{Enricher, HookState, Knowledge, RunFacts, Signalled};
use oomtrace::event::{CgroupVersion, Event, Host, How, Killer, Reason, Signal};
use oomtrace::facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId, Decoder, Record, SignalKillFacts};
use oomtrace::host::clock::ClockOffset;
use oomtrace::host::process::{self, CommandLineChoice};
use oomtrace_common::record::{
    HOW_CGROUP_KILL, HOW_KERNEL, HOW_KILL, HOW_PID_NAMESPACE_ENDED, HOW_TGKILL, Header, KIND_SIGNAL_KILL,
    MemcgLevel, SIGKILL, SIGNAL_LEVELS, SIGTERM, SignalKey, SignalKill, Sigterm, Task,
};
use zerocopy::{FromZeros, IntoBytes};

const CONTAINER: &str = "/docker/ab12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b";
const OTHER: &str = "/docker/cd12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b";
/// A cgroup and its id.
const CGROUPS: [(&str, u64); 7] = [
    ("/docker", 9),
    (CONTAINER, 10),
    (OTHER, 11),
    ("/docker/cd12f4c09e7d5b3a8c6e1f2d4b7a9c0e3f5d8b1a6c2e4f7089ab3cd5ef61724b/earlyoom.service", 12),
    ("/system.slice/containerd.service", 13),
    ("/system.slice/earlyoom.service", 14),
    ("/init.scope", 15),
];

fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn task(pid: u32, comm: &str, memcg_id: u64) -> Task {
    Task {
        present: 0xff,
        tid: pid,
        tgid: pid,
        namespace_tgid: pid,
        parent_tgid: 90,
        uid: 0,
        oom_score_adj: 0,
        reserved: 0,
        start_boot_ns: 5_000_000_000,
        memcg_id,
        comm: text(comm),
    }
}

fn level(cgroup_id: u64, max_pages: u64) -> MemcgLevel {
    MemcgLevel {
        cgroup_id,
        usage_pages: 100,
        max_pages,
        watermark_pages: 150,
        present: 0x3f3f,
        ..MemcgLevel::new_zeroed()
    }
}

/// The first process of a container got SIGKILL from a process of this name, which runs this file, in this cgroup.
fn sent_by(comm: &str, file: &str, memcg_id: u64) -> SignalKill {
    let mut levels = [MemcgLevel::new_zeroed(); SIGNAL_LEVELS];
    levels[0] = level(10, 200);
    levels[1] = level(9, u64::MAX / 4096);
    SignalKill {
        header: Header {
            kind: KIND_SIGNAL_KILL,
            len: u32::try_from(size_of::<SignalKill>()).unwrap(),
            seq: 0,
            boot_time_ns: 70_000_000_000,
        },
        signal: SIGKILL,
        how: HOW_KILL,
        target: Task { namespace_tgid: 1, ..task(4000, "app", 10) },
        sender: task(700, comm, memcg_id),
        parent_comm: text("parent"),
        executable_name: text(file),
        sigterm: Sigterm {
            start_ns: 5_000_000_000,
            sent_ns: 60_000_000_000,
            sender_tgid: 699,
            sender_uid: 3,
            sender_comm: text("asker"),
        },
        level_count: 2,
        reserved: 0,
        levels,
    }
}

fn facts(record: &SignalKill) -> SignalKillFacts {
    match Decoder::new(4096).record(record.as_bytes()) {
        Ok(Record::SignalKill(facts)) => *facts,
        other => panic!("{other:?}"),
    }
}

fn enricher() -> Enricher {
    let mut enricher = Enricher::new(Knowledge {
        tree: CgroupTree::new(Runtimes::none(), TreeLimits::default()),
        root: None,
        processes: Err(process::Reason::Gone),
        command_line: CommandLineChoice::Full,
        log: None,
        gfp: None,
        version: CgroupVersion::V2,
        clock: Some(ClockOffset::default()),
        hooks: HookState::None,
        oom_control: None,
        run: RunFacts {
            host: Host { name: Some("a".into()), boot_id: None, kernel: Some("b".into()) },
            tags: BTreeMap::new(),
            instance: "run".into(),
            stream: "programs".into(),
        },
    });
    for (path, id) in CGROUPS {
        enricher.cgroup_changed(&CgroupChange {
            time: BootTime(1),
            id: CgroupId(id),
            kind: CgroupChangeKind::Made,
            path: path.into(),
        });
    }
    enricher
}

fn told(record: &SignalKill) -> Signalled {
    enricher().signal_kill(&facts(record)).unwrap()
}

#[test]
fn every_fact_of_a_record_is_there() {
    let facts = facts(&sent_by("runc", "runc", 13));
    assert_eq!((facts.signal, facts.how), (Some(Signal::Kill), Some(How::Kill)));
    assert_eq!(facts.time, BootTime(70_000_000_000));
    assert!(facts.is_first_process());
    assert_eq!(facts.target.tgid, Some(4000));
    assert_eq!(facts.sender.memcg, Some(CgroupId(13)));
    assert_eq!(facts.parent_comm.as_deref(), Some(&b"parent"[..]));
    assert_eq!(facts.executable_name.as_deref(), Some(&b"runc"[..]));
    let sigterm = facts.sigterm.unwrap();
    assert_eq!((sigterm.time, sigterm.sender_tgid, sigterm.sender_uid), (BootTime(60_000_000_000), 699, 3));
    assert_eq!(facts.lineage.levels.len(), 2);
    let key = SignalKey { cgroup_id: 10, sender_tgid: 700, signal: SIGKILL, how: HOW_KILL, first_process: 1 };
    assert_eq!(facts.group, key);
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let mut record = sent_by("", "", 13);
    // A SIGTERM to an earlier process with this id.
    (record.parent_comm, record.sigterm.start_ns) = ([0; 16], 4_999_999_999);
    (record.signal, record.how, record.level_count) = (11, 77, 99);
    let facts = facts(&record);
    assert_eq!((facts.signal, facts.how), (None, None));
    assert_eq!((facts.parent_comm.clone(), facts.executable_name.clone()), (None, None));
    assert_eq!((facts.sigterm.clone(), facts.lineage.levels.len()), (None, SIGNAL_LEVELS));
    assert!(enricher().signal_kill(&facts).is_none(), "a signal of another version is no line");
    let bytes = record.as_bytes();
    assert!(Decoder::new(4096).record(&bytes[..bytes.len() - 1]).is_err());
    for (how, expected) in [
        (HOW_TGKILL, How::Tgkill),
        (HOW_CGROUP_KILL, How::CgroupKill),
        (HOW_PID_NAMESPACE_ENDED, How::PidNamespaceEnded),
        (HOW_KERNEL, How::Kernel),
    ] {
        assert_eq!(self::facts(&SignalKill { how, ..record }).how, Some(expected));
    }
    assert_eq!(self::facts(&SignalKill { signal: SIGTERM, ..record }).signal, Some(Signal::Term));
}

#[test]
fn the_last_hop_is_told_with_how_full_the_container_was() {
    let Signalled { event, inside, cgroups } = told(&sent_by("runc", "runc", 13));
    assert_eq!((event.killer, inside), (Some(Killer::Runtime), Some(false)));
    assert_eq!(event.sender.systemd.as_ref().unwrap().unit, "containerd.service");
    assert_eq!(event.sigterm_before_ns, Some(10_000_000_000));
    assert_eq!(event.cgroup.cgroup.path.as_deref(), Some(CONTAINER));
    assert_eq!((event.cgroup.usage_bytes, event.cgroup.limit_bytes), (Some(409_600), Some(819_200)));
    let seen: Vec<_> = cgroups.iter().map(|one| (one.id.0, &*one.path, one.seen_made)).collect();
    assert_eq!(seen, [(10, CONTAINER.as_bytes(), true), (9, b"/docker", true)]);
    let why =
        |key: &str| event.missing.iter().find(|absence| absence.key == key).map(|absence| absence.reason);
    assert_eq!(why("sender.executable"), Some(Reason::ProcessGone));
    assert_eq!(why("processes"), Some(Reason::NotRead), "until its group is complete");
    assert_eq!(event.envelope.id.as_deref(), Some("programs-signal_kill-70000000000-4000"));
    let mut line = Vec::new();
    oomtrace::outputs::encode::json::line(&Event::SignalKill(Box::new(event)), &mut line).unwrap();
    let line = String::from_utf8(line).unwrap();
    assert!(line.contains("NOT out of memory"), "{line}");
}

/// Where the cgroup was full once, or has no limit, nobody says that it was not.
#[test]
fn only_the_cgroups_own_counters_say_that_it_was_not_memory() {
    let full = |index: usize| {
        let mut record = sent_by("runc", "runc", 13);
        record.levels[0].events[index] = 1;
        record
    };
    let mut unlimited = sent_by("runc", "runc", 13);
    unlimited.levels[0].max_pages = u64::MAX / 4096;
    let mut unread = sent_by("runc", "runc", 13);
    unread.levels[0].present &= 0xff;
    let for_memory = sent_by("earlyoom", "earlyoom", 14);
    for record in [full(2), full(3), full(4), unlimited, unread, for_memory] {
        let event = Event::SignalKill(Box::new(told(&record).event));
        let words = oomtrace::outputs::encode::text::message(&event);
        assert!(!words.contains("NOT out of memory"), "{words}");
    }
}

/// A container may make cgroups of its own, with limits that are never reached.
#[test]
fn how_full_a_container_was_its_own_cgroup_says() {
    let nested = |paths: &[&str]| {
        let mut enricher = enricher();
        let mut record = sent_by("runc", "runc", 13);
        let mut path = CONTAINER.to_owned();
        let mut levels = vec![level(9, u64::MAX / 4096), MemcgLevel { events: [9; 6], ..level(10, 200) }];
        for (id, name) in (100..).zip(paths) {
            path = format!("{path}/{name}");
            enricher.cgroup_changed(&CgroupChange {
                time: BootTime(1),
                id: CgroupId(id),
                kind: CgroupChangeKind::Made,
                path: path.clone().into(),
            });
            levels.push(level(id, 800));
            record.target.memcg_id = id;
        }
        levels.reverse();
        levels.truncate(SIGNAL_LEVELS);
        record.level_count = u32::try_from(levels.len()).unwrap();
        record.levels[..levels.len()].copy_from_slice(&levels);
        enricher.signal_kill(&facts(&record)).unwrap().event
    };
    let id = &CONTAINER[8..];
    for paths in [&["roomy"][..], &[id], &["a", id, "c"]] {
        let event = nested(paths);
        assert_eq!(event.container.as_ref().unwrap().id, id);
        assert_eq!(event.cgroup.cgroup.path.as_deref(), Some(CONTAINER), "{paths:?}");
        let words = oomtrace::outputs::encode::text::message(&Event::SignalKill(Box::new(event)));
        assert!(!words.contains("NOT out of memory"), "{words}");
    }
    // Podman's own has the limit, and one that the container made below it has not.
    let podman = Knowledge::none("a", CgroupVersion::V2);
    let mut enricher = Enricher::new(podman);
    let scope = format!("/machine.slice/libpod-{id}.scope");
    let paths = [scope.clone(), format!("{scope}/container"), format!("{scope}/container/container")];
    for (id, path) in (20..).zip(&paths) {
        let (time, kind) = (BootTime(1), CgroupChangeKind::Made);
        enricher.cgroup_changed(&CgroupChange { time, id: CgroupId(id), kind, path: path.clone().into() });
    }
    let mut record = sent_by("crun", "crun", 13);
    (record.target.memcg_id, record.level_count) = (22, 3);
    record.levels[..3].copy_from_slice(&[level(22, 100), level(21, 200), level(20, u64::MAX / 4096)]);
    let event = enricher.signal_kill(&facts(&record)).unwrap().event;
    assert_eq!(event.cgroup.cgroup.path.as_ref(), Some(&paths[1]));
    let event = nested(&["a", "b", "c", "d"]);
    let why = event.missing.iter().find(|absence| absence.key == "cgroup").map(|absence| absence.reason);
    assert_eq!((event.cgroup, why), (Default::default(), Some(Reason::TooDeep)));
}

#[test]
fn a_container_that_calls_itself_a_killer_is_not_the_hosts() {
    for (comm, file, memcg, expected) in [
        ("earlyoom", "earlyoom", 14, Killer::Earlyoom),
        // What it is called does not matter.
        ("sh", "earlyoom", 14, Killer::Earlyoom),
        ("earlyoom", "sh", 14, Killer::Other),
        ("earlyoom", "earlyoom", 13, Killer::Other),
        // In another container, also in a cgroup there that has the unit's name.
        ("earlyoom", "earlyoom", 11, Killer::Other),
        ("earlyoom", "earlyoom", 12, Killer::Other),
        ("runc", "runc", 11, Killer::Other),
        // In the target's own.
        ("earlyoom", "earlyoom", 10, Killer::Inside),
        ("systemd", "systemd", 15, Killer::Systemd),
    ] {
        let event = told(&sent_by(comm, file, memcg)).event;
        assert_eq!(event.killer, Some(expected), "{comm} {file} in {memcg}");
    }
}

#[test]
fn a_sender_whose_cgroup_is_not_known_is_nobody() {
    let Signalled { event, inside, .. } = told(&sent_by("runc", "runc", 99));
    assert_eq!((event.killer, inside), (None, None));
    let keys: Vec<&str> = event.missing.iter().map(|absence| &*absence.key).collect();
    assert!(keys.contains(&"killer") && keys.contains(&"sender.cgroup.path"), "{keys:?}");
}

/// Whoever ran when the kernel sent it is not who sent it.
#[test]
fn the_kernel_is_nobody() {
    let event = told(&SignalKill { how: HOW_KERNEL, ..sent_by("bystander", "sh", 13) }).event;
    assert_eq!((event.killer, event.sender), (None, Default::default()));
}
