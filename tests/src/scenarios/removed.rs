//! What removed cgroups still hold, which no directory shows.

use std::fs;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};

use super::{MIB, Outcome};
use crate::hog;
use crate::session::Session;
use crate::walk::Walk;

/// In the memory of a file that outlives the cgroup.
const HELD: u64 = 64 * MIB;
const CGROUPS: usize = 300;

/// A cgroup with memory in a file that another process keeps open is removed. It is found, among hundreds of cgroups, with what it
/// holds; a removed one below it is not counted twice.
pub(super) fn holds_memory(session: &mut Session) -> Result<Outcome> {
    let binary = session.program().0.to_owned();
    let before = Walk::by(&binary)?;
    let file = hog::memory_file().context("a memory file")?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let parent = session.cgroup(b"removed")?;
    parent.allow_children()?;
    let child = parent.child(b"below")?;
    let mut others = Vec::new();
    for number in 0..CGROUPS {
        others.push(session.cgroup(format!("other-{number}").as_bytes())?);
    }
    let mut hog = session.hog_in(&child, b"hog-removed")?;
    hog.pour(path.as_ref(), HELD)?;
    hog.tell("quit")?;
    drop(hog);
    let usage = parent.usage()?;
    ensure!(usage >= HELD, "the cgroup holds {usage} bytes");
    child.remove()?;
    parent.remove()?;
    // The kernel may free a removed cgroup at any time.
    let most = counted(session)?;
    let after = Walk::by(&binary)?;
    let least = counted(session)?;
    let held = |walk: &Walk| walk.removed.map(|(count, mebibytes)| (count, mebibytes * MIB));
    let (_, held_before) = held(&before).context("no removed cgroups")?;
    let (removed, held_after) = held(&after).context("no removed cgroups")?;
    let grew = held_after.saturating_sub(held_before);
    let above = session.scratch().usage()?;
    // Newer kernels give what a removed cgroup holds to the cgroup above it.
    if grew != 0 || above < HELD {
        ensure!(
            (HELD..2 * HELD).contains(&grew),
            "removed cgroups held {} bytes, and then {}",
            held_before,
            held_after
        );
        ensure!(removed > 0, "no removed cgroup holds them");
    }
    let cgroups = after.cgroups;
    ensure!((least..=most).contains(&cgroups), "{cgroups} cgroups, and the kernel counts {least} to {most}");
    drop(file);
    Ok(Outcome::Passed)
}

/// The memory cgroups that the kernel counts, removed ones included. Newer kernels count those of v2 in `cgroup.stat`.
fn counted(session: &Session) -> Result<u64> {
    let table = fs::read_to_string("/proc/cgroups")?;
    if let Some(row) = table.lines().find_map(|line| line.strip_prefix("memory\t")) {
        return row.split('\t').nth(1).context("no number")?.parse().context("a number of cgroups");
    }
    let file = session.hierarchy.mount.join("cgroup.stat");
    let stat = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let count = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("no {name} in {stat}"))?.parse::<u64>().context("a number of cgroups")
    };
    Ok(count("nr_subsys_memory")? + count("nr_dying_subsys_memory")?)
}
