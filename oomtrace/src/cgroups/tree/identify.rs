//! Whose a cgroup is: what a kill showed and what is kept in, the container, the pod and the unit out.

use super::{CgroupTree, Seen, names_of, owner_depth, place, prefix, store::Known};
use crate::{
    containers::{
        Facts,
        grammar::{self, Shape},
        owner::{CLAIMS_MAX, Claim, Identity, claims, decide},
    },
    event::{Absence, Reason, Why},
    facts::{BootTime, CgroupId},
};

/// What of a share was used up.
const TIME: &str = "time";
const MEMORY: &str = "memory";

/// The place of a claim on a path.
struct At<'a> {
    /// Its own path.
    path: &'a [u8],
    /// The names of the whole path.
    names: &'a [&'a [u8]],
    /// How many of them are its own.
    depth: usize,
    id: Option<CgroupId>,
}

/// Which of the claims are looked up: of the host's own the outermost few. Within a user's, a service's or a container's
/// cgroup, where names cost nothing, the innermost plain one, which may be exactly that container, and the outermost,
/// to which all belongs if it is not.
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
    /// Whose the cgroup is that a kill showed. The path that the kernel captured is believed
    /// over the one kept for its id.
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

    /// What is known of the container at a place: as its runtime says now, else as it said
    /// when the cgroup was made.
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
            // Where there is no time for it, what was read when the cgroup was made stands.
            let again = self.on_time_of(owner, |tree| tree.runtimes.look_again(&known, shape.id(), place));
            return Ok(again.flatten().unwrap_or(known));
        }
        let gone = slot.is_some_and(|slot| self.store.is_dead(slot));
        let replaced = at.id.is_some() && slot.is_none() && self.store.slot_at(names).is_some();
        // An id that is free text may belong to another container by now.
        if (gone || replaced) && !grammar::is_hex_id(shape.id()) && !shape.is_by_path() {
            return Err(Reason::ContainerUnknown.into());
        }
        if slot.is_some_and(|slot| self.is_absent(slot)) {
            return Err(self.runtimes.absent(shape));
        }
        let generation = self.runtimes.generation();
        let Some(found) = self.on_time_of(owner, |tree| tree.runtimes.look_up(shape, place)) else {
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
        let part = self.store.slot_of(mount).zip(names.get(..base));
        self.store.set_base(base, part);
    }
}
