//! The flight recorder: takes walks over the memory cgroups, and keeps how the usage of each container, unit and limited cgroup
//! went. An `incident` event gets from it how the kill came about; `limit_near`, `limit_far` and `usage` events are its own.
//!
//! - `sampled`: the part of a usage that cannot be reclaimed, and when the next sample is due.
//! - `before`: what an incident says of the time before.
//! - `told`: the events.
//! - `usage`: which services have a `usage` event.
//! - `kept`: what stays for the next run.

mod before;
mod kept;
mod sampled;
mod told;
mod usage;

use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

pub use before::Snapshot;
pub use kept::Kept;
use sampled::{Pace, Subtrees};
use told::Told;
use usage::Services;

use crate::{
    accounting::Account,
    cgroups::tree::CgroupTree,
    enrich::enricher::Enricher,
    event::{Lifetimes, OomKill, Owner, Recurrence, service},
    facts::{CgroupId, Limit, SampleFacts},
    history::{
        Found, Sampled, Standing, Track, Tracks,
        near::{News, news},
        recurrence::Recurrences,
    },
    sources::{
        Next,
        probe::WalkError,
        sampling::{Consumer, Walk},
    },
};

/// The usual time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How many cgroups are kept, if the operator does not say.
pub const CGROUPS: usize = 1024;
/// Cgroups without a track that are remembered, so that their paths are not looked up in each walk.
const OTHERS_MAX: usize = 8192;
/// New ones whose paths are looked up in a walk; the others are looked up in the next one.
const LOOKED_UP: u32 = 512;
/// Limits that are judged in a walk: it takes about 50 µs each.
const JUDGED: usize = 16;
/// Events that wait while the output takes no lines. Limits are judged again when there is room, so none is lost.
const TOLD_MAX: usize = 1024;

/// How the memory of all cgroups went.
pub struct History {
    tracks: Tracks,
    recurrences: Recurrences,
    kept: Option<Kept>,
    page_bytes: u64,
    subtrees: Subtrees,
    pace: Pace,
    /// Cgroups without a track.
    others: HashSet<u64>,
    /// The last whole walk began at this time, in ns since boot, and each cgroup that should have a track got one.
    walked: Option<(u64, bool)>,
    /// The cgroup after which limits are judged next.
    judged: u64,
    /// What is to be told.
    told: VecDeque<Told>,
    services: Services,
    /// The last run of the killer that was counted.
    last_run: Option<(Option<String>, u64)>,
    due: Instant,
}

/// Shared with the source of incidents.
pub type Shared = Rc<RefCell<History>>;

