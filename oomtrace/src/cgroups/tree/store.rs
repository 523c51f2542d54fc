//! The nodes of the tree, each with a parent, a name and an id. They are found by id, or by parent and name.
//! Places and bytes are counted for each owner.

mod moves;
mod room;

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::{
    containers::Facts,
    facts::{BootTime, CgroupId},
};

/// A node's place in the store. After the node is dropped, another node may get the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// Deeper trees than this are not followed.
const DEPTH_MAX: usize = 1024;

const ROOT: Slot = Slot(0);
/// The parent of the root, and of a part of the tree whose place is not known.
const NOWHERE: Slot = Slot(u32::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Dead(BootTime),
    /// Only a name in the paths of other nodes: it was never seen itself, or was dropped before them.
    Bare,
}

/// What is known of a cgroup's container.
#[derive(Debug)]
pub enum Known {
    /// Not looked up yet, or the result is no longer valid.
    Unasked,
    /// The facts from the runtime's files.
    Facts(Box<Facts>),
    /// No runtime had a file for it.
    Absent {
        /// The generation of the runtimes' directories at the lookup.
        generation: u32,
        /// The time of the lookup, in seconds since boot.
        at: u64,
    },
    /// There were facts, but no room to keep them.
    NoRoom,
}

#[derive(Debug)]
struct Node {
    id: CgroupId,
    parent: Slot,
    children: u32,
    name: Box<[u8]>,
    known: Known,
    state: State,
    /// It was seen when it was made.
    seen_made: bool,
    /// The topmost ancestor below which everything belongs to one owner; `NOWHERE` if there is none.
    within: Slot,
    /// Everything below this node belongs to one owner. Set only for the topmost such node.
    owner: bool,
    /// For an owner: cgroups below it that exist.
    places: u32,
    /// For an owner: bytes of facts of the cgroups below it.
    bytes: u32,
}

#[derive(Debug)]
pub struct Store {
    nodes: Vec<Option<Node>>,
    free: Vec<Slot>,
    by_id: HashTable<Slot>,
    by_name: HashTable<Slot>,
    // Containers choose names, so the keys of the hash must be secret.
    hasher: RandomState,
    /// How many names of a path are above the root that this host's runtimes see.
    base: usize,
    /// The number of removed cgroups.
    dead: usize,
    /// Places that existing owned cgroups take.
    places_within: usize,
    /// Bytes of facts of owned cgroups, and of the host's own.
    bytes_within: usize,
    bytes_of_host: usize,
}

impl Store {
    pub fn new() -> Self {
        let root = Node {
            id: CgroupId(0),
            parent: NOWHERE,
            children: 0,
            name: Box::default(),
            known: Known::Unasked,
            state: State::Bare,
            seen_made: false,
            within: NOWHERE,
            owner: false,
            places: 0,
            bytes: 0,
        };
        Self {
            nodes: vec![Some(root)],
            free: Vec::new(),
            by_id: HashTable::new(),
            by_name: HashTable::new(),
            hasher: RandomState::new(),
            base: 0,
            dead: 0,
            places_within: 0,
            bytes_within: 0,
            bytes_of_host: 0,
        }
    }

    fn node(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(usize::try_from(slot.0).ok()?)?.as_ref()
    }

