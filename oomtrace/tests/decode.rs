//! From records to facts: no input ends the process, no fact is invented, and units are right.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::type_complexity, clippy::cast_possible_truncation, reason = "tables of small cases")]
#![allow(dead_code, reason = "not each test crate needs each record")]

#[path = "decode/any_bytes.rs"]
mod any_bytes;
#[path = "decode/own.rs"]
mod own;
mod records;
#[path = "decode/stack.rs"]
mod stack;

use oomtrace::event::{Evidence, MemoryEvents};
use oomtrace::facts::{
    BootTime, CgroupChangeKind, CgroupId, DecodeError, Decoder, Limit, Lineage, MemcgFacts, MemcgOomFacts,
    MemoryFacts, OomControlFacts, OomKillFacts, Record, SharedMmKillFacts, TaskFacts,
};
use oomtrace_common::record::{Lineage as LineageHead, OomKill as KillHead, *};
use proptest::prelude::*;
use records::{NO_LIMIT, OomKill, Sent};
use zerocopy::FromBytes;

const PAGE: u64 = 4096;

/// The minimum size of a record without levels.
const LEVELS_OF_OOM: usize = std::mem::offset_of!(MemcgOom, levels);

fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    Decoder::new(PAGE).record(bytes)
}

fn oom_kill(record: &OomKill) -> OomKillFacts {
    match decode(&record.sent()).unwrap() {
        Record::OomKill(facts) => *facts,
        other => panic!("{other:?}"),
    }
}

fn memcg_oom(record: &MemcgOom) -> MemcgOomFacts {
    match decode(&record.sent()).unwrap() {
        Record::MemcgOom(facts) => *facts,
        other => panic!("{other:?}"),
    }
}

/// The values of [`records::task`].
fn task(tgid: u32, comm: &[u8], memcg: u64) -> TaskFacts {
    TaskFacts {
        tid: Some(tgid),
        tgid: Some(tgid),
        namespace_tgid: Some(7),
        parent_tgid: Some(90),
        uid: Some(1000),
        oom_score_adj: Some(-17),
        start: Some(BootTime(5_000_000_000)),
        memcg: Some(CgroupId(memcg)),
        comm: Some(comm.to_vec()),
    }
}

/// The values of [`records::level`].
fn level(id: u64, page: u64) -> MemcgFacts {
    MemcgFacts {
        id: CgroupId(id),
        usage_bytes: Some(1000 * page),
        max: Some(Limit::Bytes(1000 * page)),
        watermark_bytes: Some(1001 * page),
        swap_usage_bytes: Some(11 * page),
        swap_max: Some(Limit::Bytes(12 * page)),
        oom_group: Some(false),
        events: MemoryEvents {
            low: Some(1),
            high: Some(2),
            max: Some(3),
            oom: Some(4),
            oom_kill: Some(5),
            oom_group_kill: Some(6),
        },
    }
}

fn unlimited(id: u64) -> MemcgFacts {
    MemcgFacts { max: Some(Limit::Unlimited), swap_max: Some(Limit::Unlimited), ..level(id, PAGE) }
}

fn killer() -> OomControlFacts {
    OomControlFacts {
        evidence: Evidence::Fentry,
        memcg: Some(Some(CgroupId(20))),
        domain_bytes: Some(2000 * PAGE),
        oom_score_bytes: Some(900 * PAGE as i64),
        gfp_mask: Some(0xcc0),
        order: Some(0),
        constraint: Some(3),
        message: Some(b"Memory cgroup out of memory".to_vec()),
    }
}

fn full_kill() -> OomKillFacts {
    OomKillFacts {
        seq: 3,
        time: BootTime(60_000_000_003),
        run: Some(3),
        victim: task(4000, b"victim", 30),
        memory: MemoryFacts {
            total_vm_bytes: Some(5000 * PAGE),
            anon_rss_bytes: Some(800 * PAGE),
            file_rss_bytes: Some(40 * PAGE),
            shmem_rss_bytes: Some(2 * PAGE),
            swap_bytes: Some(9 * PAGE),
            pgtables_bytes: Some(73_728),
        },
        tasks: own::tasks(),
        lru: Some(own::lru()),
        trigger: task(4100, b"trigger", 30),
        oom: Some(killer()),
        command_line: None,
        signalled: Some(true),
        stack: None,
        lineage: Lineage {
            levels: vec![unlimited(30), level(20, PAGE), unlimited(1)],
            path: b"/pod/leaf".to_vec(),
            path_cut: false,
            levels_cut: false,
        },
    }
}

