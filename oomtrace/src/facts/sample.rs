//! What a walk over the tree of memory cgroups has found.

use std::collections::HashSet;

use oomtrace_common::record::sample::{CSS_DYING, Sample, sample_fact};

use crate::facts::{CgroupId, Decoder, Limit, LruFacts};

/// One memory cgroup at the time of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleFacts {
    /// Its id.
    pub id: CgroupId,
    /// The cgroup above it; `None` for the root.
    pub parent: Option<CgroupId>,
    /// It was removed, and is there only because of the memory that it still holds. `None` if this kernel does not say so.
    pub removed: Option<bool>,
    /// `memory.current`.
    pub usage_bytes: Option<u64>,
    /// `memory.max`.
    pub max: Option<Limit>,
    /// `memory.peak`.
    pub peak_bytes: Option<u64>,
    /// `memory.swap.current` on v2, `memory.memsw.usage_in_bytes` on v1.
    pub swap_bytes: Option<u64>,
    /// How often an allocation was about to go over the limit.
    pub max_events: Option<u64>,
    /// Processes killed in it.
    pub oom_kills: Option<u64>,
    /// Its LRU lists, without those of the cgroups below it.
    pub lru: Option<LruFacts>,
}

/// Removed cgroups that still hold memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many there are.
    pub cgroups: u64,
    /// What they hold together. One that is below another removed one is in that one's usage.
    pub bytes: u64,
}

impl Decoder {
    /// The facts of a sample.
    pub fn sample(&self, raw: &Sample) -> SampleFacts {
        let has = |bit| raw.present & bit != 0;
        let pages = |bit, pages: u64| has(bit).then(|| self.pages(pages));
        SampleFacts {
            id: CgroupId(raw.cgroup_id),
            parent: (raw.parent_id != 0).then_some(CgroupId(raw.parent_id)),
            removed: has(sample_fact::FLAGS).then_some(raw.flags & CSS_DYING != 0),
            usage_bytes: pages(sample_fact::USAGE, raw.usage_pages),
            max: has(sample_fact::MAX).then(|| self.limit(raw.max_pages)),
            peak_bytes: pages(sample_fact::PEAK, raw.peak_pages),
            swap_bytes: pages(sample_fact::SWAP, raw.swap_pages),
            max_events: has(sample_fact::MAX_EVENTS).then_some(raw.max_events),
            oom_kills: has(sample_fact::OOM_KILLS).then_some(raw.oom_kills),
            lru: self.lru(&raw.lru),
        }
    }
}

/// The removed ones of these; `None` if this kernel does not say which are.
pub fn removed(samples: impl Iterator<Item = SampleFacts> + Clone) -> Option<Removed> {
    if samples.clone().any(|sample| sample.removed.is_none() || sample.usage_bytes.is_none()) {
        return None;
    }
    let gone: HashSet<u64> =
        samples.clone().filter(|sample| sample.removed == Some(true)).map(|sample| sample.id.0).collect();
    let holding = samples.filter(|sample| gone.contains(&sample.id.0) && sample.usage_bytes != Some(0));
    let topmost =
        holding.clone().filter(|sample| sample.parent.is_none_or(|parent| !gone.contains(&parent.0)));
    let bytes = topmost.filter_map(|sample| sample.usage_bytes).fold(0u64, u64::saturating_add);
    Some(Removed { cgroups: u64::try_from(holding.count()).unwrap_or(u64::MAX), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: u64, parent: u64, removed: bool, usage: u64) -> SampleFacts {
        SampleFacts {
            id: CgroupId(id),
            parent: (parent != 0).then_some(CgroupId(parent)),
            removed: Some(removed),
            usage_bytes: Some(usage),
            max: None,
            peak_bytes: None,
            swap_bytes: None,
            max_events: None,
            oom_kills: None,
            lru: None,
        }
    }

    #[test]
    fn what_a_removed_cgroup_holds_is_counted_once() {
        let mut samples = [
            sample(1, 0, false, 9000),
            sample(2, 1, true, 700),
            sample(3, 2, true, 300),
            sample(4, 1, false, 1000),
            sample(5, 4, true, 20),
            sample(6, 4, true, 0),
        ];
        assert_eq!(removed(samples.iter().copied()), Some(Removed { cgroups: 3, bytes: 720 }));
        if let Some(first) = samples.first_mut() {
            first.removed = None;
        }
        assert_eq!(removed(samples.iter().copied()), None);
    }
}
