//! The memory cgroups of this host: changes of the tree in, whose a cgroup is out.
//!
//! Names are learned when a cgroup is made, because the container's files are there then
//! and may be gone when its death is told; they are kept after the cgroup is removed. All
//! state is here; files are read by [`Runtimes`] only, in [`CgroupTree::resolve_next`] and,
//! within a bound, in [`CgroupTree::identify`].
//!
//! A cgroup is its parent and its own name, so a rename moves all below it. Ten thousand
//! Docker containers with their names, images and Compose labels take 4.5 MB of heap, and
//! 4.8 MB once all of them are gone (`tests/tree_memory.rs` measures it).

mod store;
mod walk;

use std::collections::VecDeque;
use std::time::Duration;

use crate::{
    containers::{
        Facts, Place, Runtimes,
        grammar::{self, Shape},
        owner::{CLAIMS_MAX, Claim, Identity, claims, decide},
    },
    event::{Absence, Reason, Why},
    facts::{BootTime, CgroupChange, CgroupChangeKind, CgroupId, Lineage},
};

use store::{Slot, Store};
pub use walk::{WalkError, WalkSummary};

/// The kernel cuts the path of a cgroup tracepoint at this length.
const CHANGE_PATH_MAX: usize = oomtrace_common::record::CGROUP_PATH_LEN - 1;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// Cgroups that exist, at most. Those below a container fill at most half of it, so that
    /// no container can make the tracer blind for the others.
    pub live: usize,
    /// Removed cgroups, at most; the longest gone go first.
    pub dead: usize,
    /// How long a removed cgroup is kept.
    pub dead_for: Duration,
}

impl Default for TreeLimits {
    fn default() -> Self {
        Self { live: 65_536, dead: 32_768, dead_for: Duration::from_secs(600) }
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
    queue: VecDeque<(Slot, CgroupId)>,
    dead: VecDeque<(Slot, CgroupId)>,
    ignored: u64,
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
            queue: VecDeque::new(),
            dead: VecDeque::new(),
            ignored: 0,
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

    /// Cgroups that exist.
    pub fn live(&self) -> impl Iterator<Item = (CgroupId, Vec<u8>)> {
        self.store.live().filter_map(|(slot, id)| Some((id, self.store.path(slot)?)))
    }

    /// The containers that are known, running or gone: cgroups whose runtime's files were found.
    pub fn containers(&self) -> impl Iterator<Item = KnownContainer<'_>> {
        self.store.with_facts().filter_map(|(slot, cgroup, facts)| {
            let path = self.store.path(slot)?;
            let names = names_of(&path);
            let (depth, shape) = claims(&names, self.base).pop()?;
            let id = shape.id().to_owned();
            let exists = !self.store.is_dead(slot);
            let user = grammar::user_of(names.get(self.base..).unwrap_or_default()).filter(|_| facts.of_user);
            (depth == names.len()).then(|| KnownContainer {
                cgroup,
                id,
                user,
                facts,
                exists,
                path: path.clone(),
            })
        })
    }

    /// How many cgroups are kept: those that exist and those that are gone.
    pub fn counts(&self) -> (usize, usize) {
        (self.store.live_count(), self.store.dead_count())
    }

