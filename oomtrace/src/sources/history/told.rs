//! The events of limits that come near and are far again.

use super::{History, before::floor_slope};
use crate::{
    enrich::enricher::Enricher,
    event::{Event, LimitFar, LimitNear, NearBecause, ToLimit},
    facts::CgroupId,
    history::{Track, near::Near},
};

/// What is to be told, in pages.
#[derive(Debug)]
pub(super) struct Told {
    cgroup: u64,
    limit: u64,
    usage: u64,
    unreclaimable: Option<u64>,
    what: What,
}

#[derive(Debug)]
enum What {
    Near(Near),
    /// For how long it was near, and whether it is gone.
    Far(u64, bool),
}

impl Told {
    pub(super) fn near(track: &Track, near: Near) -> Self {
        Self::of(track, What::Near(near))
    }

    pub(super) fn far(track: &Track) -> Self {
        Self::of(track, What::Far(track.last_ns.saturating_sub(track.told_ns), false))
    }

    pub(super) fn gone(track: &Track) -> Self {
        Self::of(track, What::Far(track.last_ns.saturating_sub(track.told_ns), true))
    }

    fn of(track: &Track, what: What) -> Self {
        let Track { cgroup, limit, usage, .. } = *track;
        Self { cgroup, limit, usage, unreclaimable: track.unreclaimable(), what }
    }

    pub(super) fn event(self, history: &History, enricher: &mut Enricher) -> Event {
        let envelope = enricher.own_envelope();
        let (cgroup, identity) = enricher.whose(CgroupId(self.cgroup));
        let limit_bytes = history.bytes(self.limit);
        let usage_bytes = history.bytes(self.usage);
        let unreclaimable_bytes = self.unreclaimable.map(|pages| history.bytes(pages));
        let (interval, page) = (history.tracks.interval_ns(), history.page_bytes);
        match self.what {
            What::Near(near) => {
                let (because, over_ns, slope, to_limit) = match near {
                    Near::Full => (NearBecause::Full, None, None, None),
                    Near::Rising { over_ns, slope, to_limit_ns: (min, max) } => {
                        (NearBecause::Rising, Some(over_ns), Some(slope), Some(ToLimit { min, max }))
                    }
                };
                Event::LimitNear(Box::new(LimitNear {
                    envelope,
                    because,
                    cgroup,
                    limit_bytes,
                    usage_bytes,
                    unreclaimable_bytes: unreclaimable_bytes.unwrap_or(usage_bytes),
                    over_ns,
                    floor_slope: slope.map(|slope| floor_slope(slope, interval, page)),
                    to_limit_ns: to_limit,
                    container: identity.container,
                    k8s: identity.k8s,
                    systemd: identity.systemd,
                    truncated: Vec::new(),
                    missing: identity.missing,
                }))
            }
            What::Far(near_ns, removed) => Event::LimitFar(Box::new(LimitFar {
                envelope,
                cgroup,
                limit_bytes: Some(limit_bytes).filter(|bytes| *bytes > 0),
                usage_bytes: Some(usage_bytes).filter(|_| !removed),
                unreclaimable_bytes: unreclaimable_bytes.filter(|_| !removed),
                near_ns,
                removed,
                container: identity.container,
                k8s: identity.k8s,
                systemd: identity.systemd,
                truncated: Vec::new(),
                missing: identity.missing,
            })),
        }
    }
}
