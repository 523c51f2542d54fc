//! A host that is busy with other people's work: many cgroups, and a kill each second. A suite that passes beside it depends on
//! nothing that the host holds.
//!
//! Out: `ready` on stdout once all is there. In: the end of stdin, after which all of it is gone again. Everything is below one
//! cgroup of its own, and each kill in a cgroup with a limit.

use std::io::{Read, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::cgroup::{Hierarchy, Scratch};
use crate::session::{is_guest, start_hog};

/// First argument of the program that carries this: the scenarios'.
pub const SUBCOMMAND: &str = "busy";

/// What each victim may use, in bytes.
const LIMIT: u64 = 4 << 20;
/// Cgroups below one parent, as a host has them: pods below slices.
const SIBLINGS: u32 = 50;
/// What has been killed lies about for so long.
const BETWEEN: Duration = Duration::from_secs(1);

/// Other people's cgroups and kills.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cgroups that are there.
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
        // Last, as it is removed after those below it.
        made.push(parent);
    }
    let victims = scratch.cgroup().child(b"victims")?;
    victims.allow_children()?;
    writeln!(std::io::stdout(), "ready")?;
    let (end, ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _whatever_comes = std::io::stdin().read_to_end(&mut Vec::new());
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
    ensure!(kills > 0, "the host was not busy: nobody was killed");
    writeln!(std::io::stderr(), "busy: {cgroups} cgroups, {kills} kills")?;
    Ok(())
}
