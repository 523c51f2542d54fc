//! The cgroups' own counts of kills, at two moments: when no kill was missing, and when one was first missing.
//! Another thread reads them, but for the first ones.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, DirEntry},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use crate::{
    accounting::kills_by_cgroup::KillsByCgroup,
    cgroups::{
        file_thread::{Client, Errand, FileThread},
        memory_files::{MemoryFiles, directory},
    },
    event::{GapCgroup, text_from_kernel},
    facts::CgroupId,
};

/// The most cgroups whose counts are read. Each takes about 10 µs.
const CGROUPS: usize = 8192;
/// The most bytes of paths that are kept: users choose how long they are.
const PATHS_BYTES: usize = 1 << 20;

/// `oom_kill` of the cgroups at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The path and the count of each cgroup. Cgroups without a kill may be absent.
    pub of: BTreeMap<CgroupId, (String, u64)>,
    /// No cgroup was left out: a cgroup that is absent had no kill.
    pub whole: bool,
}

/// The counts at both moments.
#[derive(Debug)]
pub(super) struct CgroupCounts {
    client: Client<Count>,
    mount: PathBuf,
    v1: bool,
    /// When no kill was missing; `None` until they are read.
    before: Option<Counts>,
    /// When a kill was first missing.
    after: Option<Counts>,
    /// What the thread reads.
    asked: Option<Moment>,
    /// Kills without a known cgroup, at the time of `before`.
    unplaced: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl CgroupCounts {
    /// Reads the first counts at once: nothing is late yet.
    pub(super) fn read(thread: &FileThread, mount: PathBuf, v1: bool, unplaced: u64) -> io::Result<Self> {
        let mut count = Count { mount, v1, counts: Counts::default() };
        count.run();
        let Count { mount, counts, .. } = count;
        let (before, client) = (Some(counts), thread.client()?);
        Ok(Self { client, mount, v1, before, after: None, asked: None, unplaced })
    }

    /// Takes in what was read.
    pub(super) fn take_in(&mut self) {
        let Some(Count { counts, .. }) = self.client.take_back() else { return };
        match self.asked.take() {
            Some(Moment::Before) => self.before = Some(counts),
            Some(Moment::After) => self.after = Some(counts),
            // It is not needed any more.
            None => {}
        }
    }

    /// Kills without a known cgroup, when no kill was missing; `None` if these counts are not known.
    pub(super) fn unplaced(&self) -> Option<u64> {
        (self.before.is_some() || self.asked == Some(Moment::Before)).then_some(self.unplaced)
    }

    /// No kill is missing now. Returns false if the counts cannot be read: others are read still.
    pub(super) fn restart(&mut self, unplaced: u64) -> bool {
        // Counts from before this moment would name a cgroup that was removed since.
        // What is being read is from before it too.
        (self.after, self.asked, self.unplaced) = (None, None, unplaced);
        let old = self.before.take();
        self.ask(Moment::Before, old)
    }

    /// A kill may be missing: keeps the counts of now, unless those of an earlier time are there.
    pub(super) fn differ(&mut self) {
        if self.after.is_none() && self.asked.is_none() {
            self.ask(Moment::After, None);
        }
    }

    /// No kill is missing.
    pub(super) fn agree(&mut self) {
        self.after = None;
        self.asked.take_if(|asked| *asked == Moment::After);
    }

    /// `old` counts are freed by the thread, which made them.
    fn ask(&mut self, moment: Moment, old: Option<Counts>) -> bool {
        let counts = old.unwrap_or_default();
        let sent = self.client.send(Count { mount: self.mount.clone(), v1: self.v1, counts });
        if sent {
            self.asked = Some(moment);
        }
        sent
    }

    /// The cgroups in which kills are missing.
    pub(super) fn unreported(&self, reported: &KillsByCgroup, unplaced: u64) -> Vec<GapCgroup> {
        let Some((before, after)) = self.before.as_ref().zip(self.after.as_ref()) else { return Vec::new() };
        // A kill can be added here and taken back later. Only the sum counts.
        let unplaced = unplaced.wrapping_sub(self.unplaced).cast_signed().max(0);
        reported.unreported(before, after, unplaced.cast_unsigned())
    }
}

/// Reads the counts: on v2 of the topmost cgroups, which include all below; on v1 of each cgroup.
#[derive(Debug)]
struct Count {
    mount: PathBuf,
    v1: bool,
    counts: Counts,
}

impl Errand for Count {
    fn run(&mut self) {
        self.counts = Counts { whole: true, ..Counts::default() };
        let (mut left, mut kept) = (CGROUPS, PATHS_BYTES);
        if self.v1
            && let Ok(root) = fs::metadata(&self.mount)
        {
            self.add(CgroupId(root.ino()), b"/", &mut kept);
        }
        // Those near the root come first: what users make is deeper.
        let (mut waiting, mut room) = (VecDeque::from([Vec::new()]), PATHS_BYTES);
        while let Some(path) = waiting.pop_front() {
            room += path.len();
            let below = below(&self.mount, &path);
            self.counts.whole &= below.is_some();
            for (id, name) in below.into_iter().flatten() {
                if left == 0 {
                    self.counts.whole = false;
                    return;
                }
                left -= 1;
                let child = [&path[..], b"/", &name].concat();
                self.add(id, &child, &mut kept);
                match room.checked_sub(child.len()) {
                    _ if !self.v1 => {}
                    Some(rest) => {
                        room = rest;
                        waiting.push_back(child);
                    }
                    None => self.counts.whole = false,
                }
            }
        }
    }
}

impl Count {
    /// Reads the count of a cgroup. One that is gone counts no more kills. Counts of zero, the most common, are not kept.
    fn add(&mut self, id: CgroupId, path: &[u8], kept: &mut usize) {
        let Some(count @ 1..) = MemoryFiles::of(&self.mount, path, self.v1).oom_kills() else { return };
        match kept.checked_sub(path.len()) {
            Some(rest) => {
                *kept = rest;
                self.counts.of.insert(id, (text_from_kernel(path), count));
            }
            None => self.counts.whole = false,
        }
    }
}

/// The cgroups directly below one, with their names; `None` if they cannot be read.
fn below(mount: &Path, path: &[u8]) -> Option<impl Iterator<Item = (CgroupId, Vec<u8>)> + use<>> {
    let entries = match fs::read_dir(directory(mount, path)) {
        Ok(entries) => Some(entries),
        // It is gone, and has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => return None,
    };
    let is_cgroup = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let cgroup = |entry: DirEntry| (CgroupId(entry.ino()), entry.file_name().as_bytes().to_vec());
    Some(entries.into_iter().flatten().flatten().filter(is_cgroup).map(cgroup))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::facts::BootTime;

    fn count(mount: &Path, v1: bool) -> Counts {
        let mut count = Count { mount: mount.to_owned(), v1, counts: Counts::default() };
        count.run();
        count.counts
    }

    fn make(mount: &Path, path: &str, kills: u64) {
        let dir = mount.join(path);
        fs::create_dir_all(&dir).unwrap();
        for file in ["memory.oom_control", "memory.events"] {
            fs::write(dir.join(file), format!("oom_kill {kills}\n")).unwrap();
        }
    }

    fn paths(counts: &Counts) -> Vec<(&str, u64)> {
        let mut paths: Vec<_> = counts.of.values().map(|(path, count)| (path.as_str(), *count)).collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn on_v1_each_cgroup_and_on_v2_the_topmost() {
        let mount = tempfile::tempdir().unwrap();
        for (path, kills) in [("", 4), ("a", 1), ("a/b", 0), ("a/b/c", 3)] {
            make(mount.path(), path, kills);
        }
        let (v1, v2) = (count(mount.path(), true), count(mount.path(), false));
        assert_eq!((paths(&v1), v1.whole), (vec![("/", 4), ("/a", 1), ("/a/b/c", 3)], true));
        assert_eq!((paths(&v2), v2.whole), (vec![("/a", 1)], true));
        let inode = fs::metadata(mount.path().join("a")).unwrap().ino();
        assert_eq!(v1.of.get(&CgroupId(inode)).unwrap().1, 1);
    }

    #[test]
    fn after_a_new_start_no_older_count_names_a_cgroup() {
        let mount = tempfile::tempdir().unwrap();
        let thread = FileThread::start().unwrap();
        let mut counts = CgroupCounts::read(&thread, mount.path().to_owned(), false, 0).unwrap();
        let reported = KillsByCgroup::new(true, BootTime(0));
        make(mount.path(), "a", 2);
        counts.differ();
        while counts.after.is_none() {
            counts.take_in();
        }
        let named = counts.unreported(&reported, 0);
        assert_eq!(named.first().map(|cgroup| (cgroup.path.as_str(), cgroup.kernel_kills)), Some(("/a", 2)));
        fs::remove_dir_all(mount.path().join("a")).unwrap();
        assert!(counts.restart(0));
        while counts.before.is_none() {
            counts.take_in();
        }
        assert_eq!(counts.unreported(&reported, 0), []);
    }

    #[test]
    fn paths_that_would_take_too_much_memory_are_left_out_and_it_is_known() {
        let mount = tempfile::tempdir().unwrap();
        let long = "x".repeat(250);
        // Each path has a slash and 250 bytes.
        let some = PATHS_BYTES / 251;
        for name in 0..some {
            make(mount.path(), &format!("{name:04}{}", &long[4..]), 1);
        }
        let counts = count(mount.path(), false);
        assert_eq!((counts.of.len(), counts.whole), (some, true));
        make(mount.path(), &long, 1);
        let counts = count(mount.path(), false);
        assert_eq!((counts.of.len(), counts.whole), (some, false));
    }
}