    fn node_mut(&mut self, slot: Slot) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(slot.0).ok()?)?.as_mut()
    }

    pub fn live_count(&self) -> usize {
        self.nodes.len() - self.free.len() - self.dead
    }

    pub fn dead_count(&self) -> usize {
        self.dead
    }

    /// Existing cgroups from index `first` on: their indexes, slots and ids.
    pub fn live_from(&self, first: usize) -> impl Iterator<Item = (usize, Slot, CgroupId)> {
        self.nodes.iter().enumerate().skip(first).filter_map(|(at, node)| {
            let node = node.as_ref().filter(|node| node.state == State::Live)?;
            Some((at, Slot(u32::try_from(at).ok()?), node.id))
        })
    }

    /// Whether everything below it belongs to one owner, but nothing above it.
    pub fn is_topmost_of_owner(&self, slot: Slot) -> bool {
        self.node(slot).is_some_and(|node| node.owner)
    }

    /// The id of the cgroup above this one, if it was seen.
    pub fn parent_id(&self, slot: Slot) -> Option<CgroupId> {
        self.node(self.node(slot)?.parent).filter(|node| node.state != State::Bare).map(|node| node.id)
    }

    /// Cgroups with facts, removed or not.
    pub fn with_facts(&self) -> impl Iterator<Item = (Slot, CgroupId, &Facts)> {
        (0u32..).zip(&self.nodes).filter_map(|(at, node)| {
            let node = node.as_ref()?;
            let Known::Facts(facts) = &node.known else { return None };
            Some((Slot(at), node.id, &**facts))
        })
    }

    /// The cgroup with this id, removed or not.
    pub fn slot_of(&self, id: CgroupId) -> Option<Slot> {
        self.by_id
            .find(self.hasher.hash_one(id), |slot| self.node(*slot).is_some_and(|node| node.id == id))
            .copied()
    }

    fn child(&self, parent: Slot, name: &[u8]) -> Option<Slot> {
        let is_it =
            |slot: &Slot| self.node(*slot).is_some_and(|node| node.parent == parent && *node.name == *name);
        self.by_name.find(self.hasher.hash_one((parent, name)), is_it).copied()
    }

    /// The newest cgroup at the path `names`.
    pub fn slot_at(&self, names: &[&[u8]]) -> Option<Slot> {
        let slot = names.iter().try_fold(ROOT, |parent, name| self.child(parent, name))?;
        (self.node(slot)?.state != State::Bare).then_some(slot)
    }

    /// The id of the cgroup `name` of `parent`.
    pub fn id_at(&self, parent: Slot, name: &[u8]) -> Option<CgroupId> {
        self.node(self.child(parent, name)?).filter(|node| node.state != State::Bare).map(|node| node.id)
    }

    pub fn is_live_at(&self, slot: Slot, parent: Slot, name: &[u8]) -> bool {
        self.node(slot)
            .is_some_and(|node| node.state == State::Live && node.parent == parent && *node.name == *name)
    }

    pub fn is_dead(&self, slot: Slot) -> bool {
        self.node(slot).is_some_and(|node| matches!(node.state, State::Dead(_)))
    }

    /// When the cgroup `id` at `slot` was removed; `None` if it was not, or if the slot has another cgroup
    /// now.
    pub fn died(&self, slot: Slot, id: CgroupId) -> Option<BootTime> {
        match self.node(slot).filter(|node| node.id == id)?.state {
            State::Dead(at) => Some(at),
            State::Live | State::Bare => None,
        }
    }

    /// Notes that the cgroup was seen when it was made.
    pub fn saw_made(&mut self, slot: Slot) {
        if let Some(node) = self.node_mut(slot) {
            node.seen_made = true;
        }
    }

    pub fn was_seen_made(&self, slot: Slot) -> bool {
        self.node(slot).is_some_and(|node| node.seen_made)
    }

    pub fn known(&self, slot: Slot) -> &Known {
        self.node(slot).map_or(&Known::Unasked, |node| &node.known)
    }

    /// The names from the root down to `slot`.
    pub fn names(&self, slot: Slot) -> Option<Vec<&[u8]>> {
        let mut names = Vec::new();
        let mut at = slot;
        while at != ROOT {
            let node = self.node(at)?;
            names.push(&*node.name);
            at = node.parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    pub fn path(&self, slot: Slot) -> Option<Vec<u8>> {
        let names = self.names(slot)?;
        if names.is_empty() {
            return Some(b"/".to_vec());
        }
        let mut path = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Some(path)
    }

    /// The node at the path `names`. Missing nodes on the way are added as bare ones.
    pub fn parent_for(&mut self, names: &[&[u8]]) -> Slot {
        names.iter().fold(ROOT, |parent, name| {
            self.child(parent, name).unwrap_or_else(|| self.add(parent, name, CgroupId(0), State::Bare))
        })
    }

    /// Adds an existing cgroup. An older one with that name can be found only by its id after this.
    pub fn insert(&mut self, parent: Slot, name: &[u8], id: CgroupId) -> Slot {
        let slot = match self.child(parent, name) {
            Some(slot) if self.node(slot).is_some_and(|node| node.state == State::Bare) => {
                if let Some(node) = self.node_mut(slot) {
                    (node.id, node.state) = (id, State::Live);
                }
                slot
            }
            older => {
                if let Some(older) = older {
                    self.unname(older);
                }
                self.add(parent, name, id, State::Live)
            }
        };
        self.identify(slot, id);
        slot
    }

    /// Adds the root of the walked tree: the root of the hierarchy, or a part whose place is not known.
    pub fn insert_root(&mut self, id: CgroupId, is_part: bool) -> Slot {
        let slot = if is_part { self.add(NOWHERE, b"", id, State::Live) } else { ROOT };
        if let Some(node) = self.node_mut(slot) {
            (node.id, node.state) = (id, State::Live);
        }
        self.identify(slot, id);
        slot
    }

    fn identify(&mut self, slot: Slot, id: CgroupId) {
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.by_id.insert_unique(hasher.hash_one(id), slot, |slot| {
            let node = usize::try_from(slot.0).ok().and_then(|at| nodes.get(at)?.as_ref());
            node.map_or(0, |node| hasher.hash_one(node.id))
        });
    }

    fn add(&mut self, parent: Slot, name: &[u8], id: CgroupId, state: State) -> Slot {
        let within = self.owner_at(parent).unwrap_or(NOWHERE);
        let owner = within == NOWHERE && self.is_owner(parent, name);
        let node = Node {
            id,
            parent,
            children: 0,
            name: name.into(),
            known: Known::Unasked,
            state,
            seen_made: false,
            within,
            owner,
            places: 0,
            bytes: 0,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.nodes.push(None);
                Slot(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
            }
        };
        if let Some(place) = usize::try_from(slot.0).ok().and_then(|at| self.nodes.get_mut(at)) {
            *place = Some(node);
        }
        self.count(slot, 1);
        self.adopt(parent, slot);
        slot
    }

    /// Makes `slot` findable by its name, and counts it as a child of its parent.
    fn adopt(&mut self, parent: Slot, slot: Slot) {
        if let Some(parent) = self.node_mut(parent) {
            parent.children += 1;
        }
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let hash_of = |slot: &Slot| {
            let node = usize::try_from(slot.0).ok().and_then(|at| nodes.get(at)?.as_ref());
            node.map_or(0, |node| hasher.hash_one((node.parent, &*node.name)))
        };
        self.by_name.insert_unique(hash_of(&slot), slot, hash_of);
    }

    /// Makes `slot` no longer findable by its name.
    fn unname(&mut self, slot: Slot) {
        let Some(node) = self.node(slot) else { return };
        let hash = self.hasher.hash_one((node.parent, &*node.name));
        if let Ok(entry) = self.by_name.find_entry(hash, |at| *at == slot) {
            entry.remove();
        }
    }

    /// Marks the cgroup as removed. Returns false if it was removed already.
    pub fn bury(&mut self, slot: Slot, now: BootTime) -> bool {
        if self.node(slot).is_none_or(|node| node.state != State::Live) {
            return false;
        }
        self.count(slot, -1);
        if let Some(node) = self.node_mut(slot) {
            node.state = State::Dead(now);
        }
        self.count(slot, 1);
        true
    }

    /// Drops all that is known of a cgroup. Its name stays while other nodes are below it.
    pub fn forget(&mut self, slot: Slot) {
        let Some(id) = self.node(slot).map(|node| node.id) else { return };
        self.set_known(slot, Known::Unasked);
        self.count(slot, -1);
        if let Some(node) = self.node_mut(slot) {
            (node.id, node.state, node.seen_made) = (CgroupId(0), State::Bare, false);
        }
        self.count(slot, 1);
        let hash = self.hasher.hash_one(id);
        if let Ok(entry) = self.by_id.find_entry(hash, |at| *at == slot) {
            entry.remove();
        }
        self.drop_unused(slot);
    }

    /// Drops `slot` if it is only a name without nodes below, and its ancestors likewise.
    pub fn drop_unused(&mut self, slot: Slot) {
        let mut at = slot;
        while at != ROOT
            && let Some(node) = self.node(at)
            && node.state == State::Bare
            && node.children == 0
        {
            let parent = node.parent;
            self.count(at, -1);
            self.unname(at);
            if let Some(place) = usize::try_from(at.0).ok().and_then(|at| self.nodes.get_mut(at)) {
                *place = None;
            }
            self.free.push(at);
            if let Some(parent) = self.node_mut(parent) {
                parent.children -= 1;
            }
            at = parent;
        }
    }
}
