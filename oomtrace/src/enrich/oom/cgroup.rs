//! A memory cgroup as an event has it: its facts and its place in a lineage in, in the words of
//! its version out, with a reason for each that is absent.

use crate::{
    enrich::{absent::Absent, oom::UNREAD},
    event::{Cgroup, CgroupVersion, MemoryEvents, OomCgroup, text_from_kernel},
    facts::{Limit, Lineage, MemcgFacts},
};

/// The path of the ancestor at `index`: the victim's without its last `index` names.
pub(super) fn path_of(lineage: &Lineage, index: usize) -> Option<Vec<u8>> {
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

/// Notes why a cgroup's facts are absent, all but its path and id.
pub fn nothing_read(key: &str, reason: &str, version: CgroupVersion, absent: &mut Absent) {
    let of_version: &[&str] = match version {
        CgroupVersion::V2 => &["swap_limit_bytes", "swap_usage_bytes", "oom_group"],
        CgroupVersion::V1 | CgroupVersion::Hybrid => &["memsw_limit_bytes", "memsw_usage_bytes"],
        CgroupVersion::None => &[],
    };
    for name in ["limit_bytes", "usage_bytes", "peak_bytes", "events"].iter().chain(of_version) {
        absent.because(&format!("{key}.{name}"), reason);
    }
}

/// A cgroup's facts in the words of its version; `key` is where they go.
pub fn cgroup_of(
    key: &str,
    lineage: &Lineage,
    index: usize,
    facts: &MemcgFacts,
    version: CgroupVersion,
    absent: &mut Absent,
) -> OomCgroup {
    let v2 = version == CgroupVersion::V2;
    let swap = if v2 { "swap" } else { "memsw" };
    let mut lacks = |name: &str, reason: &str| absent.because(&format!("{key}.{name}"), reason);
    let mut limit = |name: &str, limit: Option<Limit>| match limit {
        Some(Limit::Bytes(bytes)) => Some(bytes),
        Some(Limit::Unlimited) => {
            lacks(name, "max: no limit is set");
            None
        }
        None => {
            lacks(name, UNREAD);
            None
        }
    };
    let limit_bytes = limit("limit_bytes", facts.max);
    let swap_limit = limit(&format!("{swap}_limit_bytes"), facts.swap_max);
    let path = path_of(lineage, index).map(|path| text_from_kernel(&path));
    if path.is_none() {
        lacks("path", "deeper than what is read in the kernel");
    }
    let events = &facts.events;
    for (name, known) in [
        ("usage_bytes", facts.usage_bytes.is_some()),
        ("peak_bytes", facts.watermark_bytes.is_some()),
        (&format!("{swap}_usage_bytes"), facts.swap_usage_bytes.is_some()),
        ("oom_group", facts.oom_group.is_some() || !v2),
        ("events.low", events.low.is_some() || !v2),
        ("events.high", events.high.is_some() || !v2),
        ("events.max", events.max.is_some()),
        ("events.oom", events.oom.is_some()),
        ("events.oom_kill", events.oom_kill.is_some()),
        ("events.oom_group_kill", events.oom_group_kill.is_some() || !v2),
    ] {
        if !known {
            lacks(name, UNREAD);
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
