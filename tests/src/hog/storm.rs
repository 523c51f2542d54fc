//! What a user can do with delegated cgroups: make any number of them, choose their names, and get processes
//! killed in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::memory::{self, Kind};

/// The limit of each victim.
const LIMIT: &str = "4194304";
const BYTES: usize = 4 << 30;
/// One cgroup in this many has a kill.
const KILL_EVERY: usize = 3;
/// One path in this many is as deep as `DEPTH`.
const DEEP_EVERY: usize = 8;
const DEPTH: usize = 6;
/// One cgroup in this many stays.
const STAYS_EVERY: usize = 2;

/// The id of the container after which the cgroup with this number is named.
pub(crate) fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// Makes the cgroups with these numbers below `service`, each named like a container, and gets a process
/// killed in every third. Returns how many were killed.
pub(super) fn rage(service: &Path, from: usize, count: usize) -> io::Result<usize> {
    let mut killed = 0;
    let mut number = from;
    while number < from + count {
        let deep = (number / DEEP_EVERY).is_multiple_of(DEEP_EVERY);
        let levels = if deep { DEPTH.min(from + count - number) } else { 1 };
        let mut made = Vec::new();
        let mut path = service.to_owned();
        for level in number..number + levels {
            hand_down(&path);
            path.push(name(level));
            fs::create_dir(&path)?;
            made.push(path.clone());
        }
        for _ in (number..number + levels).filter(|level| level.is_multiple_of(KILL_EVERY)) {
            kill(&path)?;
            killed += 1;
        }
        number += levels;
        if !number.is_multiple_of(STAYS_EVERY) {
            remove(&made)?;
        }
    }
    Ok(killed)
}

/// On cgroup v2 a cgroup has limits only if its parent allows that.
fn hand_down(path: &Path) {
    let _only_there = fs::File::options()
        .write(true)
        .open(path.join("cgroup.subtree_control"))
        .and_then(|mut file| io::Write::write_all(&mut file, b"+memory"));
}

fn name(number: usize) -> String {
    let runtime = if number.is_multiple_of(4) { "libpod" } else { "docker" };
    format!("{runtime}-{}.scope", id(number))
}

fn remove(made: &[PathBuf]) -> io::Result<()> {
    for path in made.iter().rev() {
        // A victim leaves its cgroup a moment after its parent was notified of its death.
        while let Err(error) = fs::remove_dir(path) {
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
    Ok(())
}

fn kill(cgroup: &Path) -> io::Result<libc::pid_t> {
    let v1 = cgroup.join("memory.limit_in_bytes");
    fs::write(if v1.exists() { v1 } else { cgroup.join("memory.max") }, LIMIT)?;
    let procs = cgroup.join("cgroup.procs");
    // SAFETY: a hog has one thread, so no lock is taken in the child.
    let victim = unsafe { libc::fork() };
    if victim == 0 {
        let _killed = fs::write(&procs, "0").and_then(|()| memory::take(Kind::Anonymous, BYTES));
        std::process::exit(1);
    }
    let mut status = 0;
    // SAFETY: a status that is alive through the call.
    if victim < 0 || unsafe { libc::waitpid(victim, &raw mut status, 0) } != victim {
        return Err(io::Error::last_os_error());
    }
    if libc::WIFSIGNALED(status) {
        Ok(victim)
    } else {
        Err(io::Error::other(format!("the victim was not killed: {status}")))
    }
}

/// Makes these cgroups, each below the one before, and gets a process killed in the last. Returns its id.
pub(super) fn kill_below(service: &Path, names: &[&str]) -> io::Result<libc::pid_t> {
    let mut path = service.to_owned();
    for name in names {
        hand_down(&path);
        path.push(name);
        fs::create_dir(&path)?;
    }
    kill(&path)
}

/// Changes the times of files until the process ends, so that no earlier reading of them stays valid.
pub(super) fn touch_for_ever(files: &[PathBuf]) -> io::Result<()> {
    loop {
        for file in files {
            fs::File::options().append(true).open(file)?.set_modified(std::time::SystemTime::now())?;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