#[test]
fn every_fact_of_a_kill() {
    assert_eq!(oom_kill(&records::oom_kill(3)), full_kill());
}

#[test]
fn every_fact_of_the_others() {
    assert_eq!(
        decode(&records::shared_mm_kill(4, 3).sent()).unwrap(),
        Record::SharedMmKill(SharedMmKillFacts {
            seq: 4,
            time: BootTime(61_000_000_000),
            of: 3,
            task: task(4001, b"sharer", 30),
        })
    );
    assert_eq!(
        memcg_oom(&records::memcg_oom(5, OUTCOME_RELIEVED)),
        MemcgOomFacts {
            seq: Some(5),
            time: BootTime(62_000_000_000),
            trigger: task(4100, b"trigger", 20),
            oom: Some(killer()),
            outcome: OUTCOME_RELIEVED,
            lineage: Lineage {
                levels: vec![level(20, PAGE), unlimited(1)],
                path: b"/pod".to_vec(),
                ..Lineage::default()
            },
        }
    );
    for (kind, change) in [
        (KIND_CGROUP_MKDIR, CgroupChangeKind::Made),
        (KIND_CGROUP_RMDIR, CgroupChangeKind::Removed),
        (KIND_CGROUP_RENAME, CgroupChangeKind::Renamed),
    ] {
        let Record::Cgroup(facts) = decode(&records::cgroup_change(kind, 77, b"/a/b\xff").sent()).unwrap()
        else {
            panic!("kind {kind}");
        };
        assert_eq!((facts.kind, facts.id, facts.path.as_slice()), (change, CgroupId(77), &b"/a/b\xff"[..]));
        assert_eq!(facts.time, BootTime(59_000_000_000));
    }
}

/// Clearing a bit removes exactly its own fact.
#[test]
fn each_bit_of_a_task_is_its_fact() {
    let cases: [(u32, fn(&mut TaskFacts)); 8] = [
        (task_fact::IDS, |task| (task.tid, task.tgid) = (None, None)),
        (task_fact::COMM, |task| task.comm = None),
        (task_fact::UID, |task| task.uid = None),
        (task_fact::NAMESPACE_TGID, |task| task.namespace_tgid = None),
        (task_fact::PARENT, |task| task.parent_tgid = None),
        (task_fact::START, |task| task.start = None),
        (task_fact::OOM_SCORE_ADJ, |task| task.oom_score_adj = None),
        (task_fact::MEMCG, |task| task.memcg = None),
    ];
    for (bit, without) in cases {
        for of_the_victim in [true, false] {
            let (mut record, mut expected) = (records::oom_kill(3), full_kill());
            let (raw, facts) = match of_the_victim {
                true => (&mut record.victim, &mut expected.victim),
                false => (&mut record.trigger, &mut expected.trigger),
            };
            raw.present &= !bit;
            without(facts);
            assert_eq!(oom_kill(&record), expected, "bit {bit:#x}");
        }
    }
}

#[test]
fn each_bit_of_the_memory_is_its_fact() {
    let cases: [(u64, fn(&mut MemoryFacts)); 6] = [
        (memory_fact::TOTAL_VM, |memory| memory.total_vm_bytes = None),
        (memory_fact::ANON, |memory| memory.anon_rss_bytes = None),
        (memory_fact::FILE, |memory| memory.file_rss_bytes = None),
        (memory_fact::SHMEM, |memory| memory.shmem_rss_bytes = None),
        (memory_fact::SWAP, |memory| memory.swap_bytes = None),
        (memory_fact::PGTABLES, |memory| memory.pgtables_bytes = None),
    ];
    for (bit, without) in cases {
        let (mut record, mut expected) = (records::oom_kill(3), full_kill());
        record.memory.present &= !bit;
        without(&mut expected.memory);
        assert_eq!(oom_kill(&record), expected, "bit {bit:#x}");
    }
}

