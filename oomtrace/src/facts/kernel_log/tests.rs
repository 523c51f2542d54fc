#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    event::Constraint,
    facts::{Limit, kernel_log::*},
    host::kernel_log::{Backlog, KernelLog, Records},
};

/// A kill on 6.18, with memory on cgroup v1, of a process with the comm `a,task=\xff\n x`. One record for
/// each read.
const KILL_6_18: &str = include_str!("../fixtures/kmsg-6.18-v1.txt");

const VICTIM: u32 = 7946;
const MEMCG: &[u8] = b"/oomtrace-b-test";
const COMM: &[u8] = b"a,task=\xff\n x";

/// A record as the kernel shows `text`.
fn record(seq: u64, flags: &str, text: &[u8]) -> Vec<u8> {
    let mut raw = format!("6,{seq},{},{flags};", 1_000_000 + seq).into_bytes();
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'\\' => raw.push(*byte),
            _ => raw.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    raw.extend_from_slice(b"\n SUBSYSTEM=mm\n");
    raw
}

fn oom_kill(domain: &OomDomain, task_memcg: &[u8], comm: &[u8], pid: u32, uid: u32) -> Vec<u8> {
    let mut text =
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0-1,3".to_vec();
    match domain {
        OomDomain::Global => text.extend_from_slice(b",global_oom"),
        OomDomain::Memcg(path) => text.extend([b",oom_memcg=", path.as_slice()].concat()),
    }
    text.extend([b",task_memcg=", task_memcg, b",task=", comm].concat());
    text.extend(format!(",pid={pid},uid={}", uid.cast_signed()).into_bytes());
    text
}

fn killed(tid: u32) -> Vec<u8> {
    format!(
        "Memory cgroup out of memory: Killed process {tid} (x) total-vm:4kB, anon-rss:3kB, file-rss:2kB, \
         shmem-rss:1kB, UID:1000 pgtables:8kB oom_score_adj:-997"
    )
    .into_bytes()
}

fn line(text: &[u8]) -> Option<OomLine> {
    Lines::default().push(&record(1, "-", text)).map(|(_, line)| line)
}

fn chosen(text: &[u8]) -> Chosen {
    let Some(OomLine::Chosen(chosen)) = line(text) else { panic!("{}", text.escape_ascii()) };
    chosen
}

fn reports(texts: &[Vec<u8>]) -> Reports {
    let (mut lines, mut reports) = (Lines::default(), Reports::default());
    for (seq, text) in (1..).zip(texts) {
        if let Some((meta, line)) = lines.push(&record(seq, "-", text)) {
            reports.push(meta, line);
        }
    }
    reports
}

fn memcg(path: &[u8]) -> OomDomain {
    OomDomain::Memcg(path.to_vec())
}

#[test]
fn a_real_report() {
    let (mut lines, mut reports) = (Lines::default(), Reports::default());
    for raw in KILL_6_18.lines() {
        if let Some((meta, line)) = lines.push(raw.as_bytes()) {
            reports.push(meta, line);
        }
    }
    assert_eq!(reports.take(VICTIM, b"/elsewhere"), None);
    assert_eq!(reports.take(VICTIM + 1, MEMCG), None);
    let report = reports.take(VICTIM, MEMCG).unwrap();
    assert_eq!(reports.take(VICTIM, MEMCG), None);

    assert_eq!((report.meta.seq, report.meta.time_us), (415, 1_352_971_919));
    assert_eq!((report.constraint(), report.pid(), report.uid()), (Some(Constraint::Memcg), VICTIM, 0));
    assert_eq!(report.oom_domain(MEMCG), Some(memcg(MEMCG)));
    // The comm itself contains `,task=`, so the line alone is ambiguous.
    assert_eq!(report.split(), None);
    assert_eq!(report.chosen.split_with(MEMCG).unwrap().task_comm, COMM);
    let invoked = Invoked {
        comm: COMM.to_vec(),
        gfp_mask_raw: 0xcc0,
        gfp_mask_names: "GFP_KERNEL".to_owned(),
        order: 0,
        oom_score_adj: 0,
    };
    assert_eq!(report.invoked, Some(invoked));
    assert_eq!(report.stats_memcg.as_deref(), Some(MEMCG));
    let memory = Usage {
        kind: UsageKind::Memory,
        usage_bytes: 16 << 20,
        limit: Limit::Bytes(16 << 20),
        failcnt: 50_313,
    };
    assert_eq!(report.usage(UsageKind::Memory), Some(&memory));
    assert_eq!(report.usage(UsageKind::MemorySwap).unwrap().limit, Limit::Unlimited);
    let killed = Killed {
        message: b"Memory cgroup out of memory".to_vec(),
        tid: VICTIM,
        comm: COMM.to_vec(),
        total_vm_bytes: 27_520 << 10,
        anon_rss_bytes: 16_256 << 10,
        file_rss_bytes: 2_264 << 10,
        shmem_rss_bytes: 0,
        uid: 0,
        pgtables_bytes: 88 << 10,
        oom_score_adj: 0,
    };
    assert_eq!(report.killed, [killed]);
}

