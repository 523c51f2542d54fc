//! Reads the cgroups that exist already from the directories of the memory hierarchy's mount. Ids are the
//! inode numbers of the directory entries, so no cgroup needs a `stat`: 10,000 take 0.2 s instead of 2 s.

use std::collections::HashSet;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::{
    cgroups::tree::CgroupTree,
    facts::{BootTime, CgroupId},
};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC`.
const CGROUP_MAGIC: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
/// The inode number of the root of every cgroup hierarchy.
const ROOT_INODE: u64 = 1;
/// Each level needs an open file descriptor while the levels below it are walked.
const DEPTH_MAX: usize = 256;
/// The buffer for one read of a directory. The kernel fills it with as many entries as fit.
const ENTRIES_BYTES: usize = 32 * 1024;

/// The result of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkSummary {
    /// Cgroups below the root.
    pub cgroups: usize,
    /// Directories that exist but could not be read, or are deeper than the limit.
    pub skipped: usize,
    /// Cgroups that were kept as existing but are gone: their removal was not reported.
    pub gone: usize,
    /// The mount shows only a part of the tree, because the tracer is in a cgroup namespace of its own.
    pub part: bool,
}

/// The mount could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the memory cgroups at {}: {source}", mount.display())]
pub struct WalkError {
    /// The directory.
    pub mount: PathBuf,
    /// The error of the system.
    pub source: std::io::Error,
}

/// A directory that is being read.
struct Level {
    dir: OwnedFd,
    id: CgroupId,
    /// All of its entries were read.
    read: bool,
    /// Cgroups in it whose own directories were not read yet.
    below: Vec<(CgroupId, CString)>,
}

/// A walk in progress. It can pause. Cgroups can be made and removed meanwhile, so they are known by their
/// ids.
pub struct Walk {
    now: BootTime,
    buffer: Vec<MaybeUninit<u8>>,
    levels: Vec<Level>,
    /// Kept cgroups that were not found yet.
    unseen: HashSet<CgroupId>,
    summary: WalkSummary,
}

impl CgroupTree {
    /// Adds the cgroups below `mount`, the mount of the memory hierarchy. The programs must be attached
    /// before the walk, so that no cgroup is missed. A later walk, after changes were lost, also finds
    /// removed cgroups.
    pub fn walk(&mut self, mount: &Path, now: BootTime) -> Result<WalkSummary, WalkError> {
        let mut walk = self.begin_walk(mount, now)?;
        while !self.walk_on(&mut walk) {}
        Ok(walk.summary)
    }

    /// Starts a walk that is done in steps.
    pub fn begin_walk(&mut self, mount: &Path, now: BootTime) -> Result<Walk, WalkError> {
        let refused = |errno: Errno| WalkError { mount: mount.to_owned(), source: errno.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, mount, flags, Mode::empty()).map_err(refused)?;
        let stat = rustix::fs::fstat(&dir).map_err(refused)?;
        let is_cgroup = rustix::fs::fstatfs(&dir)
            .is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|magic| CGROUP_MAGIC.contains(&magic)));
        let part = is_cgroup && stat.st_ino != ROOT_INODE;
        let mut walk = self.begin_walk_from(dir, CgroupId(stat.st_ino), part, now);
        self.read_some(&mut walk).map_err(refused)?;
        Ok(walk)
    }

    fn begin_walk_from(&mut self, dir: OwnedFd, id: CgroupId, part: bool, now: BootTime) -> Walk {
        if part {
            self.mount = Some(id);
        }
        if self.store.slot_of(id).is_none() {
            self.store.insert_root(id, part);
        }
        let unseen = self.store.live_from(0).map(|(_, _, id)| id).filter(|known| *known != id).collect();
        Walk {
            now,
            buffer: vec![MaybeUninit::uninit(); ENTRIES_BYTES],
            levels: vec![Level { dir, id, read: false, below: Vec::new() }],
            unseen,
            summary: WalkSummary { part, ..WalkSummary::default() },
        }
    }

    /// Does one step of a walk: one read of a directory's entries, or the next directory. Returns true at the
    /// end.
    pub fn walk_on(&mut self, walk: &mut Walk) -> bool {
        let Some(level) = walk.levels.last_mut() else { return true };
        if !level.read {
            if self.read_some(walk).is_err() {
                walk.summary.skipped += 1;
                walk.levels.pop();
            }
            return false;
        }
        let Some((id, name)) = level.below.pop() else {
            walk.levels.pop();
            if walk.levels.is_empty() {
                self.end_walk(walk);
            }
            return walk.levels.is_empty();
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&level.dir, &name, flags, Mode::empty()) {
            Ok(dir) if walk.levels.len() < DEPTH_MAX => {
                walk.levels.push(Level { dir, id, read: false, below: Vec::new() });
            }
            // Removed since. The kernel reports its removal.
            Err(Errno::NOENT | Errno::NODEV) => {}
            Ok(_) | Err(_) => walk.summary.skipped += 1,
        }
        false
    }

    fn end_walk(&mut self, walk: &mut Walk) {
        // Only a complete walk shows which cgroups are gone.
        if walk.summary.skipped == 0 {
            walk.summary.gone = walk.unseen.len();
            for id in walk.unseen.drain() {
                self.bury(id, walk.now);
            }
        }
    }

    /// Adds some of the cgroups directly in the directory that is being read.
    fn read_some(&mut self, walk: &mut Walk) -> Result<(), Errno> {
        let Some(level) = walk.levels.last_mut() else { return Ok(()) };
        let mut entries = RawDir::new(&level.dir, &mut walk.buffer);
        loop {
            let Some(entry) = entries.next() else {
                level.read = true;
                return Ok(());
            };
            let entry = match entry {
                Ok(entry) => entry,
                // Removed since.
                Err(Errno::NOENT | Errno::NODEV) => {
                    level.read = true;
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            };
            let (name, id) = (entry.file_name(), CgroupId(entry.ino()));
            if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
                walk.summary.cgroups += 1;
                walk.unseen.remove(&id);
                // The cgroup above it may have been removed since.
                let parent = self.store.slot_of(level.id);
                if parent.and_then(|parent| self.insert_at(parent, name.to_bytes(), id, walk.now)).is_some() {
                    level.below.push((id, name.to_owned()));
                }
            }
            if entries.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::cgroups::tree::{Seen, TreeLimits};
    use crate::containers::Runtimes;
    use crate::facts::{CgroupChange, CgroupChangeKind};
    use crate::host::root::Root;

    #[test]
    fn a_part_of_the_tree_finds_its_place_by_a_lineage() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("kubepods/web")).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let (top, web) = (CgroupId(inode(dir.path())), CgroupId(inode(&dir.path().join("kubepods/web"))));
        let runtimes = Runtimes::discover(Root::at(dir.path().join("none")), &[]);
        let mut tree = CgroupTree::new(runtimes, TreeLimits::default());
        let opened = std::fs::File::open(dir.path()).unwrap();
        let mut walk = tree.begin_walk_from(opened.into(), top, true, BootTime(0));
        while !tree.walk_on(&mut walk) {}
        assert_eq!(tree.path_of(web), None, "its head is not known");

        let kubepods = CgroupId(inode(&dir.path().join("kubepods")));
        let ids = [web, kubepods, top, CgroupId(7_000_001), CgroupId(7_000_000)];
        tree.identify(
            Seen { ids: &ids, path: b"/docker/node/kubepods/web", path_is_whole: true },
            BootTime(1),
        );
        assert_eq!(tree.path_of(web).unwrap(), b"/docker/node/kubepods/web");
        assert_eq!(tree.base, 2);

        let made = CgroupChange {
            time: BootTime(2),
            id: CgroupId(9_000_000),
            kind: CgroupChangeKind::Made,
            path: b"/docker/node/kubepods/new".to_vec(),
        };
        tree.apply(&made);
        assert_eq!(tree.path_of(made.id).unwrap(), made.path);
        assert!(tree.was_seen_made(made.id) && !tree.was_seen_made(web), "web was there before");
    }
}
