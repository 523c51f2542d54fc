//! The files of the cgroup that ran out. They are read after the kill, so most often the victim has already
//! released memory. What they say counts only if nothing shows that. There are two witnesses:
//!
//! - The usage, before and after, is still what the kernel side saw at the kill.
//! - The pages of `memory.stat` are those on the kernel's lists. A process that ends unmaps its pages before it
//!   gives them back: `anon` is 0 then, and the usage did not change yet.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, fstatfs, open, openat};
use rustix::io::{Errno, pread};

use crate::{
    cgroups::memory_files::{self, directory},
    event::{CgroupMemory, Lru, Reason, Why},
    facts::kernel_log::run_report::stats,
    host::{identity, process},
};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const MAGICS: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
/// `memory.stat` has about 2 kB, on hosts with many NUMA nodes too: it has no key for each.
const STAT_BYTES: usize = 16 << 10;
/// Pages that a processor charges ahead (`MEMCG_CHARGE_BATCH`).
const BATCH_PAGES: u64 = 64;

/// Which cgroup ran out, and its usage at the kill.
#[derive(Clone, Debug)]
pub(super) struct RanOut {
    pub(super) path: Vec<u8>,
    pub(super) id: u64,
    pub(super) usage_bytes: Option<u64>,
}

impl RanOut {
    pub(super) fn bytes(&self) -> usize {
        self.path.len()
    }
}

/// The opened files of a cgroup.
#[derive(Debug)]
pub(super) struct Files {
    dir: OwnedFd,
    usage: OwnedFd,
    v1: bool,
}

impl Files {
    /// Opens the cgroup, if it is still the one that ran out.
    pub(super) fn open(mount: &Path, cgroup: &RanOut, v1: bool) -> Result<Self, Why> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = open(directory(mount, &cgroup.path), flags, Mode::empty()).map_err(unreadable)?;
        let of_cgroups =
            fstatfs(&dir).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|magic| MAGICS.contains(&magic)));
        // An id of a cgroup is the inode of its directory, and is not used again.
        let same = fstat(&dir).is_ok_and(|stat| stat.st_ino == cgroup.id);
        if !of_cgroups || !same {
            return Err(Why::with(Reason::CgroupFileUnreadable, "another cgroup has this path now"));
        }
        let usage = file(&dir, memory_files::usage_file(v1)).map_err(unreadable)?;
        Ok(Self { dir, usage, v1 })
    }

    /// What the memory was, if it still is what it was at the kill.
    pub(super) fn memory(&self, cgroup: &RanOut) -> Result<CgroupMemory, Why> {
        let at_kill = cgroup.usage_bytes.ok_or(Reason::NotReadInKernel)?;
        let before = self.usage_bytes()?;
        let stat = text(&file(&self.dir, "memory.stat").map_err(unreadable)?, STAT_BYTES)?;
        let kmem = self.v1.then(|| number(&file(&self.dir, memory_files::KMEM_USAGE).ok()?)).flatten();
        let after = self.usage_bytes()?;
        if !is_same(at_kill, before) || !is_same(at_kill, after) {
            return Err(Reason::MemoryChanged.into());
        }
        let memory = stats(&stat, kmem).ok_or(Reason::NotInCgroupFiles)?;
        if !is_listed(&memory) {
            return Err(Reason::MemoryChanged.into());
        }
        if is_up_to_date(&memory, at_kill) { Ok(memory) } else { Err(Reason::CountersBehind.into()) }
    }

    /// The usage now.
    pub(super) fn usage_bytes(&self) -> Result<u64, Why> {
        let text = text(&self.usage, 32)?;
        parsed(&text).ok_or_else(|| Why::with(Reason::CgroupFileUnreadable, "no number in it"))
    }
}

/// Whether a usage is the one at the kill, but for what the processors charge ahead.
fn is_same(at_kill: u64, now: u64) -> bool {
    at_kill.abs_diff(now) <= ahead_bytes()
}

/// What all processors together may hold back.
fn ahead_bytes() -> u64 {
    BATCH_PAGES * identity::page_bytes() * process::processors().unwrap_or(1)
}

