//! The memory cgroups of this host: changes of the tree in, whose a cgroup is out.
//!
//! Names are learned when a cgroup is made, because the container's files are there then
//! and may be gone when its death is told; they are kept after the cgroup is removed. All
//! state is here; files are read by [`Runtimes`] only, in [`CgroupTree::resolve_next`] and,
//! within a bound, in [`CgroupTree::identify`].
//!
//! What a user, a service or a container makes below its own cgroup it may make without end and name
//! as it likes. All of these together have a share of the places, of the time and of the bytes, one of
//! them a half of that, and the host's own containers come first. Where a share is used up the fact is
//! absent, with its reason, and counted.
//!
//! A cgroup is its parent and its own name, so a rename moves all below it. Ten thousand
//! Docker containers with their names, images and Compose labels take 4.5 MB of heap, and
//! 4.8 MB once all of them are gone (`tests/tree_memory.rs` measures it).

mod allowance;
mod identify;
mod queue;
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
pub use walk::{WalkError, WalkSummary};

/// The kernel cuts the path of a cgroup tracepoint at this length.
const CHANGE_PATH_MAX: usize = oomtrace_common::record::CGROUP_PATH_LEN - 1;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// Cgroups that exist, at most. Those below users' slices, services, scopes and containers fill at
    /// most half of it, those of one of these a quarter, so that none can make the tracer blind for the others.
    pub live: usize,
    /// Removed cgroups, at most; a quarter of it those within another's. The longest gone go first.
    pub dead: usize,
    /// How long a removed cgroup is kept.
    pub dead_for: Duration,
    /// Bytes of containers' facts, at most. A quarter of it is for those within another's cgroup, a quarter of that for one's.
    pub facts_bytes: usize,
    /// How long files are read in a second for cgroups within another's; half of it for one's.
    pub others_time: Duration,
}

impl Default for TreeLimits {
    fn default() -> Self {
        Self {
            live: 65_536,
            dead: 32_768,
            dead_for: Duration::from_secs(600),
            facts_bytes: 16 << 20,
            others_time: Duration::from_millis(20),
        }
    }
}

/// A cgroup as the kernel showed it at an event.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its id and its ancestors', itself first, as far as they are known.
    pub ids: &'a [CgroupId],
    /// Its path; empty where it is not known.
    pub path: &'a [u8],
    /// Nothing is missing at the head of `path`.
    pub path_is_whole: bool,
}

/// A container, as its runtime's files said when its cgroup was made.
#[derive(Clone, Debug)]
pub struct KnownContainer<'a> {
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// The path of its cgroup.
    pub path: Vec<u8>,
    /// Its id.
    pub id: String,
    /// The user whose own runtime it is of.
    pub user: Option<u32>,
    /// What the files said.
    pub facts: &'a Facts,
    /// Its cgroup has not been removed.
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
    /// How many names are above the root that this host's runtimes see.
    base: usize,
    queue: Queue,
    /// Those of the host's own cgroups, and those within another's.
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

    /// The runtimes.
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Changes that were not taken in because the tree was full or the kernel had cut the path.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Facts that a kill lacks because the share of its cgroup's owner was used up.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Cgroups that exist.
    pub fn live(&self) -> impl Iterator<Item = (CgroupId, Vec<u8>)> {
        Live { store: &self.store, at: 0 }
    }

    /// The containers that are known, running or gone: cgroups whose runtime's files were found.
    pub fn containers(&self) -> impl Iterator<Item = KnownContainer<'_>> {
        self.store.with_facts().filter_map(|known| self.container(known))
    }

    /// Those below a cgroup.
    pub fn containers_below(&self, path: &[u8]) -> impl Iterator<Item = KnownContainer<'_>> {
        let top = self.store.slot_at(&names_of(path));
        let all = self.store.with_facts().filter(move |(slot, ..)| {
            // Before its path is made: there may be very many elsewhere.
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

    /// How many cgroups are kept: those that exist and those that are gone.
    pub fn counts(&self) -> (usize, usize) {
        (self.store.live_count(), self.store.dead_count())
    }

    /// Takes in a change. No file is read: that is for [`Self::resolve_next`].
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
                None => self.insert(&names, change.id, change.time),
            }
        }
        self.forget(change.time);
    }

    fn insert(&mut self, names: &[&[u8]], id: CgroupId, now: BootTime) {
        let Some((name, above)) = names.split_last() else { return };
        if let Some(known) = self.store.slot_of(id)
            && (self.store.slot_at(names) != Some(known) || self.store.is_dead(known))
        {
            // The id is another cgroup's by now, or the same place's once more. Before the parent is looked for: it may go with it.
            self.store.forget(known);
        }
        let parent = self.store.parent_for(above);
        self.insert_at(parent, name, id, now);
    }

    /// Takes in the cgroup `name` of `parent`. An older one of the same name or the same id is gone.
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

    /// Lets go of the cgroups that are gone for long enough, and of those beyond the limit.
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

    /// The path of a cgroup that exists or is not gone for long.
    pub fn path_of(&self, id: CgroupId) -> Option<Vec<u8>> {
        self.store.path(self.store.slot_of(id)?)
    }
}

/// Cgroups that exist, with their paths; of those that are skipped no path is made.
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
        // Deeper than any path is followed: it is not there for anybody.
        self.store.path(slot).map_or_else(|| self.nth(0), |path| Some((id, path)))
    }
}

/// The names of a path, the topmost first.
fn names_of(path: &[u8]) -> Vec<&[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).collect()
}

/// The path of the first `depth` of `names`, which are those of `path`.
fn prefix<'a>(path: &'a [u8], names: &[&[u8]], depth: usize) -> &'a [u8] {
    let below: usize = names.iter().skip(depth).map(|name| name.len() + 1).sum();
    path.get(..path.len().saturating_sub(below)).unwrap_or_default()
}

fn place<'a>(path: &'a [u8], names: &[&[u8]], depth: usize, base: usize) -> Place<'a> {
    let above = names.get(base..depth.saturating_sub(1)).unwrap_or_default();
    let within = owner_depth(names, base).is_some_and(|owner| owner < depth);
    Place { path, user: grammar::user_of(above), within }
}

/// How many names the topmost cgroup has below which all is one owner's.
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