    /// Takes in a change. No file is read: that is for [`Self::resolve_next`].
    pub fn apply(&mut self, change: &CgroupChange) {
        if change.kind == CgroupChangeKind::Removed {
            self.bury(change.id, change.time);
        } else if change.path.len() >= CHANGE_PATH_MAX {
            self.ignored += 1;
        } else {
            let names = names_of(&change.path);
            match self.store.slot_of(change.id).filter(|_| change.kind == CgroupChangeKind::Renamed) {
                Some(slot) => {
                    self.store.rename(slot, &names);
                    self.queue.push_back((slot, change.id));
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
        let inner_full = self.store.is_inner(parent) && self.store.inner_count() >= self.limits.live / 2;
        if inner_full || self.store.live_count() >= self.limits.live {
            self.ignored += 1;
            self.store.drop_unused(parent);
            return None;
        }
        let shape = self.shape_at(parent, name);
        let slot = self.store.insert(parent, name, id, shape.is_some_and(|plain| plain));
        if shape.is_some() {
            self.queue.push_back((slot, id));
        }
        Some(slot)
    }

    /// Whether a cgroup may be a container's, and whether its name says so plainly.
    fn shape_at(&self, parent: Slot, name: &[u8]) -> Option<bool> {
        let mut names = self.store.names(parent)?;
        names.drain(..self.base.min(names.len()));
        grammar::shape(&names, name, None).map(|shape| shape.is_plain())
    }

    fn bury(&mut self, id: CgroupId, now: BootTime) {
        if let Some(slot) = self.store.slot_of(id)
            && self.store.bury(slot, now)
        {
            self.dead.push_back((slot, id));
        }
    }

    /// Lets go of the cgroups that are gone for long enough, and of those beyond the limit.
    fn forget(&mut self, now: BootTime) {
        let keep_ns = u64::try_from(self.limits.dead_for.as_nanos()).unwrap_or(u64::MAX);
        while let Some((slot, id)) = self.dead.front().copied() {
            let Some(died) = self.store.died(slot, id) else {
                self.dead.pop_front();
                continue;
            };
            if self.dead.len() <= self.limits.dead && now.0.saturating_sub(died.0) <= keep_ns {
                break;
            }
            self.dead.pop_front();
            self.store.forget(slot);
        }
    }

    /// Reads the files of one cgroup that was made and not looked at since. False when there is none.
    pub fn resolve_next(&mut self) -> bool {
        while let Some((slot, id)) = self.queue.pop_front() {
            if self.store.slot_of(id) == Some(slot) {
                self.resolve(slot);
                return true;
            }
        }
        false
    }

    fn resolve(&mut self, slot: Slot) {
        let Some(path) = self.store.path(slot) else { return };
        let names = names_of(&path);
        // What is below is not known yet; only nspawn's shape asks, and that has no files.
        let Some((depth, shape)) = claims(&names, self.base).pop().filter(|(depth, _)| *depth == names.len())
        else {
            return;
        };
        let place = place(&path, &names, depth, self.base);
        let facts = self.runtimes.look_up(&shape, place).ok();
        if facts.is_some() {
            self.store.set_facts(slot, facts);
        }
    }

    /// The path of a cgroup that exists or is not gone for long.
    pub fn path_of(&self, id: CgroupId) -> Option<Vec<u8>> {
        self.store.path(self.store.slot_of(id)?)
    }

    /// Whose the cgroup is that a kill showed. The path that the kernel captured is believed
    /// over the one kept for its id.
    pub fn identify(&mut self, seen: Seen<'_>, now: BootTime) -> Identity {
        let Some(path) = self.whole_path(&seen) else { return self.identify_above(&seen, now) };
        let names = names_of(&path);
        self.learn_base(&seen, &names);
        let mut found = Vec::new();
        for (depth, shape) in claims(&names, self.base) {
            let answer = if found.len() < CLAIMS_MAX {
                let at = prefix(&path, &names, depth);
                let id = names.len().checked_sub(depth).and_then(|up| seen.ids.get(up)).copied();
                self.found_at(at, &names, depth, id, &shape)
            } else {
                Err(Reason::TooManyContainers.into())
            };
            found.push(Claim { depth, shape, found: answer });
        }
        decide(&names, self.base, found)
    }

    /// Whose the cgroup is, by the nearest one above it that is known: one with a longer path than the kernel tells must
    /// not hide whose it is. No runtime makes a container there, so what has no name is within the one above.
    fn identify_above(&mut self, seen: &Seen<'_>, now: BootTime) -> Identity {
        let above = seen.ids.iter().enumerate().find_map(|(up, id)| Some((up, self.path_of(*id)?)));
        // One among the names that the kernel gave would have told the whole path, unless it is called otherwise by now.
        let named = names_of(seen.path).len();
        let found = above.filter(|(up, _)| *up > named).and_then(|(up, path)| {
            let ids = seen.ids.get(up..)?;
            let mut found = self.identify(Seen { ids, path: &path, path_is_whole: true }, now);
            found.container.as_ref()?;
            found.missing.push(Absence::new("container.nested", Reason::CgroupPathUnknown));
            Some(found)
        });
        found.unwrap_or_else(|| Identity {
            missing: vec![Absence::new("container", Reason::CgroupPathUnknown)],
            ..Identity::default()
        })
    }

    /// What is known of the container at `path`: as its runtime says now, else as it said
    /// when the cgroup was made.
    fn found_at(
        &mut self,
        path: &[u8],
        names: &[&[u8]],
        depth: usize,
        id: Option<CgroupId>,
        shape: &Shape<'_>,
    ) -> Result<Facts, Why> {
        let names = names.get(..depth).unwrap_or_default();
        let slot = match id {
            Some(id) => self.store.slot_of(id).filter(|slot| self.store.path(*slot).as_deref() == Some(path)),
            None => self.store.slot_at(names),
        };
        let place = place(path, names, depth, self.base);
        let known = slot.and_then(|slot| self.store.facts(slot).cloned());
        let Some(known) = known else {
            let gone = slot.is_some_and(|slot| self.store.is_dead(slot));
            let replaced = id.is_some() && slot.is_none() && self.store.slot_at(names).is_some();
            // An id that is free text may belong to another container by now.
            if (gone || replaced) && !grammar::is_hex_id(shape.id()) && !shape.is_by_path() {
                return Err(Reason::ContainerUnknown.into());
            }
            let facts = self.runtimes.look_up(shape, place)?;
            if let Some(slot) = slot {
                self.store.set_facts(slot, Some(facts.clone()));
            }
            return Ok(facts);
        };
        Ok(self.runtimes.look_again(&known, shape.id(), place).unwrap_or(known))
    }

    /// The whole path of the cgroup: the kernel's, or where that is cut, the one kept for
    /// the nearest ancestor and the kernel's names below it.
    fn whole_path(&self, seen: &Seen<'_>) -> Option<Vec<u8>> {
        if seen.path_is_whole && !seen.path.is_empty() {
            return Some(seen.path.to_vec());
        }
        let names = names_of(seen.path);
        seen.ids.iter().enumerate().find_map(|(up, id)| {
            let mut path = self.path_of(*id)?;
            for name in names.get(names.len().checked_sub(up)?..)? {
                if path != b"/" {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
            path.ends_with(seen.path).then_some(path)
        })
    }

    /// Where the tracer sees only a part of the tree, a kill's lineage tells which.
    fn learn_base(&mut self, seen: &Seen<'_>, names: &[&[u8]]) {
        let Some(mount) = self.mount else { return };
        let Some(up) = seen.ids.iter().position(|id| *id == mount) else { return };
        let Some(base) = names.len().checked_sub(up) else { return };
        self.mount = None;
        self.base = base;
        if let (Some(slot), Some(above)) = (self.store.slot_of(mount), names.get(..base)) {
            self.store.rename(slot, above);
        }
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
    Place { path, user: grammar::user_of(above) }
}

/// The ids of a lineage, the cgroup itself first.
pub fn lineage_ids(lineage: &Lineage) -> Vec<CgroupId> {
    lineage.levels.iter().map(|level| level.id).collect()
}
