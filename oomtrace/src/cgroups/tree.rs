//! The memory cgroups of this host. Takes in changes of the tree and answers who owns a cgroup.
//!
//! Names are read when a cgroup is made, because the container's files exist then and may be gone when its
//! kill is reported. They are kept after the cgroup is removed. All state is here. Only [`Runtimes`] reads
//! files, in [`CgroupTree::resolve_next`] and, for a bounded time, in [`CgroupTree::identify`].
//!
//! A user, a service or a container can make any number of cgroups below its own, with any names. So all of
//! these "owned" cgroups together get a limited share of places, time and bytes, and a single owner gets half
//! of that share. The host's own containers come first. Where a share is used up the fact is absent, with its
//! reason, and counted.
//!
//! A node has a parent and its own name, so a rename moves all cgroups below it. Ten thousand Docker
//! containers with their names, images and Compose labels take 4.5 MB of heap, and 4.8 MB once all of them
//! are gone (measured by `tests/tree_memory.rs`).

mod allowance;
mod identify;
mod queue;
mod standing;
mod store;
mod walk;

use std::collections::VecDeque;
use std::time::Duration;

use crate::{
    containers::{Facts, Place, Runtimes, grammar, owner::claims},
    facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId, Lineage},
};

use queue::Queue;
use store::{Slot, Store};
pub use walk::{Walk, WalkError, WalkSummary};

/// The kernel cuts the path of a cgroup tracepoint at this length.
const CHANGE_PATH_MAX: usize = oomtrace_common::record::CGROUP_PATH_LEN - 1;

/// How much is kept, at most.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// Existing cgroups. Owned ones fill at most half of these places, and those of one owner a quarter, so
    /// that no owner can take the places of the others.
    pub live: usize,
    /// Removed cgroups. Owned ones fill at most a quarter. The oldest are dropped first.
    pub dead: usize,
    /// How long a removed cgroup is kept.
    pub dead_for: Duration,
    /// Bytes of containers' facts. Owned cgroups fill at most a quarter, and those of one owner a quarter of
    /// that.
    pub facts_bytes: usize,
    /// How much time in each second goes to files of owned cgroups: half of it for one owner, and half of each for new cgroups, so that a
    /// kill finds some left. While a file is read, no kill of others is reported.
    pub others_time: Duration,
}

impl Default for TreeLimits {
    fn default() -> Self {
        Self {
            live: 65_536,
            dead: 32_768,
            dead_for: Duration::from_secs(600),
            facts_bytes: 16 << 20,
            others_time: Duration::from_millis(8),
        }
    }
}

/// A cgroup as an event of the kernel showed it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its id, then the ids of its ancestors, as far as they are known.
    pub ids: &'a [CgroupId],
    /// Its path; empty if not known.
    pub path: &'a [u8],
    /// The beginning of `path` is not cut off.
    pub path_is_whole: bool,
}

/// A container, as its runtime's files described it when its cgroup was made.
#[derive(Clone, Debug)]
pub struct KnownContainer<'a> {
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// The path of its cgroup.
    pub path: Vec<u8>,
    /// Its id.
    pub id: String,
    /// The user, if the runtime is a user's own.
    pub user: Option<u32>,
    /// The facts from the runtime's files.
    pub facts: &'a Facts,
    /// Whether its cgroup still exists.
    pub exists: bool,
}

/// The memory cgroups of this host.
#[derive(Debug)]
pub struct CgroupTree {
    runtimes: Runtimes,
    limits: TreeLimits,
    store: Store,
    /// The root of the mount that was walked, where that is not the root of the hierarchy.
    mount: Option<CgroupId>,
    /// How many names of a path are above the root that this host's runtimes see.
    base: usize,
    queue: Queue,
    /// Removed cgroups: the host's own, and the owned ones.
    dead: [VecDeque<(Slot, CgroupId)>; 2],
    /// The time of the latest change or kill.
    now: BootTime,
    ignored: u64,
    unread: u64,
}

impl CgroupTree {
    /// An empty tree.
    pub fn new(runtimes: Runtimes, limits: TreeLimits) -> Self {
        Self {
            runtimes,
            limits,
            store: Store::new(),
            mount: None,
            base: 0,
            queue: Queue::new(limits.others_time),
            dead: [VecDeque::new(), VecDeque::new()],
            now: BootTime(0),
            ignored: 0,
            unread: 0,
        }
    }