impl History {
    /// Of at most so many cgroups, one sample each `interval`.
    pub fn new(cgroups: usize, interval: Duration, page_bytes: u64) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            tracks: Tracks::new(cgroups, interval_ns),
            recurrences: Recurrences::default(),
            kept: None,
            page_bytes: page_bytes.max(1),
            subtrees: Subtrees::default(),
            pace: Pace::new(interval),
            others: HashSet::new(),
            walked: None,
            judged: 0,
            told: VecDeque::new(),
            services: Services::new(interval),
            last_run: None,
            due: Instant::now(),
        }
    }

    /// Goes on with what an earlier run kept, and keeps it for the next one.
    pub fn go_on(&mut self, kept: Kept, now_ns: u64) {
        kept.tracks().for_each(|track| self.tracks.go_on(track, now_ns));
        kept.kills().for_each(|kills| self.recurrences.go_on(kills, now_ns));
        self.kept = Some(kept);
    }

    /// What is known of a kill's past, and how often it happened; nothing for a further kill of the same run.
    pub fn killed(
        &mut self,
        kill: &OomKill,
        enricher: &Enricher,
    ) -> (Option<Box<Snapshot>>, Option<Recurrence>) {
        let run = (kill.envelope.stream.clone(), kill.run());
        if self.last_run.as_ref() == Some(&run) {
            return (None, None);
        }
        self.last_run = Some(run);
        let victim = enricher.last_victim();
        let snapshot = Snapshot::of(kill, victim.marked.0, self, enricher.tree());
        let owner = Owner::new(kill.container.as_ref(), kill.k8s.as_ref(), kill.systemd.as_ref());
        let key = service(owner, kill.victim.cgroup.path.as_deref());
        let recurrence = key.map(|key| {
            let lived = victim.start.map(|start| victim.marked.0.saturating_sub(start.0));
            let (place, kills) = self.recurrences.add(&key, victim.marked.0, lived);
            if let Some(kept) = &mut self.kept {
                kept.keep_kills(place, &kills);
            }
            let lifetime_ns = kills.lifetimes_ns();
            Recurrence {
                key,
                kills: kills.kills,
                since: enricher.text_of(crate::facts::BootTime(kills.since_ns)),
                lifetime_ns: lifetime_ns.map(|(min, median, max)| Lifetimes { min, median, max }),
            }
        });
        (Some(Box::new(snapshot)), recurrence)
    }

    /// Whether a cgroup was made after the last walk, so that there are no samples because it is so new.
    fn is_new(&self, cgroup: u64, at_ns: u64, tree: &CgroupTree) -> bool {
        // The longest time between two walks, and time for one that is late.
        let late = 12 * self.tracks.interval_ns();
        let recent = self.walked.is_some_and(|(began, all)| all && at_ns.saturating_sub(began) < late);
        recent && tree.was_seen_made(CgroupId(cgroup)) && !self.others.contains(&cgroup)
    }

    fn pages(&self, bytes: u64) -> u64 {
        bytes / self.page_bytes
    }

    fn bytes(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_bytes)
    }

    /// The track of a cgroup, if it has or should have one.
    fn track(&mut self, facts: &SampleFacts, looked_up: &mut u32, tree: &CgroupTree) -> Option<Found> {
        let found = self.tracks.find(facts.id.0);
        if found.is_some() || facts.parent.is_none() {
            return found;
        }
        let is_limited = matches!(facts.max, Some(Limit::Bytes(_)));
        if !is_limited && self.others.contains(&facts.id.0) || *looked_up == 0 {
            return None;
        }
        *looked_up -= 1;
        let place = tree.place_of(facts.id)?;
        let standing = match (place.is_owned, place.is_named) {
            (true, true) => Standing::Owned,
            (true, false) if is_limited => Standing::Owned,
            (false, true) => Standing::Host,
            (false, false) if is_limited => Standing::Limited,
            _ => {
                if self.others.len() < OTHERS_MAX {
                    self.others.insert(facts.id.0);
                }
                return None;
            }
        };
        let from_start = matches!(self.walked, Some((_, true)))
            && tree.was_seen_made(facts.id)
            && !self.others.remove(&facts.id.0);
        self.tracks.make(facts.id.0, standing, from_start)
    }

    fn walk(&mut self, walk: &Walk<'_>, tree: &CgroupTree) {
        let mut looked_up = LOOKED_UP;
        self.tracks.begin(walk.ended.0);
        let mut subtrees = std::mem::take(&mut self.subtrees);
        for facts in walk.cgroups() {
            let found =
                if facts.removed == Some(true) { None } else { self.track(&facts, &mut looked_up, tree) };
            subtrees.add(&facts, found, &mut |found, usage, file| self.sample(found, usage, file));
        }
        subtrees.end(&mut |found, usage, file| self.sample(found, usage, file));
        self.subtrees = subtrees;
        let told = &mut self.told;
        let all = self.tracks.end(&mut |track| {
            if track.is(Track::NEAR) {
                told.push_back(Told::gone(track));
            }
        });
        self.walked = Some((walk.began.0, all && looked_up > 0));
        if self.others.len() >= OTHERS_MAX {
            self.others.clear();
        }
        self.judge();
        if let Some(kept) = &mut self.kept {
            self.tracks.keep(|place, track| kept.keep_track(place, track));
        }
        self.due = Instant::now() + self.pace.next(self.tracks.live());
        self.services.take(self.tracks.live(), walk.ended.0);
    }

    fn sample(&mut self, found: Found, facts: &SampleFacts, file: Option<u64>) {
        let Some(usage) = facts.usage_bytes else { return };
        let limit = match facts.max {
            Some(Limit::Bytes(bytes)) => Some(self.pages(bytes)),
            _ => None,
        };
        let sampled = Sampled {
            usage: self.pages(usage),
            unreclaimable: file.map(|file| self.pages(usage.saturating_sub(file))),
            peak: facts.peak_bytes.map(|bytes| self.pages(bytes)),
            limit,
        };
        self.tracks.push(found, sampled);
    }

    /// Judges the limits that may be near, some in each walk.
    fn judge(&mut self) {
        if self.told.len() >= TOLD_MAX {
            return;
        }
        let interval = self.tracks.interval_ns();
        let is_asked = |track: &&Track| {
            let near =
                track.unreclaimable().is_some_and(|pages| pages / 9 >= track.limit / 10 && track.limit > 0);
            near || track.is(Track::NEAR)
        };
        let mut asked: Vec<u64> = self.tracks.live().filter(is_asked).map(|track| track.cgroup).collect();
        asked.sort_unstable();
        let after = asked.partition_point(|cgroup| *cgroup <= self.judged);
        asked.rotate_left(after);
        for cgroup in asked.into_iter().take(JUDGED) {
            self.judged = cgroup;
            let Some(track) = self.tracks.find(cgroup).and_then(|found| self.tracks.get_mut(found)) else {
                continue;
            };
            match news(track, interval) {
                Some(News::Near(near)) => self.told.push_back(Told::near(track, near)),
                Some(News::Far) => self.told.push_back(Told::far(track)),
                None => {}
            }
        }
    }
}

/// Takes the walks.
pub struct Recording(Shared);

impl Recording {
    /// For this history.
    pub fn new(history: &Shared) -> Self {
        Self(Rc::clone(history))
    }
}

impl Consumer for Recording {
    fn due(&self) -> Option<Instant> {
        Some(self.0.borrow().due)
    }

    fn take(&mut self, walk: &Walk<'_>, enricher: &mut Enricher, _: &mut Account) {
        self.0.borrow_mut().walk(walk, enricher.tree());
    }

    fn failed(&mut self, _: &WalkError, _: &mut Enricher, _: &mut Account) {
        let mut history = self.0.borrow_mut();
        history.walked = None;
        history.due = Instant::now() + history.pace.rest();
    }

    fn next(&mut self, enricher: &mut Enricher, _: &mut Account) -> Next {
        let history = &mut *self.0.borrow_mut();
        if let Some(told) = history.told.pop_front() {
            return Next::Event(told.event(history, enricher));
        }
        let track = |cgroup| history.tracks.find(cgroup).and_then(|found| history.tracks.get(found));
        match history.services.next(track, enricher) {
            usage::Step::Nothing => Next::Nothing,
            usage::Step::Looked => Next::Silent,
            usage::Step::Told(service) => Next::Event(service.event(history.page_bytes, enricher)),
        }
    }

    fn ending(&mut self) {
        let history = &mut *self.0.borrow_mut();
        history.services.begin(history.tracks.live());
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("tracks", &self.tracks.live().count()).finish_non_exhaustive()
    }
}
