//! Which services have a `usage` event: those with a limit, once a day and at an orderly end. Their names are looked up one at a time, because
//! files of runtimes may be read for it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    enrich::enricher::Enricher,
    event::{Event, Owner, Usage, service},
    facts::CgroupId,
    history::Track,
};

/// Watched for less, nothing is told.
const WATCHED_MIN: u64 = 60;
/// A day, in intervals.
const DAY: u64 = 8640;

/// The services that are told next.
#[derive(Debug)]
pub(super) struct Services {
    interval_ns: u64,
    /// When they were told last, in ns since boot.
    last_ns: Option<u64>,
    /// Cgroups whose names are looked up.
    asked: VecDeque<u64>,
    /// By name.
    found: BTreeMap<String, Fullest>,
}

/// Of a service, the cgroup that came nearest to its limit.
#[derive(Clone, Debug)]
pub(super) struct Fullest {
    key: String,
    cgroup: u64,
    count: u64,
    limit: u64,
    peak: u64,
    floor: u64,
    watched_ns: u64,
}

/// What one step came to.
#[derive(Debug)]
pub(super) enum Step {
    Nothing,
    Looked,
    Told(Fullest),
}

impl Services {
    pub(super) fn new(interval: Duration) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self { interval_ns, last_ns: None, asked: VecDeque::new(), found: BTreeMap::new() }
    }

    /// After a walk: begins if a day is over.
    pub(super) fn take<'a>(&mut self, tracks: impl Iterator<Item = &'a Track>, now_ns: u64) {
        let last = *self.last_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(last) >= DAY.saturating_mul(self.interval_ns) {
            self.last_ns = Some(now_ns);
            self.begin(tracks);
        }
    }

    /// Begins with these.
    pub(super) fn begin<'a>(&mut self, tracks: impl Iterator<Item = &'a Track>) {
        let least = WATCHED_MIN.saturating_mul(self.interval_ns);
        let watched =
            |track: &&Track| track.limit > 0 && track.last_ns.saturating_sub(track.first_ns) >= least;
        self.asked = tracks.filter(watched).map(|track| track.cgroup).collect();
        self.found.clear();
    }

    /// One step.
    pub(super) fn next<'a>(
        &mut self,
        track: impl Fn(u64) -> Option<&'a Track>,
        enricher: &mut Enricher,
    ) -> Step {
        if let Some(cgroup) = self.asked.pop_front() {
            if let Some(track) = track(cgroup) {
                let (place, identity) = enricher.whose(CgroupId(cgroup));
                let owner =
                    Owner::new(identity.container.as_ref(), identity.k8s.as_ref(), identity.systemd.as_ref());
                if let Some(key) = service(owner, place.path.as_deref()) {
                    self.add(key, track);
                }
            }
            return Step::Looked;
        }
        self.found.pop_first().map_or(Step::Nothing, |(_, fullest)| Step::Told(fullest))
    }

    fn add(&mut self, key: String, track: &Track) {
        // The kernel's own count is of the cgroup's whole life.
        let peak = if track.is(Track::FROM_START) { track.peak } else { 0 };
        let new = Fullest {
            key: key.clone(),
            cgroup: track.cgroup,
            count: 1,
            limit: track.limit,
            peak: peak.max(track.highest).max(track.unseen),
            floor: track.lowest,
            watched_ns: track.last_ns.saturating_sub(track.first_ns),
        };
        let there = self.found.entry(key).or_insert_with(|| Fullest { count: 0, ..new.clone() });
        let count = there.count + 1;
        if new.share() > there.share() {
            *there = new;
        }
        there.count = count;
    }
}

impl Fullest {
    /// How much of its limit it used, in millionths.
    fn share(&self) -> u128 {
        u128::from(self.peak) * 1_000_000 / u128::from(self.limit.max(1))
    }

    pub(super) fn event(self, page_bytes: u64, enricher: &mut Enricher) -> Event {
        let envelope = enricher.own_envelope();
        let (cgroup, identity) = enricher.whose(CgroupId(self.cgroup));
        let bytes = |pages: u64| pages.saturating_mul(page_bytes);
        Event::Usage(Box::new(Usage {
            envelope,
            key: self.key,
            cgroup,
            cgroup_count: self.count,
            limit_bytes: bytes(self.limit),
            peak_bytes: bytes(self.peak),
            floor_bytes: bytes(self.floor),
            watched_ns: self.watched_ns,
            container: identity.container,
            k8s: identity.k8s,
            systemd: identity.systemd,
            truncated: Vec::new(),
            missing: identity.missing,
        }))
    }
}