#[test]
fn each_bit_of_a_cgroup_is_its_fact() {
    let cases: [(u32, fn(&mut MemcgFacts)); 12] = [
        (level_fact::USAGE, |level| level.usage_bytes = None),
        (level_fact::MAX, |level| level.max = None),
        (level_fact::WATERMARK, |level| level.watermark_bytes = None),
        (level_fact::SWAP_USAGE, |level| level.swap_usage_bytes = None),
        (level_fact::SWAP_MAX, |level| level.swap_max = None),
        (level_fact::OOM_GROUP, |level| level.oom_group = None),
        (level_fact::EVENTS, |level| level.events.low = None),
        (level_fact::EVENTS << 1, |level| level.events.high = None),
        (level_fact::EVENTS << 2, |level| level.events.max = None),
        (level_fact::EVENTS << 3, |level| level.events.oom = None),
        (level_fact::EVENTS << 4, |level| level.events.oom_kill = None),
        (level_fact::EVENTS << 5, |level| level.events.oom_group_kill = None),
    ];
    for (bit, without) in cases {
        let (mut record, mut expected) = (records::oom_kill(3), full_kill());
        record.lineage.levels[1].present &= !bit;
        without(&mut expected.lineage.levels[1]);
        assert_eq!(oom_kill(&record), expected, "bit {bit:#x}");
    }
}

#[test]
fn each_bit_of_the_killer_is_its_fact() {
    let cases: [(u32, fn(&mut OomControlFacts)); 7] = [
        (oc_fact::MEMCG, |killer| killer.memcg = None),
        (oc_fact::GFP_MASK, |killer| killer.gfp_mask = None),
        (oc_fact::ORDER, |killer| killer.order = None),
        (oc_fact::TOTAL_PAGES, |killer| killer.domain_bytes = None),
        (oc_fact::CHOSEN_POINTS, |killer| killer.oom_score_bytes = None),
        (oc_fact::CONSTRAINT, |killer| killer.constraint = None),
        (oc_fact::MESSAGE, |killer| killer.message = None),
    ];
    for (bit, without) in cases {
        let (mut record, mut expected) = (records::oom_kill(3), full_kill());
        record.oom.present &= !bit;
        without(expected.oom.as_mut().unwrap());
        assert_eq!(oom_kill(&record), expected, "bit {bit:#x}");
    }
    let (mut record, mut expected) = (records::oom_kill(3), full_kill());
    record.oom.present = record.oom.present & !oc_fact::MEMCG | oc_fact::GLOBAL;
    expected.oom.as_mut().unwrap().memcg = Some(None);
    assert_eq!(oom_kill(&record), expected);
}

#[test]
fn the_source_says_who_saw_the_killer() {
    for (source, evidence) in [
        (SOURCE_FENTRY, Some(Evidence::Fentry)),
        (SOURCE_KPROBE, Some(Evidence::Kprobe)),
        (SOURCE_STACK, Some(Evidence::Stack)),
        (0, None),
        (9, None),
    ] {
        let mut record = records::oom_kill(3);
        record.oom.source = source;
        assert_eq!(oom_kill(&record).oom.map(|killer| killer.evidence), evidence, "source {source}");
    }
}

#[test]
fn signals_and_runs_are_known_or_not() {
    for (flags, signalled) in [
        (FLAG_SIGNALS_FOLLOWED | FLAG_SIGNALLED, Some(true)),
        (FLAG_SIGNALS_FOLLOWED, Some(false)),
        (FLAG_SIGNALLED, None),
        // If the victim's task was not found, it is not known to whom the SIGKILL was sent.
        (FLAG_SIGNALS_FOLLOWED | FLAG_PID_ONLY, None),
        (0, None),
    ] {
        let record = OomKill { flags, run: 0, ..records::oom_kill(3) };
        let facts = oom_kill(&record);
        assert_eq!((facts.signalled, facts.run), (signalled, None), "flags {flags:#x}");
    }
}

#[test]
fn pages_have_the_size_they_have() {
    for page in [4096, 65536] {
        let record = records::oom_kill(3);
        let Ok(Record::OomKill(facts)) = Decoder::new(page).record(&record.sent()) else { panic!() };
        assert_eq!(facts.lineage.levels[1], level(20, page));
        assert_eq!(facts.memory.anon_rss_bytes, Some(800 * page));
        assert_eq!(facts.memory.swap_bytes, Some(9 * page));
        assert_eq!(facts.memory.total_vm_bytes, Some(5000 * page));
        assert_eq!(facts.memory.pgtables_bytes, Some(73_728), "in bytes already");
        let killer = facts.oom.unwrap();
        assert_eq!(killer.domain_bytes, Some(2000 * page));
        assert_eq!(killer.oom_score_bytes, Some(900 * page as i64));
    }
}

