//! A memory cgroup in an event: turns its facts into the keys of its cgroup version, with a reason for each
//! absent one.

use crate::{
    enrich::{absent::Absent, keys::CgroupKeys, oom::UNREAD},
    event::{Cgroup, CgroupVersion, MemoryEvents, OomCgroup, Reason, text_from_kernel},
    facts::{Limit, Lineage},
};

/// The path of the ancestor at `index`: the victim's without its last `index` names.
pub(in crate::enrich) fn path_of(lineage: &Lineage, index: usize) -> Option<Vec<u8>> {
    if lineage.path_cut {
        return None;
    }
    let names: Vec<&[u8]> =
        lineage.path.split(|byte| *byte == b'/').skip(1).filter(|name| !name.is_empty()).collect();
    let kept = names.len().checked_sub(index)?;
    let mut path = Vec::with_capacity(lineage.path.len());
    for name in names.iter().take(kept) {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Some(path)
}

/// Adds why a cgroup's facts are absent, except its path and id.
pub fn nothing_read(keys: &CgroupKeys, reason: Reason, version: CgroupVersion, absent: &mut Absent) {
    for key in [keys.limit_bytes, keys.usage_bytes, keys.peak_bytes, keys.events] {
        absent.because(key, reason);
    }
    let of_version: &[&'static str] = match version {
        CgroupVersion::V2 => &[keys.swap_limit_bytes, keys.swap_usage_bytes, keys.oom_group],
        CgroupVersion::V1 | CgroupVersion::Hybrid => &[keys.memsw_limit_bytes, keys.memsw_usage_bytes],
        CgroupVersion::None => &[],
    };
    for key in of_version {
        absent.because(key, reason);
    }
}

/// The facts of the cgroup at `index`, in the keys of its cgroup version. `keys` says where they go.
pub fn cgroup_of(
    keys: &CgroupKeys,
    lineage: &Lineage,
    index: usize,
    version: CgroupVersion,
    absent: &mut Absent,
) -> OomCgroup {
    let Some(facts) = lineage.levels.get(index) else {
        absent.because(keys.path, UNREAD);
        nothing_read(keys, UNREAD, version, absent);
        return OomCgroup::default();
    };
    let v2 = version == CgroupVersion::V2;
    let mut limit = |key: &'static str, limit: Option<Limit>| match limit {
        Some(Limit::Bytes(bytes)) => Some(bytes),
        Some(Limit::Unlimited) => absent.unless(None, key, Reason::NoLimit),
        None => absent.unless(None, key, UNREAD),
    };
    let limit_bytes = limit(keys.limit_bytes, facts.max);
    let swap_limit_key = if v2 { keys.swap_limit_bytes } else { keys.memsw_limit_bytes };
    let swap_limit = limit(swap_limit_key, facts.swap_max);
    let path = path_of(lineage, index).map(|path| text_from_kernel(&path));
    absent.unless(path.as_ref(), keys.path, Reason::TooDeep);
    let events = &facts.events;
    for (key, known) in [
        (keys.usage_bytes, facts.usage_bytes.is_some()),
        (keys.peak_bytes, facts.watermark_bytes.is_some()),
        (if v2 { keys.swap_usage_bytes } else { keys.memsw_usage_bytes }, facts.swap_usage_bytes.is_some()),
        (keys.oom_group, facts.oom_group.is_some() || !v2),
        (keys.events_low, events.low.is_some() || !v2),
        (keys.events_high, events.high.is_some() || !v2),
        (keys.events_max, events.max.is_some()),
        (keys.events_oom, events.oom.is_some()),
        (keys.events_oom_kill, events.oom_kill.is_some()),
        (keys.events_oom_group_kill, events.oom_group_kill.is_some() || !v2),
    ] {
        if !known {
            absent.because(key, UNREAD);
        }
    }
    let events = if v2 {
        events.clone()
    } else {
        MemoryEvents { low: None, high: None, oom_group_kill: None, ..events.clone() }
    };
    OomCgroup {
        cgroup: Cgroup { path, id: Some(facts.id.to_string()) },
        limit_bytes,
        usage_bytes: facts.usage_bytes,
        peak_bytes: facts.watermark_bytes,
        swap_limit_bytes: swap_limit.filter(|_| v2),
        swap_usage_bytes: facts.swap_usage_bytes.filter(|_| v2),
        memsw_limit_bytes: swap_limit.filter(|_| !v2),
        memsw_usage_bytes: facts.swap_usage_bytes.filter(|_| !v2),
        oom_group: facts.oom_group.filter(|_| v2),
        events: Some(events).filter(|events| *events != MemoryEvents::default()),
    }
}
