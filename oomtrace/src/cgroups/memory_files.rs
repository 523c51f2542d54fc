//! Reads the memory files of a cgroup. Only this file knows their names on cgroup v1 and v2: one function for
//! each fact.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{facts::Limit, host::identity};

/// The file that sets the limit.
pub fn limit_file(v1: bool) -> &'static str {
    if v1 { "memory.limit_in_bytes" } else { "memory.max" }
}

/// The file that sets the limit for swap: on v1 for memory and swap together, on v2 for swap alone.
pub fn swap_limit_file(v1: bool) -> &'static str {
    if v1 { "memory.memsw.limit_in_bytes" } else { "memory.swap.max" }
}

/// The file with the memory that is charged.
pub fn usage_file(v1: bool) -> &'static str {
    if v1 { "memory.usage_in_bytes" } else { "memory.current" }
}

/// v1: the file with the kernel's own memory that is charged. On v2 `memory.stat` has it.
pub const KMEM_USAGE: &str = "memory.kmem.usage_in_bytes";

/// The directory of the cgroup `path` below the hierarchy's mount.
pub fn directory(mount: &Path, path: &[u8]) -> PathBuf {
    mount.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

/// The memory files of one cgroup. Each fact is `None` where its file cannot be read.
#[derive(Clone, Debug)]
pub struct MemoryFiles {
    directory: PathBuf,
    v1: bool,
}

impl MemoryFiles {
    /// The memory files of the cgroup `path` below the hierarchy's mount. Reads nothing yet.
    pub fn of(mount: &Path, path: &[u8], v1: bool) -> Self {
        Self { directory: directory(mount, path), v1 }
    }

    /// The limit of the cgroup.
    pub fn limit(&self) -> Option<Limit> {
        match self.text(limit_file(self.v1))?.trim() {
            "max" => Some(Limit::Unlimited),
            number => number.parse().ok().map(Limit::of_bytes),
        }
    }

    /// The memory that is charged to the cgroup.
    pub fn usage_bytes(&self) -> Option<u64> {
        self.number(usage_file(self.v1))
    }

    /// The most memory that was ever charged to the cgroup, unless that was set back. Only v1, and v2 since 5.19.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.number(if self.v1 { "memory.max_usage_in_bytes" } else { "memory.peak" })
    }

    /// The swap that is charged: on v1 memory and swap together, on v2 swap alone.
    pub fn swap_bytes(&self) -> Option<u64> {
        self.number(if self.v1 { "memory.memsw.usage_in_bytes" } else { "memory.swap.current" })
    }

    /// v2: how often an allocation in the cgroup or below was about to go over a limit.
    pub fn max_events(&self) -> Option<u64> {
        if self.v1 { None } else { self.counter("memory.events", "max") }
    }

    /// The kills that the kernel counted: on v2 in the cgroup and below, on v1 in the cgroup alone.
    pub fn oom_kills(&self) -> Option<u64> {
        let name = if self.v1 { "memory.oom_control" } else { "memory.events" };
        self.counter(name, "oom_kill")
    }

    /// How often the cgroup's own limit invoked the OOM killer. Only v2 since 5.2: before, limits below also
    /// count.
    pub fn own_ooms(&self) -> Option<u64> {
        self.counter("memory.events.local", "oom")
    }

    /// v1: whether kills are disabled and the cgroup has run out of memory, so that its tasks hang.
    pub fn hangs(&self) -> bool {
        let is = |key| self.counter("memory.oom_control", key) == Some(1);
        is("oom_kill_disable") && is("under_oom")
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.join(name)).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    fn counter(&self, name: &str, key: &str) -> Option<u64> {
        identity::counter(&self.directory.join(name), key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn no_limit_is_none_in_the_words_of_both_versions() {
        let mount = tempfile::tempdir().unwrap();
        let limit = |v1: bool, text: &str| {
            fs::create_dir_all(mount.path().join("a")).unwrap();
            fs::write(mount.path().join("a").join(limit_file(v1)), text).unwrap();
            MemoryFiles::of(mount.path(), b"/a", v1).limit()
        };
        assert_eq!(limit(false, "max\n"), Some(Limit::Unlimited));
        assert_eq!(limit(false, "4096\n"), Some(Limit::Bytes(4096)));
        assert_eq!(limit(false, "\n"), None);
        // LONG_MAX in whole pages: of 4 KiB, and of 64 KiB.
        assert_eq!(limit(true, "9223372036854771712\n"), Some(Limit::Unlimited));
        assert_eq!(limit(true, "9223372036854710272\n"), Some(Limit::Unlimited));
        assert_eq!(limit(true, "8192\n"), Some(Limit::Bytes(8192)));
        assert_eq!(MemoryFiles::of(mount.path(), b"/none", true).limit(), None);
    }
}
