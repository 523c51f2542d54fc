//! Finds the container, pod and unit of the cgroup that a kill showed.

use super::{CgroupTree, Seen, allowance::Need, names_of, owner_depth, place, prefix, store::Known};
use crate::{
    containers::{
        Facts,
        grammar::{self, Shape},
        owner::{CLAIMS_MAX, Claim, Identity, claims, decide},
    },
    event::{Absence, Reason, Why},
    facts::{BootTime, CgroupId},
};

/// The share that was used up.
const TIME: &str = "time";
const MEMORY: &str = "memory";

/// Where a claim is on a path.
struct At<'a> {
    /// The path of the claim's cgroup.
    path: &'a [u8],
    /// The names of the whole path.
    names: &'a [&'a [u8]],
    /// How many of these names `path` has.
    depth: usize,
    id: Option<CgroupId>,
}

/// Which claims are looked up. Of the host's own: the outermost few. In an owned cgroup names prove nothing,
/// so two are looked up: the innermost plain one, which may be that container, and the outermost, which else
/// contains all.
fn asked(claims: &[(usize, Shape<'_>)], owner: Option<usize>) -> Vec<bool> {
    let own = claims.iter().take_while(|(depth, _)| owner.is_none_or(|owner| *depth <= owner)).count();
    let plain = |at: &usize| claims.get(*at).is_some_and(|(_, shape)| shape.is_plain());
    let outermost = (own..claims.len()).find(plain);
    let innermost =
        (own..claims.len()).rfind(plain).or(claims.len().checked_sub(1).filter(|last| *last >= own));
    let is_asked = |at: usize| at < own.min(CLAIMS_MAX) || Some(at) == outermost || Some(at) == innermost;
    (0..claims.len()).map(is_asked).collect()
}

impl CgroupTree {
    /// Whose the cgroup is that a kill showed. The path that the kernel captured counts more than the path
    /// kept for its id.
    pub fn identify(&mut self, seen: Seen<'_>, now: BootTime) -> Identity {
        let Some(path) = self.whole_path(&seen) else { return self.identify_above(&seen, now) };
        let names = names_of(&path);
        self.now = self.now.max(now);
        self.learn_base(&seen, &names);
        let claims = claims(&names, self.base);
        let asked = asked(&claims, owner_depth(&names, self.base));
        let claims = claims.into_iter().zip(asked).map(|((depth, shape), asked)| {
            let id = names.len().checked_sub(depth).and_then(|up| seen.ids.get(up)).copied();
            let at = At { path: prefix(&path, &names, depth), names: &names, depth, id };
            let found =
                if asked { self.found_at(&at, &shape) } else { Err(Reason::TooManyContainers.into()) };
            Claim { depth, shape, found }
        });
        let claims = claims.collect();
        decide(&names, self.base, claims)
    }

    /// Whose a cgroup is, by what is known already: no file is read.
    pub fn identify_known(&self, id: CgroupId) -> Option<Identity> {
        let path = self.path_of(id)?;
        let names = names_of(&path);
        let claims = claims(&names, self.base).into_iter().map(|(depth, shape)| {
            let slot = self.store.slot_at(names.get(..depth).unwrap_or_default());
            let found = match slot.map(|slot| self.store.known(slot)) {
                Some(Known::Facts(facts)) => Ok(Facts::clone(facts)),
                Some(Known::NoRoom) => Err(Why::with(Reason::ShareUsedUp, MEMORY)),
                Some(Known::Absent { .. }) => Err(self.runtimes.absent(&shape)),
                Some(Known::Unasked) | None => Err(Reason::NotRead.into()),
            };
            Claim { depth, shape, found }
        });
        Some(decide(&names, self.base, claims.collect()))
    }

    /// Finds the owner through the nearest known ancestor. A path longer than the kernel captures must not
    /// hide the owner. No runtime makes a container that deep, so a cgroup without a known name is inside the
    /// container above it.
    fn identify_above(&mut self, seen: &Seen<'_>, now: BootTime) -> Identity {
        let above = seen.ids.iter().enumerate().find_map(|(up, id)| Some((up, self.path_of(*id)?)));
        // An ancestor among the captured names would have given the whole path, unless it was renamed since.
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

    /// The facts of the container at a place: from its runtime's files now, else from when the cgroup was
    /// made.
    fn found_at(&mut self, at: &At<'_>, shape: &Shape<'_>) -> Result<Facts, Why> {
        let names = at.names.get(..at.depth).unwrap_or_default();
        let slot = match at.id {
            Some(id) => {
                self.store.slot_of(id).filter(|slot| self.store.path(*slot).as_deref() == Some(at.path))
            }
            None => self.store.slot_at(names),
        };
        let place = place(at.path, at.names, at.depth, self.base);
        let owner = self.owner_key(at.path, names, at.depth);
        let known = slot.map(|slot| self.store.known(slot));
        let no_room = matches!(known, Some(Known::NoRoom));
        if let Some(Known::Facts(known)) = known {
            let known = Facts::clone(known);
            // If there is no time to read again, the facts from when the cgroup was made are used.
            let again = self
                .on_time_of(owner, Need::Kill, |tree| tree.runtimes.look_again(&known, shape.id(), place));
            return Ok(again.flatten().unwrap_or(known));
        }
        let gone = slot.is_some_and(|slot| self.store.is_dead(slot));
        let replaced = at.id.is_some() && slot.is_none() && self.store.slot_at(names).is_some();
        // An id that is free text may belong to another container now.
        if (gone || replaced) && !grammar::is_hex_id(shape.id()) && !shape.is_by_path() {
            return Err(Reason::ContainerUnknown.into());
        }
        if slot.is_some_and(|slot| self.is_absent(slot)) {
            return Err(self.runtimes.absent(shape));
        }
        let generation = self.runtimes.generation();
        let Some(found) = self.on_time_of(owner, Need::Kill, |tree| tree.runtimes.look_up(shape, place))
        else {
            self.unread += 1;
            return Err(Why::with(Reason::ShareUsedUp, TIME));
        };
        match (found, slot) {
            (Ok(facts), slot) => {
                if let Some(slot) = slot {
                    self.keep(slot, facts.clone());
                }
                Ok(facts)
            }
            (Err(_), _) if no_room => {
                self.unread += 1;
                Err(Why::with(Reason::ShareUsedUp, MEMORY))
            }
            (Err(unnamed), slot) => {
                if let Some(slot) = slot {
                    self.remember(slot, &unnamed, generation);
                }
                Err(unnamed.why)
            }
        }
    }

    /// The whole path of the cgroup: the kernel's, or if that is cut, the path kept for the nearest ancestor
    /// plus the kernel's names below it.
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

    /// If the tracer sees only a part of the tree, the ancestors of a kill's cgroup show which part.
    fn learn_base(&mut self, seen: &Seen<'_>, names: &[&[u8]]) {
        let Some(mount) = self.mount else { return };
        let Some(up) = seen.ids.iter().position(|id| *id == mount) else { return };
        let Some(base) = names.len().checked_sub(up) else { return };
        self.mount = None;
        self.base = base;
        let part = self.store.slot_of(mount).zip(names.get(..base));
        self.store.set_base(base, part);
    }
}