    /// The container runtimes of this host.
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Changes that were ignored because the tree was full or the kernel had cut the path.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Facts that a kill lacks because its owner's share was used up.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// The cgroups that exist.
    pub fn live(&self) -> impl Iterator<Item = (CgroupId, Vec<u8>)> {
        Live { store: &self.store, at: 0 }
    }

    /// The cgroups that exist, from a place on: the place of each, its id, and the id of the one above it.
    pub fn live_from(&self, place: usize) -> impl Iterator<Item = (usize, CgroupId, Option<CgroupId>)> {
        self.store.live_from(place).map(|(at, slot, id)| (at, id, self.store.parent_id(slot)))
    }

    /// Whether all below this cgroup belongs to one owner, and none above it does.
    pub fn is_owner(&self, id: CgroupId) -> bool {
        self.store.slot_of(id).is_some_and(|slot| self.store.is_topmost_of_owner(slot))
    }

    /// The known containers, running or gone: cgroups whose runtime's files were found.
    pub fn containers(&self) -> impl Iterator<Item = KnownContainer<'_>> {
        self.store.with_facts().filter_map(|known| self.container(known))
    }

    /// The known containers below a cgroup.
    pub fn containers_below(&self, path: &[u8]) -> impl Iterator<Item = KnownContainer<'_>> {
        let top = self.store.slot_at(&names_of(path));
        let all = self.store.with_facts().filter(move |(slot, ..)| {
            // Checked before the path is built: there may be very many containers elsewhere.
            top.is_some_and(|top| *slot != top && self.store.is_within(*slot, top))
        });
        all.filter_map(|known| self.container(known))
    }

    fn container<'a>(
        &'a self,
        (slot, cgroup, facts): (Slot, CgroupId, &'a Facts),
    ) -> Option<KnownContainer<'a>> {
        let path = self.store.path(slot)?;
        let names = names_of(&path);
        let (depth, shape) = claims(&names, self.base).pop().filter(|(depth, _)| *depth == names.len())?;
        let id = shape.id().to_owned();
        let user = grammar::user_of(names.get(self.base..depth).unwrap_or_default());
        let user = user.filter(|_| facts.of_user);
        let exists = !self.store.is_dead(slot);
        Some(KnownContainer { cgroup, id, user, facts, exists, path: path.clone() })
    }

    /// The number of cgroups that are kept: existing ones and removed ones.
    pub fn counts(&self) -> (usize, usize) {
        (self.store.live_count(), self.store.dead_count())
    }

    /// Takes in a change. Reads no file: [`Self::resolve_next`] does that.
    pub fn apply(&mut self, change: &CgroupChange) {
        self.now = self.now.max(change.time);
        if change.kind == CgroupChangeKind::Removed {
            self.bury(change.id, change.time);
        } else if change.path.len() >= CHANGE_PATH_MAX {
            self.ignored += 1;
        } else {
            let names = names_of(&change.path);
            match self.store.slot_of(change.id).filter(|_| change.kind == CgroupChangeKind::Renamed) {
                Some(slot) => {
                    self.store.rename(slot, &names);
                    self.enqueue(slot, change.id);
                }
                None => {
                    let slot = self.insert(&names, change.id, change.time);
                    if let Some(slot) = slot.filter(|_| change.kind == CgroupChangeKind::Made) {
                        self.store.saw_made(slot);
                    }
                }
            }
        }
        self.forget(change.time);
    }

    fn insert(&mut self, names: &[&[u8]], id: CgroupId, now: BootTime) -> Option<Slot> {
        let (name, above) = names.split_last()?;
        if let Some(known) = self.store.slot_of(id)
            && (self.store.slot_at(names) != Some(known) || self.store.is_dead(known))
        {
            // The id now belongs to another cgroup, or to a new one at the same place. This must come before
            // the parent is looked up, because it may drop the parent too.
            self.store.forget(known);
        }
        let parent = self.store.parent_for(above);
        self.insert_at(parent, name, id, now)
    }

    /// Adds the cgroup `name` of `parent`. An older one with the same name or id is gone.
    fn insert_at(&mut self, parent: Slot, name: &[u8], id: CgroupId, now: BootTime) -> Option<Slot> {
        if let Some(known) = self.store.slot_of(id) {
            if self.store.is_live_at(known, parent, name) {
                return Some(known);
            }
            self.store.forget(known);
        }
        if let Some(older) = self.store.id_at(parent, name) {
            self.bury(older, now);
        }
        if !self.store.has_place(parent, &self.limits) {
            self.ignored += 1;
            self.store.drop_unused(parent);
            return None;
        }
        let slot = self.store.insert(parent, name, id);
        if self.may_be_a_containers(parent, name) {
            self.enqueue(slot, id);
        }
        Some(slot)
    }

    fn may_be_a_containers(&self, parent: Slot, name: &[u8]) -> bool {
        let names = self.store.names(parent);
        let above = names.as_ref().map(|names| names.get(self.base..).unwrap_or_default());
        above.is_some_and(|above| grammar::shape(above, name, None).is_some())
    }

    fn bury(&mut self, id: CgroupId, now: BootTime) {
        if let Some(slot) = self.store.slot_of(id)
            && self.store.bury(slot, now)
        {
            let [own, others] = &mut self.dead;
            if self.store.owner_of(slot).is_some() { others } else { own }.push_back((slot, id));
        }
    }

    /// Drops the cgroups that were removed long enough ago, and those beyond the limit.
    fn forget(&mut self, now: BootTime) {
        let keep_ns = u64::try_from(self.limits.dead_for.as_nanos()).unwrap_or(u64::MAX);
        let others_max = self.limits.dead / 4;
        for (dead, max) in self.dead.iter_mut().zip([self.limits.dead - others_max, others_max]) {
            while let Some((slot, id)) = dead.front().copied() {
                if let Some(died) = self.store.died(slot, id) {
                    if dead.len() <= max && now.0.saturating_sub(died.0) <= keep_ns {
                        break;
                    }
                    self.store.forget(slot);
                }
                dead.pop_front();
            }
        }
    }

    /// Whether this cgroup was made while changes were followed.
    pub fn was_seen_made(&self, id: CgroupId) -> bool {
        self.store.slot_of(id).is_some_and(|slot| self.store.was_seen_made(slot))
    }

    /// The path of a cgroup that exists or was removed recently.
    pub fn path_of(&self, id: CgroupId) -> Option<Vec<u8>> {
        self.store.path(self.store.slot_of(id)?)
    }
}

