//! Finds the cgroups with kills that were not reported. Compares the cgroups' own counters with what was
//! reported. Pure.
//!
//! It never guesses. A kill that may belong to a cgroup (a lost kill, the second pass of a group kill) is
//! counted as reported there. A cgroup whose counter is not known from the start is left out.

use std::collections::HashMap;

use crate::{
    accounting::cgroup_counts::Counts,
    event::GapCgroup,
    facts::{BootTime, CgroupId, Lineage},
};

/// The most cgroups that are named.
const NAMED: usize = 16;
/// The most cgroups whose kills are counted separately.
const KEPT: usize = 4096;
/// With more cgroups than this, counting starts anew.
const MANY: usize = 1024;

/// How many kills were reported in each cgroup.
#[derive(Clone, Debug)]
pub struct KillsByCgroup {
    /// cgroup v2: a count includes the cgroups below, and only the topmost cgroups are compared. On v1 each
    /// cgroup has its own.
    hierarchical: bool,
    since: BootTime,
    of: HashMap<CgroupId, u64>,
    /// Kills in a cgroup that is not known or not counted separately.
    elsewhere: u64,
}

impl KillsByCgroup {
    /// Starts at zero. Kills up to `since` do not count.
    pub fn new(hierarchical: bool, since: BootTime) -> Self {
        Self { hierarchical, since, of: HashMap::new(), elsewhere: 0 }
    }

    /// Starts anew.
    pub fn restart(&mut self, since: BootTime) {
        *self = Self::new(self.hierarchical, since);
    }

    /// Counts a reported kill.
    pub fn saw(&mut self, lineage: &Lineage, time: BootTime) {
        if time <= self.since {
            return;
        }
        let cgroup = match (self.hierarchical, lineage.levels_cut) {
            (true, true) => None,
            // The last one is the root, which has no count.
            (true, false) => lineage.levels.iter().rev().nth(1),
            (false, _) => lineage.levels.first(),
        };
        match cgroup {
            Some(level) if self.of.len() < KEPT || self.of.contains_key(&level.id) => {
                *self.of.entry(level.id).or_default() += 1;
            }
            None if self.hierarchical && lineage.levels.len() == 1 => {}
            _ => self.elsewhere += 1,
        }
    }

    /// Counts a kill whose record could not be read.
    pub fn saw_unreadable(&mut self) {
        self.elsewhere += 1;
    }

    /// Whether a new start would give better answers: some kills have no known cgroup, or there are very many
    /// cgroups.
    pub fn is_vague(&self) -> bool {
        self.elsewhere > 0 || self.of.len() > MANY
    }

    /// The cgroups whose counts grew from `before` to `after` by more than was reported in them plus
    /// `unplaced`. The largest difference comes first.
    pub fn unreported(&self, before: &Counts, after: &Counts, unplaced: u64) -> Vec<GapCgroup> {
        let unplaced = unplaced.saturating_add(self.elsewhere);
        let mut found: Vec<GapCgroup> = after
            .of
            .iter()
            .filter_map(|(id, (path, count))| {
                let began = match before.of.get(id) {
                    Some((_, count)) => *count,
                    None if before.whole => 0,
                    None => return None,
                };
                let kernel_kills = count.checked_sub(began)?;
                let reported = self.of.get(id).copied().unwrap_or(0);
                (kernel_kills > reported.saturating_add(unplaced)).then(|| GapCgroup {
                    path: path.clone(),
                    kernel_kills,
                    reported,
                })
            })
            .collect();
        found.sort_by_key(|cgroup| std::cmp::Reverse(cgroup.kernel_kills - cgroup.reported));
        found.truncate(NAMED);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::MemoryEvents, facts::MemcgFacts};

    const LATER: BootTime = BootTime(9);

    fn lineage(ids: &[u64]) -> Lineage {
        Lineage { levels: ids.iter().copied().map(level).collect(), ..Lineage::default() }
    }

    fn level(id: u64) -> MemcgFacts {
        MemcgFacts {
            id: CgroupId(id),
            usage_bytes: None,
            max: None,
            watermark_bytes: None,
            swap_usage_bytes: None,
            swap_max: None,
            oom_group: None,
            events: MemoryEvents::default(),
        }
    }

    fn counts(of: &[(u64, u64)]) -> Counts {
        let of = of.iter().map(|(id, count)| (CgroupId(*id), (format!("/{id}"), *count))).collect();
        Counts { of, whole: true }
    }

    fn named(found: &[GapCgroup]) -> Vec<(&str, u64, u64)> {
        found.iter().map(|cgroup| (cgroup.path.as_str(), cgroup.kernel_kills, cgroup.reported)).collect()
    }

    #[test]
    fn the_cgroups_that_killed_more_than_was_reported_are_named_the_most_first() {
        let mut kills = KillsByCgroup::new(false, BootTime(5));
        kills.saw(&lineage(&[7, 1]), LATER);
        let found =
            kills.unreported(&counts(&[(7, 10), (8, 3), (9, 4)]), &counts(&[(7, 12), (8, 3), (9, 8)]), 0);
        assert_eq!(named(&found), [("/9", 4, 0), ("/7", 2, 1)]);
    }

    #[test]
    fn what_was_reported_of_an_earlier_time_does_not_count() {
        let mut kills = KillsByCgroup::new(false, BootTime(5));
        kills.saw(&lineage(&[7, 1]), BootTime(5));
        assert_eq!(named(&kills.unreported(&counts(&[(7, 0)]), &counts(&[(7, 1)]), 0)), [("/7", 1, 0)]);
    }

    #[test]
    fn on_v2_a_kill_belongs_to_the_topmost_cgroup() {
        let mut kills = KillsByCgroup::new(true, BootTime(5));
        kills.saw(&lineage(&[30, 20, 10, 1]), LATER);
        kills.saw(&lineage(&[10, 1]), LATER);
        // In the root, whose kills no cgroup counts.
        kills.saw(&lineage(&[1]), LATER);
        assert_eq!(named(&kills.unreported(&counts(&[(10, 0)]), &counts(&[(10, 2)]), 0)), []);
        assert_eq!(named(&kills.unreported(&counts(&[(10, 0)]), &counts(&[(10, 3)]), 0)), [("/10", 3, 2)]);
    }

    #[test]
    fn what_may_have_been_there_is_taken_to_have_been() {
        let mut kills = KillsByCgroup::new(false, BootTime(5));
        assert_eq!(named(&kills.unreported(&counts(&[]), &counts(&[(7, 2)]), 2)), []);
        kills.saw_unreadable();
        assert_eq!(named(&kills.unreported(&counts(&[]), &counts(&[(7, 1)]), 0)), []);
        assert_eq!(named(&kills.unreported(&counts(&[]), &counts(&[(7, 2)]), 0)), [("/7", 2, 0)]);
    }

    #[test]
    fn a_count_that_is_not_known_from_the_start_says_nothing() {
        let kills = KillsByCgroup::new(false, BootTime(5));
        let part = Counts { whole: false, ..counts(&[(7, 1)]) };
        let found = kills.unreported(&part, &counts(&[(7, 2), (8, 5)]), 0);
        assert_eq!(named(&found), [("/7", 1, 0)]);
        // The counter fell, so this is another cgroup.
        assert_eq!(named(&kills.unreported(&counts(&[(7, 9)]), &counts(&[(7, 2)]), 0)), []);
    }
}
