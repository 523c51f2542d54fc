//! Where the kernel counts the tasks of a cgroup.

use oomtrace_common::layout::ABSENT;

use super::{PIDS, Structures, element, value};

/// Offsets of the layout; see there.
#[derive(Clone, Copy)]
pub(super) struct Tasks {
    pub(super) css_set: u32,
    pub(super) css: u32,
    pub(super) counter: u32,
    pub(super) limit: u32,
    pub(super) watermark: u32,
}

impl Tasks {
    /// Nothing is read.
    pub(super) const NONE: Self =
        Self { css_set: ABSENT, css: ABSENT, counter: ABSENT, limit: ABSENT, watermark: ABSENT };
}

/// Where they are. A kernel can be built without this controller.
pub(super) fn of(s: &mut Structures<'_>) -> Tasks {
    if value(s.btf, PIDS).is_none() {
        s.lack(format!("css_set.subsys[{PIDS}]"));
        return Tasks::NONE;
    }
    let tasks = Tasks {
        css_set: element(s, "css_set", "subsys", PIDS),
        css: s.wanted("pids_cgroup", &["css"]),
        counter: s.wanted("pids_cgroup", &["counter"]),
        limit: s.wanted("pids_cgroup", &["limit"]),
        watermark: s.wanted("pids_cgroup", &["watermark"]),
    };
    // Without the place of either, the others would be read at a wrong place.
    if tasks.css_set == ABSENT || tasks.css == ABSENT { Tasks::NONE } else { tasks }
}