#[test]
fn what_two_readings_fit_is_not_guessed() {
    let hostile = b"/a,task_memcg=/evil";
    let text = oom_kill(&memcg(hostile), b"/a/b", b"python3", 123, 0);
    assert_eq!(chosen(&text).split(), None);
    assert_eq!(chosen(&text).split_with(b"/a/b").unwrap().domain, memcg(hostile));
    assert_eq!(chosen(&text).split_with_domain(hostile).unwrap().task_memcg, b"/a/b");
    // The other split is right for another kill with the same line.
    assert_eq!(chosen(&text).split_with(b"/evil,task_memcg=/a/b").unwrap().domain, memcg(b"/a"));
    assert_eq!(chosen(&text).split_with(b"/evil"), None);
}

#[test]
fn the_machine_ran_out() {
    let text = oom_kill(&OomDomain::Global, b"/a,oom_memcg=/x", b"b,pid=1,uid=0", 9, u32::MAX);
    let chosen = chosen(&text);
    assert_eq!((chosen.pid, chosen.uid), (9, u32::MAX));
    assert_eq!(chosen.split().unwrap().domain, OomDomain::Global);
    assert_eq!(chosen.split().unwrap().task_comm, b"b,pid=1,uid=0");
}

#[test]
fn a_cpuset_by_any_name() {
    let text = b"oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0,cpuset=x,mems_allowed=0,global_oom,task_memcg=,task=t,pid=1,\
        mems_allowed=0,oom_memcg=/a,task_memcg=/b,task=c,pid=   77,uid=    0";
    let split = chosen(text).split().unwrap();
    assert_eq!((chosen(text).pid, split.domain, split.task_memcg), (77, memcg(b"/a"), b"/b".to_vec()));
}

#[test]
fn other_lines() {
    let Some(OomLine::Killed(kill)) = line(
        b"Out of memory (oom_kill_allocating_task): Killed process 5 () total-vm:1) total-vm:4kB, anon-rss:3kB, \
          file-rss:2kB, shmem-rss:1kB, UID:1000 pgtables:8kB oom_score_adj:-997",
    ) else {
        panic!()
    };
    assert_eq!(
        (kill.comm.as_slice(), kill.total_vm_bytes, kill.uid),
        (b") total-vm:1".as_slice(), 4096, 1000)
    );
    assert_eq!(kill.message, b"Out of memory (oom_kill_allocating_task)");
    let exiting = b"Memory cgroup out of memory: OOM victim 7 (a) is already) is already exiting. Skip killing the task";
    let expected = AlreadyExiting {
        message: b"Memory cgroup out of memory".to_vec(),
        tid: 7,
        comm: b"a) is already".to_vec(),
    };
    assert_eq!(line(exiting), Some(OomLine::AlreadyExiting(expected)));
    let group = b"Tasks in /a are going to be killed due to memory.oom.group set are going to be killed due to memory.oom.group set";
    let path = b"/a are going to be killed due to memory.oom.group set".to_vec();
    assert_eq!(line(group), Some(OomLine::Group(path)));
    assert_eq!(line(b"Out of memory and no killable processes..."), Some(OomLine::NoneKillable));
    let Some(OomLine::Invoked(invoked)) = line(
        b"sh invoked oom- invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=-1, oom_score_adj=1000",
    ) else {
        panic!()
    };
    assert_eq!((invoked.comm.as_slice(), invoked.order), (b"sh invoked oom-".as_slice(), -1));
    assert_eq!(line(b"oom_reaper: reaped process 1 (x), now anon-rss:0kB"), None);
}

#[test]
fn user_space_is_not_the_kernel() {
    let raw = record(1, "-", &killed(5));
    assert!(Lines::default().push(&raw).is_some());
    // Facility 1, LOG_USER, which a write to /dev/kmsg gets.
    let forged = [b"14", &raw[1..]].concat();
    assert_eq!(Lines::default().push(&forged), None);
}