/// Whether the parts are most of the usage. Newer kernels may leave out the flush of their counters, also before they print them.
pub(super) fn is_up_to_date(memory: &CgroupMemory, usage_bytes: u64) -> bool {
    let parts = [memory.anon_bytes, memory.file_bytes, memory.kernel_bytes, memory.sock_bytes];
    let sum = parts.into_iter().try_fold(0u64, |sum, part| Some(sum.saturating_add(part?)));
    sum.is_none_or(|sum| sum.saturating_add(usage_bytes / 4 + ahead_bytes()) >= usage_bytes)
}

/// Whether the pages of processes and of files are those on the lists.
fn is_listed(memory: &CgroupMemory) -> bool {
    let Lru { anon_bytes, file_bytes, unevictable_bytes } = memory.lru;
    let sum = |parts: &[Option<u64>]| parts.iter().copied().sum::<Option<u64>>();
    let used = sum(&[memory.anon_bytes, memory.file_bytes]);
    let listed = sum(&[anon_bytes, file_bytes, unevictable_bytes]);
    used.zip(listed).is_some_and(|(used, listed)| used.abs_diff(listed) <= ahead_bytes())
}

fn file(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn unreadable(errno: Errno) -> Why {
    Why::with(Reason::CgroupFileUnreadable, errno.to_string())
}

/// The text of a file, from its beginning. One of more than `most` bytes is refused.
fn text(file: &OwnedFd, most: usize) -> Result<Vec<u8>, Why> {
    let mut text = Vec::with_capacity(4096.min(most));
    let mut chunk = [0; 4096];
    loop {
        let at = u64::try_from(text.len()).unwrap_or(u64::MAX);
        match pread(file, &mut chunk, at) {
            Ok(0) => return Ok(text),
            Ok(got) if text.len() + got > most => {
                return Err(Why::with(Reason::CgroupFileUnreadable, "it is too long"));
            }
            Ok(got) => text.extend_from_slice(chunk.get(..got).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(unreadable(errno)),
        }
    }
}

fn number(file: &OwnedFd) -> Option<u64> {
    parsed(&text(file, 32).ok()?)
}

fn parsed(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_usage_counts_only_if_it_is_the_one_at_the_kill() {
        let ahead = 64 * identity::page_bytes() * process::processors().unwrap();
        let at_kill = 64 << 20;
        assert!(
            is_same(at_kill, at_kill)
                && is_same(at_kill, at_kill - ahead)
                && is_same(at_kill, at_kill + ahead)
        );
        assert!(!is_same(at_kill, at_kill - ahead - 1) && !is_same(at_kill, 0));
    }

    /// As a busy Linux 7.0 reported it, of a cgroup with 96 MiB.
    #[test]
    fn a_report_of_counters_that_are_behind_is_no_split() {
        let usage = 96 << 20;
        let of = |anon: u64, sock: &str| {
            let text = format!("anon {anon}\nfile 20168704\nkernel 102400\n{sock}");
            stats(text.as_bytes(), None).unwrap()
        };
        assert!(!is_up_to_date(&of(1_118_208, "sock 2154496\n"), usage));
        assert!(is_up_to_date(&of(60_145_664, "sock 2154496\n"), usage));
        assert!(is_up_to_date(&of(1_118_208, ""), usage), "a part is not known");
    }

    /// As it was read on Linux 6.18 of a victim that had unmapped all, and given back nothing.
    #[test]
    fn pages_that_are_unmapped_and_still_charged_are_no_split() {
        let of = |rss: u64, cache: u64| {
            let text = format!(
                "cache 0\nrss 0\ntotal_cache {cache}\ntotal_rss {rss}\ntotal_inactive_anon 8364032\ntotal_active_anon 0\n\
                 total_inactive_file 4096\ntotal_active_file 0\ntotal_unevictable 0\n"
            );
            is_listed(&stats(text.as_bytes(), None).unwrap())
        };
        assert!(!of(0, 0) && of(8364032, 4096) && of(4096, 8364032) && of(8000000, 0));
        assert!(!is_listed(&CgroupMemory::default()));
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/memory.current"), "1").unwrap();
        let id = fstat(std::fs::File::open(dir.path().join("a")).unwrap()).unwrap().st_ino;
        let cgroup = RanOut { path: b"/a".to_vec(), id, usage_bytes: Some(1) };
        let why = Files::open(dir.path(), &cgroup, false).unwrap_err();
        assert_eq!(why.reason, Reason::CgroupFileUnreadable);
    }
}
