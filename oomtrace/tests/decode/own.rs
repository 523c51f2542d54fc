//! What a victim's own cgroups held.

use oomtrace::facts::{CgroupId, LruFacts, TasksFacts};
use oomtrace_common::record::tasks_fact;

use super::{PAGE, full_kill, oom_kill, records};

/// The values of [`records::oom_kill`].
pub fn tasks() -> TasksFacts {
    TasksFacts {
        threads: Some(5),
        cgroup: Some(CgroupId(30)),
        in_memory_hierarchy: true,
        in_root: false,
        count: Some(14),
        limit: Some(Some(512)),
        peak: Some(17),
    }
}

/// The same.
pub fn lru() -> LruFacts {
    LruFacts { anon_bytes: 700 * PAGE, file_bytes: 90 * PAGE, unevictable_bytes: 3 * PAGE }
}

#[test]
fn each_bit_of_the_tasks_is_its_fact() {
    let none = TasksFacts { threads: Some(5), ..TasksFacts::default() };
    let cases: [(u32, TasksFacts); 7] = [
        (tasks_fact::THREADS, TasksFacts { threads: None, ..tasks() }),
        (tasks_fact::CGROUP, none),
        (tasks_fact::COUNTED, TasksFacts { in_root: true, count: None, limit: None, peak: None, ..tasks() }),
        (tasks_fact::COUNT, TasksFacts { count: None, ..tasks() }),
        (tasks_fact::LIMIT, TasksFacts { limit: None, ..tasks() }),
        (tasks_fact::PEAK, TasksFacts { peak: None, ..tasks() }),
        (tasks_fact::IN_MEMORY_HIERARCHY, TasksFacts { in_memory_hierarchy: false, ..tasks() }),
    ];
    for (bit, expected) in cases {
        let mut record = records::oom_kill(3);
        record.tasks.present &= !bit;
        assert_eq!(oom_kill(&record).tasks, expected, "bit {bit:#x}");
    }
}

/// `PIDS_MAX` is one more than the largest pid. The largest limit that can be set is one less.
#[test]
fn no_limit_of_tasks_is_told_from_a_large_one() {
    for (raw, limit) in [(4_194_304, Some(4_194_304)), (4_194_305, None), (i64::MAX, None), (0, Some(0))] {
        let mut record = records::oom_kill(3);
        record.tasks.limit = raw;
        assert_eq!(oom_kill(&record).tasks.limit, Some(limit), "{raw}");
    }
}

/// Of some nodes only, a sum would be false.
#[test]
fn lists_are_there_if_all_were_read() {
    for present in [0, 2, u64::MAX] {
        let mut record = records::oom_kill(3);
        record.lru.present = present;
        assert_eq!(oom_kill(&record).lru, None, "{present}");
    }
    let mut record = records::oom_kill(3);
    record.lru.file_pages = -2;
    assert_eq!(oom_kill(&record).lru, Some(LruFacts { file_bytes: 0, ..lru() }));
}

#[test]
fn of_a_pid_alone_nothing_is_known() {
    let mut record = records::pid_only(3);
    record.tasks = records::oom_kill(3).tasks;
    record.lru = records::oom_kill(3).lru;
    let facts = oom_kill(&record);
    assert_eq!((facts.tasks, facts.lru), (TasksFacts::default(), None));
    assert_ne!(full_kill().lru, None);
}