#[test]
fn a_line_in_pieces() {
    let text = oom_kill(&memcg(b"/a"), b"/b", b"c", 4, 5);
    let (head, tail) = text.split_at(90);
    let whole = line(&text).unwrap();
    let mut lines = Lines::default();
    assert_eq!(lines.push(&record(7, "-", head)), None);
    let (meta, joined) = lines.push(&record(8, "c", tail)).unwrap();
    assert_eq!((meta.seq, joined), (7, whole.clone()));
    // Another record in between: without callers nothing is joined, with callers it is.
    lines.push(&record(9, "-", head));
    lines.push(&record(10, "-", b"eth0: link up"));
    assert_eq!(lines.push(&record(11, "c", tail)), None);
    lines.push(&record(12, "-,caller=T9", head));
    lines.push(&record(13, "-,caller=C0", b"eth0: link up"));
    assert_eq!(lines.push(&record(14, "c,caller=T8", tail)), None);
    assert_eq!(lines.push(&record(15, "c,caller=T9", tail)).unwrap().1, whole);
    // The writer began another line, to which the piece belongs.
    lines.push(&record(16, "-,caller=T9", head));
    lines.push(&record(17, "-,caller=T9", b"eth0: "));
    assert_eq!(lines.push(&record(18, "c,caller=T9", tail)), None);
}

#[test]
fn a_path_that_the_kernel_may_have_cut_is_not_told() {
    let text = oom_kill(&memcg(&[b"/".as_slice(), &[b'x'; 900]].concat()), b"/b", b"c", 4, 5);
    let chosen = chosen(&text);
    assert_eq!(chosen.pid, 4);
    assert_eq!((chosen.split(), chosen.split_with(b"/b")), (None, None));
}

#[test]
fn a_group_kill_and_the_kills_after_it() {
    let group = b"Tasks in /a are going to be killed due to memory.oom.group set".to_vec();
    let start = || oom_kill(&memcg(b"/a"), b"/a/b", b"c", 10, 0);
    let reports =
        reports(&[start(), killed(10), group.clone(), killed(10), killed(11), killed(20), group, killed(21)]);
    let report = reports.group_of(11, b"/a/c").unwrap();
    assert_eq!(report.killed.iter().map(|killed| killed.tid).collect::<Vec<_>>(), [10, 10, 11]);
    assert_eq!(report.group.as_deref(), Some(b"/a".as_slice()));
    assert_eq!(reports.group_of(11, b"/ab"), None);
    // The second group kill was above the rate limit: it has no report, and is not part of the first.
    assert_eq!((reports.group_of(20, b"/a"), reports.group_of(21, b"/a")), (None, None));
}

#[test]
fn a_kill_over_the_rate_limit_is_nobody_elses() {
    let reports = reports(&[oom_kill(&memcg(b"/a"), b"/a", b"c", 10, 0), killed(12), killed(13)]);
    // The first outcome always belongs to the chosen process, whatever its thread.
    assert_eq!(reports.iter().next().unwrap().killed.len(), 1);
}

#[test]
fn the_newest_report_of_a_pid_first() {
    let mut reports = reports(&[
        oom_kill(&memcg(b"/old"), b"/a", b"c", 10, 0),
        oom_kill(&memcg(b"/new"), b"/a", b"c", 10, 0),
    ]);
    for oom_memcg in [b"/new", b"/old"] {
        assert_eq!(reports.take(10, b"/a").unwrap().oom_domain(b"/a"), Some(memcg(oom_memcg)));
    }
    assert_eq!(reports.take(10, b"/a"), None);
}

#[test]
fn old_reports_go() {
    let mut reports = Reports::default();
    let text = oom_kill(&memcg(b"/a"), b"/a", b"c", 10, 0);
    for (seq, time_us) in [(1, 0), (2, 299_000_000), (3, 301_000_000)] {
        let (meta, line) = Lines::default().push(&record(seq, "-", &text)).unwrap();
        reports.push(RecordMeta { time_us, ..meta }, line);
    }
    assert_eq!(reports.iter().map(|report| report.meta.seq).collect::<Vec<_>>(), [2, 3]);
    for _ in 0..1000 {
        let (meta, line) = Lines::default().push(&record(4, "-", &text)).unwrap();
        reports.push(RecordMeta { time_us: 301_000_000, ..meta }, line);
    }
    assert_eq!(reports.iter().count(), 256);
}

/// A pipe that returns one packet for each read, like /dev/kmsg.
fn packets() -> (Records, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::DIRECT | PipeFlags::NONBLOCK).unwrap();
    (Records::from_fd(reader), writer)
}

