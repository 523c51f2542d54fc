//! Cgroups whose usage does not contain those below them. There are some only on cgroup v1 before Linux 5.11, where
//! `memory.use_hierarchy` of a cgroup is 0.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cgroups::{memory_files::directory, tree::CgroupTree},
    facts::CgroupId,
    sources::sampling::Walk,
};

const FILE: &str = "memory.use_hierarchy";
/// The most cgroups whose file is read.
const READ_MAX: usize = 256;

/// Where the files are; `None` if no cgroup is like that.
#[derive(Debug, Default)]
pub(super) struct Flat(Option<PathBuf>);

impl Flat {
    /// Reads the root's file: if it says 1, all below it do, and cannot be changed.
    pub(super) fn new(mount: Option<&Path>) -> Self {
        Self(mount.filter(|mount| read(mount) == Some(false)).map(Path::to_owned))
    }

    /// Those of a walk.
    ///
    /// # Errors
    /// If it is not known of one that has others below it.
    pub(super) fn of(&self, walk: &Walk<'_>, tree: &CgroupTree) -> Result<HashSet<CgroupId>, String> {
        let Some(mount) = &self.0 else { return Ok(HashSet::new()) };
        let roots: HashSet<_> =
            walk.cgroups().filter(|sample| sample.parent.is_none()).map(|sample| sample.id).collect();
        // A removed one has no file, and none below it that is not removed too.
        let below = walk.cgroups().filter(|sample| sample.removed != Some(true));
        let above: HashSet<_> =
            below.filter_map(|sample| sample.parent).filter(|id| !roots.contains(id)).collect();
        if above.len() > READ_MAX {
            return Err(format!("{FILE} of {} cgroups would have to be read", above.len()));
        }
        let mut flat = HashSet::new();
        for id in above {
            let path =
                tree.path_of(id).ok_or_else(|| format!("{FILE} of cgroup {id}: its path is not known"))?;
            let dir = directory(mount, &path);
            match read(&dir) {
                Some(true) => {}
                Some(false) => drop(flat.insert(id)),
                None => return Err(format!("{} cannot be read", dir.join(FILE).display())),
            }
        }
        Ok(flat)
    }
}

/// Whether the usage contains those below it.
fn read(dir: &Path) -> Option<bool> {
    fs::read_to_string(dir.join(FILE)).ok().map(|text| text.trim() != "0")
}
