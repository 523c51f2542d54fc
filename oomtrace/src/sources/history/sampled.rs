//! The part of a usage that cannot be reclaimed, and when the next sample is due. Pure.

use std::time::Duration;

use crate::{
    facts::{CgroupId, SampleFacts},
    history::{Found, Track},
};

/// How much of its limit a cgroup uses: below this it is idle, from the other on a rise is followed closely.
const IDLE: f64 = 0.5;
const CLOSE: f64 = 0.85;
/// A rise of this part of the limit since the last sample is one.
const RISE: f64 = 0.001;
/// The most that are followed closely.
const CLOSE_MAX: usize = 16;

/// Adds up the page cache of each cgroup and of those below it. The lists of the kernel have only that of the cgroup itself.
#[derive(Debug, Default)]
pub(super) struct Subtrees {
    /// From the root to the cgroup that was added last.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    facts: SampleFacts,
    found: Option<Found>,
    /// Page cache, so far; `None` if that of one is not known.
    file: Option<u64>,
}

impl Subtrees {
    /// Adds the next cgroup of a walk, in which each comes before those below it. Passes on those that are complete.
    pub(super) fn add(
        &mut self,
        facts: &SampleFacts,
        found: Option<Found>,
        take: &mut impl FnMut(Found, &SampleFacts, Option<u64>),
    ) {
        while self.open.last().is_some_and(|open| Some(open.facts.id) != facts.parent) {
            self.close(take);
        }
        let file = facts.lru.as_ref().map(|lru| lru.file_bytes);
        self.open.push(Open { facts: *facts, found, file });
    }

    /// There are no more.
    pub(super) fn end(&mut self, take: &mut impl FnMut(Found, &SampleFacts, Option<u64>)) {
        while !self.open.is_empty() {
            self.close(take);
        }
    }

    fn close(&mut self, take: &mut impl FnMut(Found, &SampleFacts, Option<u64>)) {
        let Some(done) = self.open.pop() else { return };
        if let Some(above) = self.open.last_mut() {
            above.file = above.file.zip(done.file).map(|(above, below)| above.saturating_add(below));
        }
        if let Some(found) = done.found {
            take(found, &done.facts, done.file);
        }
    }
}

/// How long until the next sample.
#[derive(Debug)]
pub(super) struct Pace {
    usual: Duration,
    /// Those that are followed closely: their ids, and what could not be reclaimed.
    close: Vec<(CgroupId, u64)>,
}

impl Pace {
    pub(super) fn new(usual: Duration) -> Self {
        Self { usual, close: Vec::new() }
    }

    /// If a walk failed.
    pub(super) fn rest(&self) -> Duration {
        self.usual
    }

    /// A minute if all are idle; a second if one is near its limit and rises.
    pub(super) fn next<'a>(&mut self, tracks: impl Iterator<Item = &'a Track>) -> Duration {
        let mut idle = true;
        let mut close = Vec::new();
        let mut rises = false;
        for track in tracks.filter(|track| track.limit > 0) {
            let share = |pages: u64| pages as f64 / track.limit as f64;
            idle &= share(track.usage) < IDLE;
            let Some(now) = track.unreclaimable().filter(|pages| share(*pages) >= CLOSE) else { continue };
            let id = CgroupId(track.cgroup);
            let before = self.close.iter().find(|(known, _)| *known == id).map(|(_, before)| *before);
            rises |= before.is_none_or(|before| share(now) - share(before) > RISE);
            if close.len() < CLOSE_MAX {
                close.push((id, now));
            }
        }
        self.close = close;
        match (idle, rises) {
            (true, _) => self.usual * 6,
            (false, true) => self.usual / 10,
            (false, false) => self.usual,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        facts::LruFacts,
        history::{Sampled, Standing, Tracks},
    };

    fn facts(id: u64, parent: u64, file: Option<u64>) -> SampleFacts {
        SampleFacts {
            id: CgroupId(id),
            parent: (parent > 0).then_some(CgroupId(parent)),
            removed: Some(false),
            usage_bytes: Some(1000),
            max: None,
            peak_bytes: None,
            swap_bytes: None,
            max_events: None,
            oom_kills: None,
            lru: file.map(|file_bytes| LruFacts { anon_bytes: 0, file_bytes, unevictable_bytes: 0 }),
        }
    }

    #[test]
    fn page_cache_below_a_cgroup_is_its_own_too() {
        let mut tracks = Tracks::new(8, 10);
        let mut subtrees = Subtrees::default();
        let mut sums = Vec::new();
        let mut take = |_: Found, facts: &SampleFacts, file: Option<u64>| sums.push((facts.id.0, file));
        for (id, parent, file) in [
            (1, 0, Some(0)),
            (2, 1, Some(5)),
            (3, 2, Some(10)),
            (4, 3, Some(20)),
            (5, 2, Some(40)),
            (6, 1, None),
        ] {
            subtrees.add(&facts(id, parent, file), tracks.make(id, Standing::Host, false), &mut take);
        }
        subtrees.end(&mut take);
        sums.sort_unstable();
        assert_eq!(sums, [(1, None), (2, Some(75)), (3, Some(30)), (4, Some(20)), (5, Some(40)), (6, None)]);
    }

    #[test]
    fn samples_are_rare_while_all_are_idle_and_frequent_while_one_rises_near_its_limit() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(10 * second);
        let mut tracks = Tracks::new(8, 10);
        let mut next = |now: u64, usage: u64, unreclaimable: u64| {
            tracks.begin(now);
            let found = tracks.find(1).or_else(|| tracks.make(1, Standing::Host, false)).unwrap();
            let sampled =
                Sampled { usage, unreclaimable: Some(unreclaimable), peak: None, limit: Some(1000) };
            tracks.push(found, sampled);
            pace.next(tracks.live())
        };
        assert_eq!(next(10, 400, 300), 60 * second);
        assert_eq!(next(20, 1000, 300), 10 * second, "page cache");
        assert_eq!(next(30, 1000, 860), second);
        assert_eq!(next(40, 1000, 870), second);
        assert_eq!(next(50, 1000, 870), 10 * second, "it does not rise");
        assert_eq!(Pace::new(10 * second).next([].into_iter()), 60 * second);
    }
}
