//! Who uses the host's memory, from a walk over all cgroups. Pure.
//!
//! The tree is divided, so that nothing counts twice and nothing is left out:
//!
//! - The topmost cgroup of an owner (a container, a service, a scope, a user) stands for all below it, and so does a removed one.
//! - A cgroup that has no owner and none below it stands for itself.
//! - Of one with cgroups below it, what these do not use counts: its own part.

use std::collections::{HashMap, HashSet};

use crate::{
    cgroups::tree::CgroupTree,
    facts::{CgroupId, Limit, SampleFacts},
    sources::sampling::Walk,
};

/// How many of the largest are told.
pub(super) const TOP: usize = 8;

/// The kernel follows no deeper path for a kill, and a walk has no deeper tree.
const LEVELS_MAX: usize = 1024;

/// Who uses the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranking {
    /// Cgroups without the root.
    pub(super) cgroups: u64,
    /// What is charged to them together.
    pub(super) usage_bytes: Option<u64>,
    /// The largest, the largest first.
    pub(super) top: Vec<User>,
    /// What the victim is part of.
    pub(super) victim: Option<User>,
}

/// One that uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: CgroupId,
    pub(super) usage_bytes: u64,
    pub(super) max: Option<Limit>,
    pub(super) removed: bool,
    pub(super) without_below: bool,
    pub(super) killed: bool,
}

/// What is known of a cgroup's place.
#[derive(Clone, Copy, Default)]
struct Place {
    parent: Option<usize>,
    is_root: bool,
    below_bytes: u64,
    has_below: bool,
    /// It stands for all below it.
    whole: bool,
    /// Whether one above it stands for it; `None` if not looked at yet.
    covered: Option<bool>,
}

/// Ranks the cgroups of a walk. `flat`: those whose usage does not contain those below them. `victim`: the cgroups of the victim with their
/// usage at the kill, its own first.
pub(super) fn rank(
    walk: &Walk<'_>,
    tree: &CgroupTree,
    flat: &HashSet<CgroupId>,
    victim: &[(CgroupId, Option<u64>)],
) -> Ranking {
    let mut places = places(walk, tree, flat);
    let mut ranking = Ranking { usage_bytes: Some(0), ..Ranking::default() };
    for (at, sample) in walk.cgroups().enumerate() {
        let Some(Place { parent, is_root: false, .. }) = places.get(at).copied() else { continue };
        ranking.cgroups += 1;
        if parent.is_none_or(|parent| places.get(parent).is_some_and(|parent| parent.is_root)) {
            let sum = ranking.usage_bytes.zip(sample.usage_bytes);
            ranking.usage_bytes = sum.map(|(sum, usage)| sum.saturating_add(usage));
        }
        if is_covered(&mut places, at) {
            continue;
        }
        let Some(user) = places.get(at).and_then(|place| user(&sample, place, victim)) else { continue };
        if user.killed {
            ranking.victim = Some(user);
        }
        insert(&mut ranking.top, user);
    }
    ranking
}

/// What is known of the place of each cgroup, in their order.
fn places(walk: &Walk<'_>, tree: &CgroupTree, flat: &HashSet<CgroupId>) -> Vec<Place> {
    let at: HashMap<CgroupId, usize> =
        walk.cgroups().enumerate().map(|(at, sample)| (sample.id, at)).collect();
    let mut places = vec![Place::default(); walk.len()];
    for (own, sample) in walk.cgroups().enumerate() {
        // What is below a flat one is in nothing above it either.
        let above = sample.parent.filter(|parent| !flat.contains(parent));
        let parent = above.and_then(|parent| at.get(&parent).copied());
        if let Some(place) = places.get_mut(own) {
            place.parent = parent;
            place.is_root = sample.parent.is_none();
            place.whole = !place.is_root && (sample.removed == Some(true) || tree.is_owner(sample.id));
        }
        if let Some(parent) = parent.and_then(|parent| places.get_mut(parent)) {
            parent.has_below = true;
            parent.below_bytes = parent.below_bytes.saturating_add(sample.usage_bytes.unwrap_or(0));
        }
    }
    places
}

/// Whether one above it stands for it. Remembers it for all that it looks at.
fn is_covered(places: &mut [Place], at: usize) -> bool {
    let mut path = Vec::new();
    let mut next = Some(at);
    let mut covered = false;
    while let Some(at) = next
        && let Some(place) = places.get(at)
        && path.len() < LEVELS_MAX
    {
        if let Some(known) = place.covered {
            covered = known || place.whole;
            break;
        }
        path.push(at);
        next = place.parent;
    }
    for at in path.into_iter().rev() {
        if let Some(place) = places.get_mut(at) {
            place.covered = Some(covered);
            covered |= place.whole;
        }
    }
    places.get(at).and_then(|place| place.covered).unwrap_or(false)
}

/// What a cgroup stands for; `None` if its usage is not known.
fn user(sample: &SampleFacts, place: &Place, victim: &[(CgroupId, Option<u64>)]) -> Option<User> {
    let without_below = !place.whole && place.has_below;
    // Of a cgroup above the victim's own, the own part has nothing of the victim.
    let of_victim = if without_below { victim.get(..1).unwrap_or(victim) } else { victim };
    let at_kill = of_victim.iter().find(|(id, _)| *id == sample.id);
    let usage = at_kill.and_then(|(_, usage)| *usage).or(sample.usage_bytes)?;
    let below = if without_below { place.below_bytes } else { 0 };
    Some(User {
        id: sample.id,
        usage_bytes: usage.saturating_sub(below),
        max: sample.max,
        removed: sample.removed == Some(true),
        without_below,
        killed: at_kill.is_some(),
    })
}

/// Keeps the largest. Of equal ones, the first.
fn insert(top: &mut Vec<User>, user: User) {
    let at = top.partition_point(|other| other.usage_bytes >= user.usage_bytes);
    if at < TOP && user.usage_bytes > 0 {
        top.insert(at, user);
        top.truncate(TOP);
    }
}