#[test]
fn a_follower_catches_up_more_than_once() {
    let (records, writer) = packets();
    let mut log = KernelLog::new(records);
    assert!(log.catch_up().unwrap());
    rustix::io::write(&writer, &record(1, "-", b"random: crng init done")).unwrap();
    rustix::io::write(&writer, &record(2, "-", &oom_kill(&memcg(b"/a"), b"/b", b"c", 10, 0))).unwrap();
    assert!(log.catch_up().unwrap());
    assert_eq!(log.take(10, b"/b").unwrap().oom_domain(b"/b"), Some(memcg(b"/a")));
    rustix::io::write(&writer, &record(3, "-", &oom_kill(&OomDomain::Global, b"/b", b"c", 10, 0))).unwrap();
    assert!(log.catch_up().unwrap());
    assert_eq!(log.take(10, b"/b").unwrap().oom_domain(b"/b"), Some(OomDomain::Global));
    assert_eq!(log.overruns(), 0);
}

#[test]
fn a_log_without_end_is_read_by_turns() {
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let endless = std::fs::File::open("/dev/zero").unwrap();
        let mut log = KernelLog::new(Records::from_fd(endless.into()));
        let turns = [log.catch_up().unwrap(), log.catch_up().unwrap()];
        done.send(turns).unwrap();
    });
    let turns = waits.recv_timeout(std::time::Duration::from_secs(60));
    assert_eq!(turns, Ok([false, false]));
}

#[test]
fn the_backlog_is_read_in_order() {
    let (records, writer) = packets();
    for tid in 1..=3 {
        rustix::io::write(&writer, &record(tid.into(), "-", &killed(tid))).unwrap();
    }
    let tids: Vec<u64> =
        Backlog::new(records).filter_map(|line| line.unwrap()).map(|(meta, _)| meta.seq).collect();
    assert_eq!(tids, [1, 2, 3]);
}

prop_compose! {
    /// Any path of a cgroup, often one that looks like a part of the line.
    fn path()(names in proptest::collection::vec(
        prop_oneof![
            "(,task_memcg=|,oom_memcg=|,task=|,pid=1|,uid=0|a|/|:){1,4}".prop_map(String::into_bytes),
            proptest::collection::vec(1..=255_u8, 1..12),
        ], 0..4)) -> Vec<u8> {
        let mut path = b"/".to_vec();
        path.extend(names.concat().into_iter().filter(|byte| *byte != b'\n'));
        path
    }
}

prop_compose! {
    fn comm()(comm in prop_oneof![
        "(,task=|,pid=1|,uid=0|a|/|\\) |\n){0,3}".prop_map(String::into_bytes),
        proptest::collection::vec(1..=255_u8, 0..15),
    ]) -> Vec<u8> {
        comm.into_iter().take(15).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_record_is_safe(raw: Vec<u8>, text: Vec<u8>) {
        let mut lines = Lines::default();
        let _ = lines.push(&raw);
        for start in ["oom-kill:constraint=", "Tasks in ", "x invoked oom-killer: gfp_mask=", "memory: usage "] {
            let _ = lines.push(&record(1, "-", &[start.as_bytes(), &text].concat()));
            let _ = lines.push(&record(2, "c", &text));
        }
    }

    #[test]
    fn what_was_written_is_read(
        oom_memcg in proptest::option::of(path()), task_memcg in path(), comm in comm(),
        pid in 1..=i32::MAX.cast_unsigned(), uid: u32,
    ) {
        let domain = oom_memcg.map_or(OomDomain::Global, OomDomain::Memcg);
        let chosen = chosen(&oom_kill(&domain, &task_memcg, &comm, pid, uid));
        prop_assert_eq!((chosen.pid, chosen.uid), (pid, uid));
        let truth = Split { domain, task_memcg: task_memcg.clone(), task_comm: comm };
        prop_assert_eq!(chosen.split_with(&task_memcg), Some(truth.clone()));
        // Without help: the right split or none.
        prop_assert!(chosen.split().is_none_or(|split| split == truth));
    }

    #[test]
    fn a_killed_line_with_any_comm(comm in comm(), tid in 1..=i32::MAX.cast_unsigned(), rss in 0..1_u64 << 50) {
        let mut text = format!("Out of memory: Killed process {tid} (").into_bytes();
        text.extend_from_slice(&comm);
        text.extend_from_slice(format!(") total-vm:{rss}kB, anon-rss:{rss}kB, file-rss:0kB, shmem-rss:1kB, UID:7 pgtables:4kB oom_score_adj:0").as_bytes());
        let Some(OomLine::Killed(killed)) = line(&text) else { panic!() };
        prop_assert_eq!((killed.tid, killed.comm, killed.anon_rss_bytes), (tid, comm, rss * 1024));
    }
}
