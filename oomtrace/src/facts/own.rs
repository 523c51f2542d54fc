//! What a victim's own cgroups held when it was marked.

use oomtrace_common::record::{self as wire, tasks_fact};

use crate::facts::{CgroupId, Decoder, LruFacts, TasksFacts};

/// `PIDS_MAX` of a 64-bit kernel: one more than there can be tasks.
const NO_LIMIT: u64 = (4 << 20) + 1;

/// The victim's threads, and the tasks of its cgroup.
pub(super) fn tasks(raw: &wire::Tasks) -> TasksFacts {
    let has = |bit| raw.present & bit != 0;
    let threads = has(tasks_fact::THREADS).then_some(raw.threads);
    if !has(tasks_fact::CGROUP) {
        return TasksFacts { threads, ..TasksFacts::default() };
    }
    let counted = has(tasks_fact::COUNTED);
    // Like the kernel's own files, which print no negative number for a count that is just being changed.
    let number = |bit, value: i64| (has(bit) && counted).then(|| u64::try_from(value).unwrap_or(0));
    TasksFacts {
        threads,
        cgroup: Some(CgroupId(raw.cgroup_id)),
        in_memory_hierarchy: has(tasks_fact::IN_MEMORY_HIERARCHY),
        in_root: !counted,
        count: number(tasks_fact::COUNT, raw.count),
        limit: number(tasks_fact::LIMIT, raw.limit)
            .map(|limit| Some(limit).filter(|limit| *limit < NO_LIMIT)),
        peak: number(tasks_fact::PEAK, raw.peak),
    }
}

impl Decoder {
    /// The LRU lists of a memory cgroup.
    pub(super) fn lru(&self, raw: &wire::Lru) -> Option<LruFacts> {
        (raw.present == 1).then(|| LruFacts {
            anon_bytes: self.counter(raw.anon_pages),
            file_bytes: self.counter(raw.file_pages),
            unevictable_bytes: self.counter(raw.unevictable_pages),
        })
    }
}
