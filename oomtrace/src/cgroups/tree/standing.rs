//! Whose a cgroup is, by its place alone: no file is read.

use super::{CgroupTree, names_of, owner_depth};
use crate::{containers::grammar, facts::CgroupId};

/// Whose a cgroup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// It is named like a container's or a unit's.
    pub is_named: bool,
    /// It is below a container's, a service's or a user's, so its name proves nothing.
    pub is_owned: bool,
}

impl CgroupTree {
    /// Whose the cgroup is; `None` if its path is not known.
    pub fn place_of(&self, id: CgroupId) -> Option<Place> {
        let path = self.path_of(id)?;
        let names = names_of(&path);
        let names = names.get(self.base.min(names.len())..).unwrap_or_default();
        let (name, above) = names.split_last()?;
        let is_owned = owner_depth(names, 0).is_some_and(|owner| owner < names.len())
            || grammar::user_of(above).is_some();
        let is_unit = name.ends_with(b".service") || name.ends_with(b".scope");
        let is_named = is_unit || grammar::shape(above, name, None).is_some();
        Some(Place { is_named, is_owned })
    }
}
