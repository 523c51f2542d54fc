//! Counts how much room each owner's cgroups take: places in the tree and bytes of facts.

use super::{Known, NOWHERE, Slot, State, Store};
use crate::{
    cgroups::tree::TreeLimits,
    containers::{Facts, grammar},
};

impl Store {
    /// The owner of the cgroups below `parent`; `None` if they are the host's own.
    pub fn owner_at(&self, parent: Slot) -> Option<Slot> {
        let node = self.node(parent)?;
        if node.owner { Some(parent) } else { self.owner_of(parent) }
    }

    /// The owner of `slot`.
    pub fn owner_of(&self, slot: Slot) -> Option<Slot> {
        self.node(slot).map(|node| node.within).filter(|within| *within != NOWHERE)
    }

    /// Whether everything below the cgroup `name` of `parent` belongs to one owner.
    pub(super) fn is_owner(&self, parent: Slot, name: &[u8]) -> bool {
        // In a part of the tree whose place is not known, the names above are not known either.
        let above = self.names(parent).unwrap_or_default();
        above.get(self.base..).is_some_and(|above| grammar::is_owners(above, name))
    }

    /// Adds a node to the counts, or removes it. To be called before and after each change of its state or
    /// its owner.
    pub(super) fn count(&mut self, slot: Slot, by: i32) {
        let Some(node) = self.node(slot) else { return };
        let (within, is_dead) = (node.within, matches!(node.state, State::Dead(_)));
        let add = |sum: &mut usize| *sum = sum.saturating_add_signed(if by < 0 { -1 } else { 1 });
        if is_dead {
            add(&mut self.dead);
        }
        if within == NOWHERE || is_dead {
            return;
        }
        add(&mut self.places_within);
        if let Some(owner) = self.node_mut(within) {
            owner.places = owner.places.saturating_add_signed(by);
        }
    }

    /// Whether another cgroup may be kept below `parent`. Owned cgroups take at most half of all places, and
    /// those of one owner a quarter.
    pub fn has_place(&self, parent: Slot, limits: &TreeLimits) -> bool {
        let all = self.live_count() < limits.live;
        let Some(owner) = self.owner_at(parent) else { return all };
        let own = self.node(owner).map_or(0, |node| node.places);
        let own = usize::try_from(own).unwrap_or(usize::MAX);
        all && self.places_within < limits.live / 2 && own < limits.live / 4
    }

    /// Keeps the facts of a cgroup if there is room. Owned cgroups get a quarter of the room, and one owner a
    /// quarter of that. The host's own share their texts, which take `texts` bytes.
    pub fn keep(&mut self, slot: Slot, facts: Facts, limits: &TreeLimits, texts: usize) {
        self.set_known(slot, Known::Unasked);
        let max = limits.facts_bytes;
        let kept = match self.owner_of(slot) {
            Some(owner) => {
                let own = self.node(owner).map_or(0, |node| node.bytes);
                let own = usize::try_from(own).unwrap_or(usize::MAX);
                facts.within(self.bytes_within, max / 4).and_then(|facts| facts.within(own, max / 16))
            }
            None => facts.within(self.bytes_of_host.saturating_add(texts), max - max / 4),
        };
        self.set_known(slot, kept.map_or(Known::NoRoom, |facts| Known::Facts(Box::new(facts))));
    }

    /// Keeps what is known of a cgroup without a check for room.
    pub fn set_known(&mut self, slot: Slot, known: Known) {
        let bytes = |known: &Known| if let Known::Facts(facts) = known { facts.bytes() } else { 0 };
        let Some(node) = self.node_mut(slot) else { return };
        let (within, more) = (node.within, bytes(&known));
        let less = bytes(&std::mem::replace(&mut node.known, known));
        let change = |sum: usize| sum.saturating_add(more).saturating_sub(less);
        if within == NOWHERE {
            self.bytes_of_host = change(self.bytes_of_host);
            return;
        }
        self.bytes_within = change(self.bytes_within);
        if let Some(owner) = self.node_mut(within) {
            let own = change(usize::try_from(owner.bytes).unwrap_or(usize::MAX));
            owner.bytes = u32::try_from(own).unwrap_or(u32::MAX);
        }
    }
}
