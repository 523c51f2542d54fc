//! Which cgroup counts the victim's tasks, and why a count is absent.

use super::*;
use oomtrace::enrich::enricher::{Enricher, Knowledge};
use oomtrace::event::{Cgroup, CgroupVersion, OomKill as Line, Tasks};
use oomtrace::facts::{CgroupId, TasksFacts};

fn line(tasks: TasksFacts) -> Line {
    let facts = OomKillFacts { tasks, ..hooked() };
    Enricher::new(Knowledge::none("test", CgroupVersion::V2)).oom_kill(&facts)
}

fn reason(line: &Line, key: &str) -> Option<Reason> {
    line.missing.iter().find(|absence| absence.key == key).map(|absence| absence.reason)
}

#[test]
fn the_cgroup_that_counts_is_named_if_it_is_another() {
    let own = hooked().tasks;
    let counted = |cgroup| Some(Tasks { count: Some(14), limit: Some(512), peak: Some(17), cgroup });
    let other = |path: Option<&str>, id: &str| {
        Some(Cgroup { path: path.map(str::to_owned), id: Some(id.to_owned()) })
    };
    assert_eq!(line(own).victim.cgroup.tasks, counted(None));
    let above = TasksFacts { cgroup: Some(CgroupId(20)), ..own };
    assert_eq!(line(above).victim.cgroup.tasks, counted(other(Some("/pod"), "20")));
    // In another hierarchy each of these ids is another cgroup's.
    for id in [30, 20, 77] {
        let elsewhere = TasksFacts { cgroup: Some(CgroupId(id)), in_memory_hierarchy: false, ..own };
        let line = line(elsewhere);
        assert_eq!(line.victim.cgroup.tasks, counted(other(None, &id.to_string())));
        assert_eq!(reason(&line, "victim.cgroup.tasks.cgroup.path"), Some(Reason::OtherHierarchy));
    }
}

#[test]
fn a_count_that_is_not_there_has_a_reason() {
    let own = hooked().tasks;
    let key = "victim.cgroup.tasks";
    let unread = line(TasksFacts { cgroup: None, ..own });
    assert_eq!((&unread.victim.cgroup.tasks, reason(&unread, key)), (&None, Some(Reason::NotReadInKernel)));
    let root = line(TasksFacts { in_root: true, ..own });
    assert_eq!((&root.victim.cgroup.tasks, reason(&root, key)), (&None, Some(Reason::RootCgroup)));
    for (tasks, key, why) in [
        (TasksFacts { limit: Some(None), ..own }, "victim.cgroup.tasks.limit", Reason::NoLimit),
        (TasksFacts { limit: None, ..own }, "victim.cgroup.tasks.limit", Reason::NotReadInKernel),
        (TasksFacts { peak: None, ..own }, "victim.cgroup.tasks.peak", Reason::NotReadInKernel),
        (TasksFacts { count: None, ..own }, "victim.cgroup.tasks.count", Reason::NotReadInKernel),
        (TasksFacts { threads: None, ..own }, "victim.threads", Reason::NotReadInKernel),
    ] {
        assert_eq!(reason(&line(tasks), key), Some(why), "{key}");
    }
    let no_lists = OomKillFacts { lru: None, ..hooked() };
    let line = Enricher::new(Knowledge::none("test", CgroupVersion::V2)).oom_kill(&no_lists);
    assert_eq!(reason(&line, "victim.cgroup.lru"), Some(Reason::NotReadInKernel));
}
