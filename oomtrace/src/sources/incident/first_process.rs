//! The first process of a victim's container, where it lives on without the victim.
//!
//! Only `cgroup.procs`, and `stat` and `status` of `/proc`, are read: none of them takes the lock of a process's memory.

use std::path::Path;

use crate::{
    cgroups::memory_files::directory,
    event::text_from_kernel,
    facts::BootTime,
    host::{
        identity,
        process::fields::{Stat, beginning, status_words},
        root::Root,
    },
};

/// The most bytes of `cgroup.procs`: some 2,000 processes. Of a container with more, nothing is said.
const PROCS_BYTES: u64 = 16 << 10;
/// The most processes that are looked at. The first one is at the front: it has the lowest id, or was the first in the cgroup.
const LOOKED_AT_MAX: usize = 64;
/// `stat` has at most some 500 bytes. In `status`, what is wanted is behind the list of groups, which can be longer than this.
const STAT_BYTES: u64 = 1024;
const STATUS_BYTES: u64 = 4096;

/// A first process that lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FirstProcess {
    pub(super) pid: u32,
    pub(super) comm: String,
}

/// The path of the container's cgroup: that of the victim up to the name with the container's id.
pub(super) fn cgroup_of<'a>(victim: &'a str, container: &str) -> Option<&'a str> {
    let at = victim.find(container).filter(|_| !container.is_empty())?;
    let end = victim.get(at..)?.find('/').map_or(victim.len(), |rest| at + rest);
    victim.get(..end)
}

/// The process of this cgroup that is process 1 of a pid namespace, was started from outside the cgroup, and before `marked`. `None` if
/// there is none, or if it cannot be known.
pub(super) fn living(root: &Root, mount: &Path, cgroup: &str, marked: BootTime) -> Option<FirstProcess> {
    let procs = beginning(&directory(mount, cgroup.as_bytes()).join("cgroup.procs"), PROCS_BYTES + 1)?;
    if u64::try_from(procs.len()).is_ok_and(|bytes| bytes > PROCS_BYTES) {
        return None;
    }
    let pids: Vec<u32> =
        str::from_utf8(&procs).ok()?.lines().map(|line| line.parse().ok()).collect::<Option<_>>()?;
    let mut first = pids.iter().take(LOOKED_AT_MAX).filter_map(|pid| {
        let process = root.path(format!("/proc/{pid}"));
        let stat = beginning(&process.join("stat"), STAT_BYTES)?;
        let (comm, parent) = alive_before(&stat, marked)?;
        let is_first =
            is_first(&beginning(&process.join("status"), STATUS_BYTES)?) && !pids.contains(&parent);
        is_first.then(|| FirstProcess { pid: *pid, comm: text_from_kernel(comm) })
    });
    let one = first.next()?;
    first.next().is_none().then_some(one)
}

/// The name and the parent of a process that is alive and started before `marked`.
fn alive_before(stat: &[u8], marked: BootTime) -> Option<(&[u8], u32)> {
    let stat = Stat::parse(stat)?;
    let (state, parent) = (stat.field(3)?, stat.field(4)?.parse().ok()?);
    let started = stat.start_ticks()?.saturating_mul(1_000_000_000 / identity::ticks_per_second().max(1));
    (!matches!(state, "Z" | "X") && started < marked.0).then_some((stat.comm, parent))
}

/// Whether it is process 1 of a pid namespace that is not the host's.
fn is_first(status: &[u8]) -> bool {
    let ids = status_words(status, b"NStgid:");
    ids.len() > 1 && ids.last() == Some(&&b"1"[..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    const ID: &str = "ab12f4c09e7d5b3a";
    const MARKED: BootTime = BootTime(50_000_000_000);

    #[test]
    fn the_cgroup_of_the_container_is_above_the_victims() {
        for (victim, of) in [
            ("/docker/ab12f4c09e7d5b3a", Some("/docker/ab12f4c09e7d5b3a")),
            ("/docker/ab12f4c09e7d5b3a/worker/1", Some("/docker/ab12f4c09e7d5b3a")),
            ("/s.slice/docker-ab12f4c09e7d5b3a.scope/init", Some("/s.slice/docker-ab12f4c09e7d5b3a.scope")),
            ("/docker/other", None),
        ] {
            assert_eq!(cgroup_of(victim, ID), of, "{victim}");
        }
        assert_eq!(cgroup_of("/docker/other", ""), None);
    }

    /// A host with one cgroup, and processes: pid, state, parent, start in s, ids in namespaces.
    fn found(processes: &[(u32, &str, u32, u64, &str)]) -> Option<FirstProcess> {
        found_among(processes, 0)
    }

    /// The same, with so many that are gone already.
    fn found_among(processes: &[(u32, &str, u32, u64, &str)], gone: usize) -> Option<FirstProcess> {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("cgroup/docker/a");
        fs::create_dir_all(&cgroup).unwrap();
        let mut procs = String::new();
        for (pid, state, parent, seconds, ids) in processes {
            let process = dir.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&process).unwrap();
            let ticks = seconds * identity::ticks_per_second();
            let stat =
                format!("{pid} (a) b) {state} {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0\n");
            fs::write(process.join("stat"), stat).unwrap();
            fs::write(process.join("status"), format!("Name:\ta) b\nNStgid:\t{ids}\nNSpid:\t{ids}\n"))
                .unwrap();
            procs.push_str(&format!("{pid}\n"));
        }
        procs.push_str(&"1000\n".repeat(gone));
        fs::write(cgroup.join("cgroup.procs"), procs).unwrap();
        living(&Root::at(dir.path()), &dir.path().join("cgroup"), "/docker/a", MARKED)
    }

    #[test]
    fn the_first_process_is_1_in_its_namespace_and_from_outside() {
        let first = FirstProcess { pid: 70, comm: "a) b".to_owned() };
        let child = (80, "S", 70, 20, "80\t7");
        assert_eq!(found(&[(70, "S", 9, 10, "70\t1"), child]), Some(first.clone()));
        let nested = (81, "S", 70, 20, "81\t8\t1");
        assert_eq!(found(&[(70, "S", 9, 10, "70\t1"), nested]), Some(first), "another namespace inside");
    }

    #[test]
    fn near_misses() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(80, "S", 9, 10, "80\t7")]), None, "not the first one");
        assert_eq!(found(&[(70, "S", 9, 10, "70")]), None, "in the host's namespace");
        assert_eq!(found(&[(1, "S", 0, 1, "1")]), None, "the host's own first process");
        assert_eq!(found(&[(70, "Z", 9, 10, "70\t1")]), None, "it has ended");
        assert_eq!(found(&[(70, "S", 9, 50, "70\t1")]), None, "it started after the kill");
        assert_eq!(found(&[(60, "S", 9, 10, "60"), (70, "S", 60, 10, "70\t1")]), None, "started from inside");
        assert_eq!(found(&[(70, "S", 9, 10, "70\t1"), (71, "S", 9, 10, "71\t1")]), None, "two of them");
    }

    #[test]
    fn of_too_many_processes_nothing_is_said() {
        let first = (70, "S", 9, 10, "70\t1");
        let with = |gone| found_among(&[first], gone);
        assert_eq!((with(3000).map(|first| first.pid), with(4000)), (Some(70), None));
    }
}
