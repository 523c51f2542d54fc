//! Moves cgroups whose place turns out to be another: those renamed on cgroup v1, or below a part of the tree
//! whose place was not known.

use super::{DEPTH_MAX, Known, NOWHERE, Slot, Store};

impl Store {
    /// Moves a cgroup, and all below it, to `names`. What was known about them belongs to the old place and
    /// is dropped.
    pub fn rename(&mut self, slot: Slot, names: &[&[u8]]) {
        let Some((name, above)) = names.split_last() else { return };
        let Some(old_parent) = self.node(slot).map(|node| node.parent) else { return };
        let parent = self.parent_for(above);
        if self.is_within(parent, slot) {
            // The new place would be below itself: changes were lost, and its real place is not known.
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
        let all = (0u32..).zip(0..self.nodes.len()).map(|(at, _)| Slot(at));
        let moved: Vec<Slot> = all.filter(|at| self.is_within(*at, slot)).collect();
        self.place_anew(&moved);
    }

    /// Sets how many names are above the root that this host's runtimes see. If `part` was walked as the
    /// root, it moves to `names`.
    pub fn set_base(&mut self, base: usize, part: Option<(Slot, &[&[u8]])>) {
        self.base = base;
        if let Some((slot, names)) = part {
            self.rename(slot, names);
        }
        let all: Vec<Slot> = (0u32..).zip(0..self.nodes.len()).map(|(at, _)| Slot(at)).collect();
        self.place_anew(&all);
    }

    /// Finds the owners of moved cgroups, and drops what was known of them at the old place.
    fn place_anew(&mut self, moved: &[Slot]) {
        for at in moved {
            self.set_known(*at, Known::Unasked);
            self.count(*at, -1);
        }
        for at in moved {
            let (within, owner) = self.find_owner(*at);
            if let Some(node) = self.node_mut(*at) {
                (node.within, node.owner) = (within, owner);
            }
        }
        for at in moved {
            self.count(*at, 1);
        }
    }

    /// The topmost owner above `slot`, and whether `slot` is an owner itself.
    fn find_owner(&self, slot: Slot) -> (Slot, bool) {
        let mut way = vec![slot];
        while let Some(parent) = way.last().and_then(|at| self.node(*at)).map(|node| node.parent)
            && parent != NOWHERE
            && way.len() <= DEPTH_MAX
        {
            way.push(parent);
        }
        let is_owner = |at: &Slot| self.node(*at).is_some_and(|node| self.is_owner(node.parent, &node.name));
        match way.into_iter().rev().find(is_owner) {
            Some(owner) if owner == slot => (NOWHERE, true),
            Some(owner) => (owner, false),
            None => (NOWHERE, false),
        }
    }

    /// Whether a cgroup is `top` or below it.
    pub fn is_within(&self, slot: Slot, top: Slot) -> bool {
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
