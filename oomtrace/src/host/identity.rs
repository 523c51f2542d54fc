//! Reads what identifies the host from `/proc`: its names, its units, its counters.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{
    event,
    host::{clock, root::Root},
};

/// What every line says of the host: `uname -n`, the boot id and `uname -r`.
pub fn identity(root: &Root) -> event::Host {
    let uname = rustix::system::uname();
    event::Host {
        name: Some(uname.nodename().to_string_lossy().into_owned()),
        boot_id: boot_id(root).ok(),
        kernel: Some(uname.release().to_string_lossy().into_owned()),
    }
}

/// `/proc/sys/kernel/random/boot_id`: different after each boot.
pub fn boot_id(root: &Root) -> io::Result<String> {
    let id = fs::read_to_string(root.path("/proc/sys/kernel/random/boot_id"))?;
    let id = id.trim();
    if id.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the boot id is empty"));
    }
    Ok(id.to_owned())
}

/// The id of the group `name` in `/etc/group`. A number stands for itself.
pub fn group(root: &Root, name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let groups = fs::read_to_string(root.path("/etc/group")).ok()?;
    groups
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
}

/// An id that is unique across runs and hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId([u64; 2]);

impl UniqueId {
    /// A new one.
    pub fn new() -> Self {
        let random = || {
            let mut bytes = [0; 8];
            let len = getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
            (len == bytes.len()).then_some(u64::from_ne_bytes(bytes))
        };
        match (random(), random()) {
            (Some(one), Some(other)) => Self([one, other]),
            // Unique at least on this host.
            _ => Self([clock::boot_time().0, u64::from(std::process::id())]),
        }
    }

    /// From the two numbers of [`Self::halves`].
    pub fn of(halves: [u64; 2]) -> Self {
        Self(halves)
    }

    /// As two numbers.
    pub fn halves(self) -> [u64; 2] {
        self.0
    }
}

impl Default for UniqueId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.0;
        write!(f, "{one:016x}{other:016x}")
    }
}

/// Bytes in a page of memory.
pub fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX)
}

/// `USER_HZ`: ticks per second of the times in `/proc/PID/stat`.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// Whether the pids of `/proc` are the kernel's own, of the first pid namespace. In another namespace,
/// `/proc/PID` is another process than the kernel's PID. False if `/proc` does not say.
pub fn proc_has_kernel_pids(root: &Root) -> bool {
    // This process is in the namespace of `/proc` or in one below it, because `/proc/self` exists. If it is
    // in one below the first namespace, the first process of `/proc` shows to which namespace `/proc`
    // belongs.
    is_first_pid_namespace(root, "self") || is_first_pid_namespace(root, "1")
}

/// Whether a process is in the first pid namespace. `self` is this process.
pub fn is_first_pid_namespace(root: &Root, process: &str) -> bool {
    // PROC_PID_INIT_INO of include/linux/proc_ns.h: the same on each kernel.
    const FIRST: &[u8] = b"pid:[4026531836]";
    let link = root.path(format!("/proc/{process}/ns/pid"));
    fs::read_link(link).is_ok_and(|space| space.as_os_str().as_bytes() == FIRST)
}

/// The counter `key` of a file with a name and a number on each line: `/proc/vmstat`, `memory.events`,
/// `memory.oom_control`. `None` if the file cannot be read or has no such name.
pub fn counter(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn counter_and_boot_id() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/vmstat", "pgfault 1\noom_kill_x 9\nx_oom_kill 2\noom_kill 12\n"),
            ("etc/group", "root:x:0:\nadmin:x:7:\nadm:x:4:syslog,ann\n"),
            ("proc/sys/kernel/random/boot_id", "6f1c2e88-0000-4000-8000-000000000001\n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        let vmstat = root.path("/proc/vmstat");
        assert_eq!(counter(&vmstat, "oom_kill"), Some(12));
        assert_eq!(counter(&vmstat, "oom_kil"), None);
        assert_eq!(boot_id(&root).unwrap(), "6f1c2e88-0000-4000-8000-000000000001");
        assert_eq!(counter(&Root::at("/nonexistent").path("/proc/vmstat"), "oom_kill"), None);
        assert_eq!([group(&root, "adm"), group(&root, "12"), group(&root, "ad")], [Some(4), Some(12), None]);
        assert_eq!(identity(&Root::at("/nonexistent")).boot_id, None);
    }

    #[test]
    fn whose_pids_proc_has() {
        let of = |own: &str, first: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            for (process, space) in [("self", Some(own)), ("1", first)] {
                let ns = dir.path().join("proc").join(process).join("ns");
                fs::create_dir_all(&ns).unwrap();
                if let Some(space) = space {
                    std::os::unix::fs::symlink(space, ns.join("pid")).unwrap();
                }
            }
            proc_has_kernel_pids(&Root::at(dir.path()))
        };
        assert!(of("pid:[4026531836]", None));
        // In a namespace of its own, with the host's /proc.
        assert!(of("pid:[4026532201]", Some("pid:[4026531836]")));
        assert!(!of("pid:[4026532201]", Some("pid:[4026532201]")));
        assert!(!of("pid:[4026532201]", None));
        assert!(!proc_has_kernel_pids(&Root::at("/nonexistent")));
    }

    #[test]
    fn this_host() {
        assert!(identity(&Root::host()).kernel.is_some_and(|kernel| !kernel.is_empty()));
        assert!(page_bytes().is_power_of_two());
        assert!(ticks_per_second() > 0);
    }
}