/// `PAGE_COUNTER_MAX` depends on the page size. One page less is a limit.
#[test]
fn no_limit_is_told_from_a_huge_one() {
    for (page, none) in [(4096, NO_LIMIT), (65536, i64::MAX as u64 / 65536)] {
        let limit = |pages: u64| {
            let mut record = records::oom_kill(3);
            record.lineage.levels[0].max_pages = pages;
            record.lineage.levels[0].swap_max_pages = pages;
            let Ok(Record::OomKill(facts)) = Decoder::new(page).record(&record.sent()) else { panic!() };
            let level = &facts.lineage.levels[0];
            assert_eq!(level.max, level.swap_max);
            level.max
        };
        assert_eq!(limit(none), Some(Limit::Unlimited));
        assert_eq!(limit(u64::MAX), Some(Limit::Unlimited));
        assert_eq!(limit(none - 1), Some(Limit::Bytes((none - 1) * page)));
        assert_eq!(limit(0), Some(Limit::Bytes(0)));
    }
}

#[test]
fn negative_counters_are_zero_and_a_negative_score_is_negative() {
    let mut record = records::oom_kill(3);
    record.memory.anon_pages = -1;
    record.memory.file_pages = i64::MIN;
    record.memory.shmem_pages = -30;
    record.memory.swap_entries = -2;
    record.oom.chosen_points = -5;
    let facts = oom_kill(&record);
    assert_eq!(facts.memory.anon_rss_bytes, Some(0));
    assert_eq!(facts.memory.file_rss_bytes, Some(0));
    assert_eq!(facts.memory.shmem_rss_bytes, Some(0));
    assert_eq!(facts.memory.swap_bytes, Some(0));
    assert_eq!(facts.oom.unwrap().oom_score_bytes, Some(-5 * 4096));
}

#[test]
fn names_from_leaf_to_root_become_a_path() {
    let level = records::unlimited;
    let deep: Vec<u8> = (0..20).rev().flat_map(|depth| format!("d{depth}\0").into_bytes()).collect();
    let deep_path: String = (0..20).map(|depth| format!("/d{depth}")).collect();
    let cases: [(&[u8], usize, &[u8]); 5] = [
        (b"", 1, b"/"),
        (b"a\0", 2, b"/a"),
        (b"c\0b\0a\0", 4, b"/a/b/c"),
        (b"\x1b[2J\n\0\xff\xfe\0", 3, b"/\xff\xfe/\x1b[2J\n"),
        (&deep, 21, deep_path.as_bytes()),
    ];
    for (names, depth, path) in cases {
        let mut record = records::oom_kill(3);
        let levels: Vec<MemcgLevel> = (0..depth as u64).map(level).collect();
        records::lineage(&mut record, names, &levels);
        let lineage = oom_kill(&record).lineage;
        assert_eq!((lineage.path.as_slice(), lineage.path_cut, lineage.levels_cut), (path, false, false));
        assert_eq!(lineage.levels.len(), depth);
    }
    let flags = FLAG_PATH_CUT | FLAG_LEVELS_CUT;
    let mut record = records::oom_kill(3);
    record.lineage.flags = flags;
    let lineage = oom_kill(&record).lineage;
    assert_eq!((lineage.path_cut, lineage.levels_cut), (true, true));
    record.lineage.flags = FLAG_PATH_CUT;
    let lineage = oom_kill(&record).lineage;
    assert_eq!((lineage.path_cut, lineage.levels_cut), (true, false));
}

#[test]
fn a_command_line_is_as_long_as_it_says() {
    let mut record = records::oom_kill(3);
    record.command_line[..8].copy_from_slice(b"a\0-b c\0\0");
    assert_eq!(oom_kill(&record).command_line, None);
    record.command_line_len = 7;
    let read = oom_kill(&record).command_line.unwrap();
    assert_eq!((read.arguments.as_slice(), read.cut), (b"a\0-b c\0".as_slice(), false));
    record.flags |= FLAG_COMMAND_LINE_CUT;
    let read = oom_kill(&record).command_line.unwrap();
    assert_eq!((read.arguments.as_slice(), read.cut), (b"a\0-b c\0".as_slice(), true));
}
