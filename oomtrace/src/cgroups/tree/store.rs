//! The nodes of the tree: a parent, a name and an id each, found by id or by parent and
//! name. It knows nothing of containers but the facts that a node carries.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::{
    containers::Facts,
    facts::{BootTime, CgroupId},
};

/// A node's place in the store. Another node may have it once the node is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// Deeper trees than this are not climbed.
const DEPTH_MAX: usize = 1024;

const ROOT: Slot = Slot(0);
/// The parent of the root, and of a part of the tree whose place is not known.
const NOWHERE: Slot = Slot(u32::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Dead(BootTime),
    /// Only a name in the paths of others: never seen itself, or forgotten before them.
    Bare,
}

#[derive(Debug)]
struct Node {
    id: CgroupId,
    parent: Slot,
    children: u32,
    name: Box<[u8]>,
    facts: Option<Box<Facts>>,
    state: State,
    /// Its name says plainly that it is a container's.
    container: bool,
    /// It is below a container.
    inner: bool,
}

#[derive(Debug)]
pub struct Store {
    nodes: Vec<Option<Node>>,
    free: Vec<Slot>,
    by_id: HashTable<Slot>,
    by_name: HashTable<Slot>,
    // Names are chosen by containers: the keys of the hash are not.
    hasher: RandomState,
    dead: usize,
    inner: usize,
}

