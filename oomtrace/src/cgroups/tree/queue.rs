//! New cgroups whose files are still to be read: first the host's own, then the owned ones, for their share
//! of the time. A cgroup that is removed before its turn is looked up when a kill shows it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::{
    CgroupTree, Slot,
    allowance::{Allowance, Need},
    names_of, owner_depth, place, prefix,
};
use crate::{
    cgroups::tree::store::Known,
    containers::{Unnamed, owner::claims},
    facts::CgroupId,
};

/// The most owned cgroups that wait.
const OTHERS_MAX: usize = 4096;
/// With this many waiting, gone ones are removed once per this many new ones. Checking each costs more than a
/// cgroup does.
const CLEAN_EVERY: u32 = 1024;
/// If no owner has time left, the owned ones are tried again after this.
const OTHERS_PAUSE: Duration = Duration::from_millis(100);
/// How many owned cgroups are tried to find an owner with time left.
const OWNERS_TRIED: usize = 64;

#[derive(Debug)]
pub(super) struct Queue {
    own: VecDeque<(Slot, CgroupId)>,
    others: VecDeque<(Slot, CgroupId)>,
    allowance: Allowance,
    began: Instant,
    /// How many new ones found no room.
    crowded: u32,
    /// When the owned ones are tried again, because no owner had time left.
    not_before: Option<Instant>,
    hasher: RandomState,
}

impl Queue {
    pub(super) fn new(others_time: Duration) -> Self {
        Self {
            own: VecDeque::new(),
            others: VecDeque::new(),
            allowance: Allowance::new(others_time),
            began: Instant::now(),
            crowded: 0,
            not_before: None,
            hasher: RandomState::new(),
        }
    }

    /// Counts a new one that finds no room.
    fn is_to_be_cleaned(&mut self) -> bool {
        let first = self.crowded.is_multiple_of(CLEAN_EVERY);
        self.crowded = self.crowded.wrapping_add(1);
        first
    }
}

impl CgroupTree {
    pub(super) fn enqueue(&mut self, slot: Slot, id: CgroupId) {
        if self.store.owner_of(slot).is_none() {
            self.queue.own.push_back((slot, id));
            return;
        }
        if self.queue.others.len() >= OTHERS_MAX && self.queue.is_to_be_cleaned() {
            let store = &self.store;
            self.queue.others.retain(|(slot, id)| store.slot_of(*id) == Some(*slot) && !store.is_dead(*slot));
        }
        if self.queue.others.len() < OTHERS_MAX {
            self.queue.others.push_back((slot, id));
        }
    }

    /// Reads the files of one waiting cgroup. Returns false if none can be read now.
    pub fn resolve_next(&mut self) -> bool {
        while let Some((slot, id)) = self.queue.own.pop_front() {
            if self.store.slot_of(id) == Some(slot) {
                self.resolve(slot);
                return true;
            }
        }
        let mut tried = 0;
        while tried < OWNERS_TRIED
            && let Some((slot, id)) = self.queue.others.pop_front()
        {
            // The files of a removed cgroup may still exist, but an owner that removes many cgroups must not
            // delay the others.
            if self.store.slot_of(id) != Some(slot) || self.store.is_dead(slot) {
                continue;
            }
            if self.resolve(slot) {
                return true;
            }
            self.queue.others.push_back((slot, id));
            tried += 1;
            if self.queue.allowance.is_spent(Need::Cgroup, self.queue.began.elapsed()) {
                break;
            }
        }
        let waits = !self.queue.others.is_empty();
        self.queue.not_before = waits.then(|| Instant::now() + OTHERS_PAUSE);
        false
    }

    /// When to call [`Self::resolve_next`] again if cgroups still wait.
    pub fn resolve_due(&self) -> Option<Instant> {
        self.queue.not_before
    }

    /// Reads the files of a cgroup. Returns false, and reads nothing, if its owner has no time left.
    fn resolve(&mut self, slot: Slot) -> bool {
        let Some(path) = self.store.path(slot) else { return true };
        let names = names_of(&path);
        // The cgroups below are not known yet. Only the shape of nspawn needs them, and nspawn has no files.
        let Some((depth, shape)) = claims(&names, self.base).pop().filter(|(depth, _)| *depth == names.len())
        else {
            return true;
        };
        let place = place(&path, &names, depth, self.base);
        let generation = self.runtimes.generation();
        let owner = self.owner_key(&path, &names, depth);
        let look_up = |tree: &mut Self| tree.runtimes.look_up(&shape, place);
        let Some(found) = self.on_time_of(owner, Need::Cgroup, look_up) else {
            return false;
        };
        match found {
            Ok(facts) => self.keep(slot, facts),
            Err(unnamed) => self.remember(slot, &unnamed, generation),
        }
        true
    }

    /// The key of the owner to whom the time for the cgroup at `depth` of `path` is charged; `None` for the
    /// host's own.
    pub(super) fn owner_key(&self, path: &[u8], names: &[&[u8]], depth: usize) -> Option<u64> {
        let owner = owner_depth(names, self.base).filter(|owner| *owner < depth)?;
        Some(self.queue.hasher.hash_one(prefix(path, names, owner)))
    }

    /// Runs `read` on the time of `owner`; `None` if the owner has no time left.
    pub(super) fn on_time_of<T>(
        &mut self,
        owner: Option<u64>,
        need: Need,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Some(owner) = owner else { return Some(read(self)) };
        let began = self.queue.began.elapsed();
        if !self.queue.allowance.may(owner, need, began) {
            return None;
        }
        let _of_others = self.runtimes.take_starts();
        let done = read(self);
        let took = self.queue.began.elapsed().saturating_sub(began);
        // An owner's first container would use up its time: the start of a process takes some milliseconds.
        self.queue.allowance.spend(owner, took.saturating_sub(self.runtimes.take_starts()));
        Some(done)
    }

    pub(super) fn keep(&mut self, slot: Slot, facts: crate::containers::Facts) {
        self.store.keep(slot, facts, &self.limits, self.runtimes.texts_bytes());
    }

    /// Remembers that there is no file, until a directory changes. `generation` was read before the lookup.
    pub(super) fn remember(&mut self, slot: Slot, unnamed: &Unnamed, generation: Option<u32>) {
        if let (true, Some(generation)) = (unnamed.lasting, generation) {
            self.store.set_known(slot, Known::Absent { generation, at: self.seconds() });
        }
    }

    /// Whether it is known that no runtime has a file for it, and no directory has changed since.
    pub(super) fn is_absent(&mut self, slot: Slot) -> bool {
        let Known::Absent { generation, at } = *self.store.known(slot) else { return false };
        self.seconds().saturating_sub(at) < ABSENT_SECONDS && self.runtimes.generation() == Some(generation)
    }

    fn seconds(&self) -> u64 {
        self.now.0 / 1_000_000_000
    }
}

/// A missing file is looked for again after this, even if no directory changed: it may be on a mount that
/// came later.
const ABSENT_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_gone_through_once_for_many_that_come() {
        let mut queue = Queue::new(Duration::ZERO);
        assert!(queue.is_to_be_cleaned());
        assert_eq!((0..100_000).filter(|_| queue.is_to_be_cleaned()).count(), 100_000 / 1024);
    }
}
