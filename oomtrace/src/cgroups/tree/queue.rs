//! Cgroups that were made and whose files were not read since: the host's own first, and those within another's for a
//! share of the time. Which are gone by then, or have to wait too long, are looked at when a kill shows them.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::{CgroupTree, Slot, allowance::Allowance, names_of, owner_depth, place, prefix};
use crate::{
    cgroups::tree::store::Known,
    containers::{Unnamed, owner::claims},
    facts::CgroupId,
};

/// Cgroups within others' that wait at the most.
const OTHERS_MAX: usize = 4096;
/// When no owner of these has time left, they are looked at again after so long.
const OTHERS_PAUSE: Duration = Duration::from_millis(100);
/// Of these so many are looked at to find one whose owner has time left.
const OWNERS_TRIED: usize = 64;

#[derive(Debug)]
pub(super) struct Queue {
    own: VecDeque<(Slot, CgroupId)>,
    others: VecDeque<(Slot, CgroupId)>,
    allowance: Allowance,
    began: Instant,
    /// When those within others' are looked at again: none of them had time left.
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
            not_before: None,
            hasher: RandomState::new(),
        }
    }
}

impl CgroupTree {
    pub(super) fn enqueue(&mut self, slot: Slot, id: CgroupId) {
        if self.store.owner_of(slot).is_none() {
            self.queue.own.push_back((slot, id));
            return;
        }
        if self.queue.others.len() >= OTHERS_MAX {
            let store = &self.store;
            self.queue.others.retain(|(slot, id)| store.slot_of(*id) == Some(*slot) && !store.is_dead(*slot));
        }
        if self.queue.others.len() < OTHERS_MAX {
            self.queue.others.push_back((slot, id));
        }
    }

    /// Reads the files of one cgroup that was made and not looked at since. False when there is none whose turn it is.
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
            // Its files may be there still, but whoever removes cgroups must not cost those that stay their names.
            if self.store.slot_of(id) != Some(slot) || self.store.is_dead(slot) {
                continue;
            }
            if self.resolve(slot) {
                return true;
            }
            self.queue.others.push_back((slot, id));
            tried += 1;
            if self.queue.allowance.is_spent(self.queue.began.elapsed()) {
                break;
            }
        }
        let waits = !self.queue.others.is_empty();
        self.queue.not_before = waits.then(|| Instant::now() + OTHERS_PAUSE);
        false
    }

    /// When there is something to read that could not be read at the last call of [`Self::resolve_next`].
    pub fn resolve_due(&self) -> Option<Instant> {
        self.queue.not_before
    }

    /// Looks at the files of a cgroup, unless its owner's share of the time is used up: then it is not done.
    fn resolve(&mut self, slot: Slot) -> bool {
        let Some(path) = self.store.path(slot) else { return true };
        let names = names_of(&path);
        // What is below is not known yet; only nspawn's shape asks, and that has no files.
        let Some((depth, shape)) = claims(&names, self.base).pop().filter(|(depth, _)| *depth == names.len())
        else {
            return true;
        };
        let place = place(&path, &names, depth, self.base);
        let generation = self.runtimes.generation();
        let owner = self.owner_key(&path, &names, depth);
        let Some(found) = self.on_time_of(owner, |tree| tree.runtimes.look_up(&shape, place)) else {
            return false;
        };
        match found {
            Ok(facts) => self.keep(slot, facts),
            Err(unnamed) => self.remember(slot, &unnamed, generation),
        }
        true
    }

    /// Who pays for the time that the cgroup at `depth` of `path` takes; nobody for a host's own.
    pub(super) fn owner_key(&self, path: &[u8], names: &[&[u8]], depth: usize) -> Option<u64> {
        let owner = owner_depth(names, self.base).filter(|owner| *owner < depth)?;
        Some(self.queue.hasher.hash_one(prefix(path, names, owner)))
    }

    /// Does what reads files for `owner`; `None` if the owner's share of the time is used up.
    pub(super) fn on_time_of<T>(
        &mut self,
        owner: Option<u64>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Some(owner) = owner else { return Some(read(self)) };
        let began = self.queue.began.elapsed();
        if !self.queue.allowance.may(owner, began) {
            return None;
        }
        let done = read(self);
        let took = self.queue.began.elapsed().saturating_sub(began);
        self.queue.allowance.spend(owner, took);
        Some(done)
    }

    pub(super) fn keep(&mut self, slot: Slot, facts: crate::containers::Facts) {
        self.store.keep(slot, facts, &self.limits, self.runtimes.texts_bytes());
    }

    /// That no file is there is so until a directory changes; `generation` is what they were before it was looked.
    pub(super) fn remember(&mut self, slot: Slot, unnamed: &Unnamed, generation: Option<u32>) {
        if let (true, Some(generation)) = (unnamed.lasting, generation) {
            self.store.set_known(slot, Known::Absent { generation, at: self.seconds() });
        }
    }

    /// Whether it is known that no file of a runtime was there, and still so.
    pub(super) fn is_absent(&mut self, slot: Slot) -> bool {
        let Known::Absent { generation, at } = *self.store.known(slot) else { return false };
        self.seconds().saturating_sub(at) < ABSENT_SECONDS && self.runtimes.generation() == Some(generation)
    }

    fn seconds(&self) -> u64 {
        self.now.0 / 1_000_000_000
    }
}

/// What was not there is looked for again after so long, whatever else is known: a directory may be on a mount that came later.
const ABSENT_SECONDS: u64 = 10;