impl Store {
    pub fn new() -> Self {
        let root = Node {
            id: CgroupId(0),
            parent: NOWHERE,
            children: 0,
            name: Box::default(),
            facts: None,
            state: State::Bare,
            container: false,
            inner: false,
        };
        Self {
            nodes: vec![Some(root)],
            free: Vec::new(),
            by_id: HashTable::new(),
            by_name: HashTable::new(),
            hasher: RandomState::new(),
            dead: 0,
            inner: 0,
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

    /// Those that exist and are below a container.
    pub fn inner_count(&self) -> usize {
        self.inner
    }

    pub fn live(&self) -> impl Iterator<Item = (Slot, CgroupId)> {
        (0u32..).zip(&self.nodes).filter_map(|(at, node)| {
            let node = node.as_ref().filter(|node| node.state == State::Live)?;
            Some((Slot(at), node.id))
        })
    }

    /// Those with facts, gone or not.
    pub fn with_facts(&self) -> impl Iterator<Item = (Slot, CgroupId, &Facts)> {
        (0u32..).zip(&self.nodes).filter_map(|(at, node)| {
            let node = node.as_ref()?;
            Some((Slot(at), node.id, node.facts.as_deref()?))
        })
    }

    /// The cgroup with this id, gone or not.
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

    /// The newest cgroup of these names.
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

    /// When the cgroup `id` at `slot` was removed; `None` if it was not, or the slot is another's by now.
    pub fn died(&self, slot: Slot, id: CgroupId) -> Option<BootTime> {
        match self.node(slot).filter(|node| node.id == id)?.state {
            State::Dead(at) => Some(at),
            State::Live | State::Bare => None,
        }
    }

    pub fn is_inner(&self, parent: Slot) -> bool {
        self.node(parent).is_some_and(|node| node.inner || node.container)
    }

    pub fn facts(&self, slot: Slot) -> Option<&Facts> {
        self.node(slot)?.facts.as_deref()
    }

    pub fn set_facts(&mut self, slot: Slot, facts: Option<Facts>) {
        if let Some(node) = self.node_mut(slot) {
            node.facts = facts.map(Box::new);
        }
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

    /// The node of these names; those on the way that are not known become bare.
    pub fn parent_for(&mut self, names: &[&[u8]]) -> Slot {
        names.iter().fold(ROOT, |parent, name| {
            self.child(parent, name)
                .unwrap_or_else(|| self.add(parent, name, CgroupId(0), State::Bare, false))
        })
    }

    /// A cgroup that exists. The older one of that name keeps its id only.
    pub fn insert(&mut self, parent: Slot, name: &[u8], id: CgroupId, container: bool) -> Slot {
        let slot = match self.child(parent, name) {
            Some(slot) if self.node(slot).is_some_and(|node| node.state == State::Bare) => {
                let inner = self.is_inner(parent);
                if let Some(node) = self.node_mut(slot) {
                    (node.id, node.state, node.container, node.inner) = (id, State::Live, container, inner);
                    self.inner += usize::from(inner);
                }
                slot
            }
            older => {
                if let Some(older) = older {
                    self.unname(older);
                }
                self.add(parent, name, id, State::Live, container)
            }
        };
        self.identify(slot, id);
        slot
    }

    /// The root of the tree that was walked: the root itself, or a part whose place is not known.
    pub fn insert_root(&mut self, id: CgroupId, is_part: bool) -> Slot {
        let slot = if is_part { self.add(NOWHERE, b"", id, State::Live, false) } else { ROOT };
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

    fn add(&mut self, parent: Slot, name: &[u8], id: CgroupId, state: State, container: bool) -> Slot {
        let inner = self.is_inner(parent);
        self.inner += usize::from(inner && state == State::Live);
        let node = Node { id, parent, children: 0, name: name.into(), facts: None, state, container, inner };
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
        self.adopt(parent, slot);
        slot
    }

    /// Makes `slot` findable by its name, and counts it with its parent.
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

    /// No longer found by its name.
    fn unname(&mut self, slot: Slot) {
        let Some(node) = self.node(slot) else { return };
        let hash = self.hasher.hash_one((node.parent, &*node.name));
        if let Ok(entry) = self.by_name.find_entry(hash, |at| *at == slot) {
            entry.remove();
        }
    }

    /// The cgroup was removed. False if it was before.
    pub fn bury(&mut self, slot: Slot, now: BootTime) -> bool {
        let Some(node) = self.node_mut(slot).filter(|node| node.state == State::Live) else { return false };
        node.state = State::Dead(now);
        let inner = usize::from(node.inner);
        self.inner -= inner;
        self.dead += 1;
        true
    }

    /// Drops all that is known of a cgroup; its name stays while others are below it.
    pub fn forget(&mut self, slot: Slot) {
        let Some(node) = self.node_mut(slot) else { return };
        let (id, state) = (node.id, node.state);
        let inner = usize::from(node.inner && state == State::Live);
        (node.id, node.state, node.facts) = (CgroupId(0), State::Bare, None);
        self.inner -= inner;
        self.dead -= usize::from(matches!(state, State::Dead(_)));
        let hash = self.hasher.hash_one(id);
        if let Ok(entry) = self.by_id.find_entry(hash, |at| *at == slot) {
            entry.remove();
        }
        self.drop_unused(slot);
    }

    /// Drops `slot` if it is only a name that nobody needs, and those above it likewise.
    pub fn drop_unused(&mut self, slot: Slot) {
        let mut at = slot;
        while at != ROOT
            && let Some(node) = self.node(at)
            && node.state == State::Bare
            && node.children == 0
        {
            let parent = node.parent;
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

    /// Moves a cgroup, and all below it, to `names`. What was known of them was of the old place.
    pub fn rename(&mut self, slot: Slot, names: &[&[u8]]) {
        let Some((name, above)) = names.split_last() else { return };
        let Some(old_parent) = self.node(slot).map(|node| node.parent) else { return };
        let parent = self.parent_for(above);
        if self.is_within(parent, slot) {
            // Below itself: changes were lost that freed that name. Where it is now is not known.
            self.drop_unused(parent);
            self.forget(slot);
            return;
        }
        if let Some(older) = self.child(parent, name).filter(|older| *older != slot) {
            self.unname(older);
        }
        self.unname(slot);
        if let Some(node) = self.node_mut(slot) {
            (node.parent, node.name) = (parent, (*name).into());
        }
        self.adopt(parent, slot);
        if let Some(node) = self.node_mut(old_parent) {
            node.children -= 1;
        }
        self.drop_unused(old_parent);
        for at in (0u32..).zip(0..self.nodes.len()).map(|(at, _)| Slot(at)) {
            if self.is_within(at, slot) {
                self.set_facts(at, None);
            }
        }
    }

    fn is_within(&self, slot: Slot, top: Slot) -> bool {
        let mut at = slot;
        for _ in 0..DEPTH_MAX {
            if at == top {
                return true;
            }
            match self.node(at) {
                Some(node) => at = node.parent,
                None => return false,
            }
        }
        false
    }
}
