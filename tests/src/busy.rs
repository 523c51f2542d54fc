//! Makes a host busy: many cgroups, and a kill each second. A suite that passes at the same time does not
//! depend on anything else on the host.
//!
//! Prints `ready` when everything is there. Removes everything when its stdin ends. Everything is below one
//! cgroup, and each kill is in a cgroup with a limit.

use std::io::{Read, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::cgroup::{Hierarchy, Scratch};
use crate::session::{is_guest, start_hog};

/// First argument that selects this part of the scenarios' program.
pub const SUBCOMMAND: &str = "busy";

/// What each victim may use, in bytes.
const LIMIT: u64 = 4 << 20;
/// Cgroups below one parent, like pods below slices.
const SIBLINGS: u32 = 50;
/// Time between two kills.
const BETWEEN: Duration = Duration::from_secs(1);

/// Other cgroups and kills on this host.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many cgroups exist.
    #[arg(long, default_value_t = 2000)]
    cgroups: u32,
}

/// Makes the host busy until stdin ends.
///
/// # Errors
/// If a cgroup cannot be made, or a victim is not killed.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<()> {
    let Arguments { cgroups } = Arguments::parse_from(arguments);
    let scratch = Scratch::make(&Hierarchy::find()?)?;
    let mut made = Vec::new();
    for index in 0..cgroups.div_ceil(SIBLINGS) {
        let parent = scratch.cgroup().child(format!("slice-{index}").as_bytes())?;
        parent.allow_children()?;
        for sibling in 1..SIBLINGS.min(cgroups - index * SIBLINGS) {
            made.push(parent.child(format!("pod-{sibling}").as_bytes())?);
        }
        // Last, because it must be removed after the cgroups below it.
        made.push(parent);
    }
    let victims = scratch.cgroup().child(b"victims")?;
    victims.allow_children()?;
    writeln!(std::io::stdout(), "ready")?;
    let (end, ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ignored = std::io::stdin().read_to_end(&mut Vec::new());
        drop(end);
    });
    let mut kills: u32 = 0;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(BETWEEN) {
        let cgroup = victims.child(format!("victim-{kills}").as_bytes())?;
        cgroup.limit(LIMIT)?;
        let mut hog = start_hog(is_guest(), b"foreign")?;
        hog.join(&cgroup.procs())?;
        hog.grow("anon")?;
        hog.killed().context("somebody else's victim")?;
        kills += 1;
    }
    ensure!(kills > 0, "the host was not busy: no process was killed");
    writeln!(std::io::stderr(), "busy: {cgroups} cgroups, {kills} kills")?;
    Ok(())
}