/// Cgroups that exist, with their paths. No path is built for skipped ones.
struct Live<'a> {
    store: &'a Store,
    at: usize,
}

impl Iterator for Live<'_> {
    type Item = (CgroupId, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        self.nth(0)
    }

    fn nth(&mut self, skipped: usize) -> Option<Self::Item> {
        let (at, slot, id) = self.store.live_from(self.at).nth(skipped)?;
        self.at = at + 1;
        // It is deeper than paths are followed, so it is skipped.
        self.store.path(slot).map_or_else(|| self.nth(0), |path| Some((id, path)))
    }
}

/// The names of a path, the topmost first.
fn names_of(path: &[u8]) -> Vec<&[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect()
}

/// The path of the first `depth` of `names`, which are the names of `path`.
fn prefix<'a>(path: &'a [u8], names: &[&[u8]], depth: usize) -> &'a [u8] {
    let below: usize = names.iter().skip(depth).map(|name| name.len() + 1).sum();
    path.get(..path.len().saturating_sub(below)).unwrap_or_default()
}

fn place<'a>(path: &'a [u8], names: &[&[u8]], depth: usize, base: usize) -> Place<'a> {
    let above = names.get(base..depth.saturating_sub(1)).unwrap_or_default();
    let within = owner_depth(names, base).is_some_and(|owner| owner < depth);
    Place { path, user: grammar::user_of(above), within }
}

/// The depth of the topmost cgroup below which everything belongs to one owner.
fn owner_depth(names: &[&[u8]], base: usize) -> Option<usize> {
    (base..names.len())
        .find(|at| {
            let above = names.get(base..*at).unwrap_or_default();
            names.get(*at).is_some_and(|name| grammar::is_owners(above, name))
        })
        .map(|at| at + 1)
}

/// The ids of a lineage, the cgroup itself first.
pub fn lineage_ids(lineage: &Lineage) -> Vec<CgroupId> {
    lineage.levels.iter().map(|level| level.id).collect()
}
