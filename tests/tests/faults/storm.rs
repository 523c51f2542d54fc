//! A user who makes more kills and cgroups than the share of all users allows.

use anyhow::{Result, ensure};
use oomtrace_tests::storm;

use crate::world::{Dir, World};

/// The most memory of the process in this test. docs/RELIABILITY.md quotes it.
const MEMORY_MAX_KIB: u64 = 64 << 10;
/// Kills of others before the storm. `cargo xtask bench -- --storm` makes more and compares how late they
/// are.
const QUIET: usize = 3;

/// A user has 1,000 kills and makes 3,000 cgroups, with the longest files that are read. Ten kills of others
/// during this are all reported with names, each kill of the user is reported or counted, and the memory
/// stays within its limit.
pub fn a_users_storm_beside_others(world: &World) -> Result<()> {
    let dir = Dir::make()?;
    let outcome = storm::run(&world.binary, &dir.0, world.scratch.cgroup(), QUIET)?;
    eprintln!("{outcome:?}");
    let (made, reported) = outcome.kills;
    ensure!(made == 1000 && outcome.amid_ns.len() == 10, "the storm was not complete: {outcome:?}");
    let full = outcome.lost.get("ring_full").copied().unwrap_or(0);
    ensure!(reported + full == made, "{reported} reported and {full} counted of {made}");
    ensure!(
        outcome.memory_kib.1 < MEMORY_MAX_KIB,
        "{} KiB, {MEMORY_MAX_KIB} at the most",
        outcome.memory_kib.1
    );
    Ok(())
}
