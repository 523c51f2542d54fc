//! Compares the LRU lists of the victim's cgroup with the `memory.stat` in the kernel log.

use super::{Dies, Expected, Fields};
use crate::kernel_log::LoggedKill;

impl Expected {
    /// The log has the lists of the cgroup whose limit fired, with those below it: of the victim's own cgroup only if that is the
    /// same one. Between the log's line and the mark, pages that each processor keeps aside can get onto a list.
    pub(super) fn lru(&self, fields: &mut Fields<'_>, log: &LoggedKill) {
        let own = self.fired.as_ref().is_some_and(|fired| fired.place == self.cgroup);
        for (name, lists) in [
            ("anon", &["inactive_anon", "active_anon"][..]),
            ("file", &["inactive_file", "active_file"]),
            ("unevictable", &["unevictable"]),
        ] {
            let key = format!("victim.cgroup.lru.{name}_bytes");
            if !self.memory_cgroups {
                fields.absent(&key, "this kernel has", "none");
                continue;
            }
            let logged = lists.iter().map(|list| log.stats.get(*list).copied()).sum::<Option<u64>>();
            match logged.filter(|_| own) {
                Some(logged) => self.lists(fields, &key, logged.into(), (name == "anon").then_some(log)),
                None => fields.present(&key, "the kernel"),
            }
        }
    }

    /// Newer kernels may leave out the flush of these counters, above all when many cgroups run out at once. So for the anonymous pages
    /// the log's own line of the victim (`killed`) is a second witness: where they are more than the counters say, the counters are behind.
    fn lists(&self, fields: &mut Fields<'_>, key: &str, logged: i128, killed: Option<&LoggedKill>) {
        let page = i128::from(self.host.page_bytes);
        let aside = 64 * page * i128::from(self.host.processors);
        let told = fields.own_number(key).unwrap_or(-1);
        let least =
            if self.dies() == Dies::Here && !self.another_dies() { (logged - aside).max(0) } else { 0 };
        let rss = killed.map(|log| i128::from(log.killed.anon_kb) * 1024).filter(|rss| logged + aside < *rss);
        let is_near = |least: i128, truth: i128| (least..=truth + aside).contains(&told);
        let near = is_near(least, logged) || rss.is_some_and(|rss| is_near(rss - aside, rss));
        fields.number(key, "kernel log", if near && told % page == 0 { told } else { logged });
    }

    fn another_dies(&self) -> bool {
        self.fired.as_ref().is_some_and(|fired| fired.another_dies)
    }
}
