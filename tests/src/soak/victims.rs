//! Makes processes that are killed, each known in advance: which, where and when.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};

use super::random::Random;
use crate::cgroup::{Cgroup, Version};
use crate::hog::Hog;

/// Enough for a hog to start, and soon used up.
const LIMIT: u64 = 4 << 20;
/// How many cgroups of each thread outlive their victim.
const KEPT: usize = 8;

/// Identifies a victim: its process id, and the path of its cgroup, which is used only once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Victim {
    pub(super) cgroup: String,
    pub(super) pid: u64,
}

/// How it was killed.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) victim: Victim,
    pub(super) shape: &'static str,
    /// The times between which it was killed.
    pub(super) between: (Instant, Instant),
}

/// Makes victims until it is told to end.
#[derive(Debug)]
pub(super) struct Victims<'a> {
    scratch: &'a Cgroup,
    version: Version,
    number: AtomicUsize,
    deaths: Mutex<Vec<Death>>,
}

impl<'a> Victims<'a> {
    pub(super) fn below(scratch: &'a Cgroup, version: Version) -> Self {
        Self { scratch, version, number: AtomicUsize::new(0), deaths: Mutex::default() }
    }

    /// All victims so far.
    pub(super) fn deaths(&self) -> Vec<Death> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes victims of every shape, one after another, until `done`.
    pub(super) fn make(&self, mut random: Random, done: &AtomicBool) -> Result<()> {
        let mut shapes =
            vec!["single", "single", "nested", "several", "several_cgroups", "thread", "cgroup_kept"];
        if self.version == Version::V2 {
            shapes.push("group");
        }
        let mut kept = VecDeque::new();
        while !done.load(Ordering::Relaxed) {
            let shape = random.pick(&shapes).copied().context("no shape")?;
            let count = 2 + random.below(3);
            let cgroups = self.kill(shape, count).with_context(|| format!("make a victim: {shape}"))?;
            if shape == "cgroup_kept" {
                kept.extend(cgroups);
            }
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        Ok(())
    }

    /// Makes one more victim. No other thread may make any.
    pub(super) fn one(&self) -> Result<Victim> {
        self.kill("single", 1)?;
        self.deaths().pop().map(|death| death.victim).context("no victim")
    }

    /// Returns the cgroups. They are removed when dropped.
    fn kill(&self, shape: &'static str, count: u64) -> Result<Vec<Cgroup>> {
        let cgroup = self.cgroup(self.scratch)?;
        let mut cgroups = Vec::new();
        let mut hogs = Vec::new();
        match shape {
            "nested" => {
                cgroup.allow_children()?;
                cgroup.limit(LIMIT)?;
                let inner = self.cgroup(&cgroup)?;
                hogs.push(hog_in(&inner)?);
                cgroups.push(inner);
            }
            "several_cgroups" => {
                cgroup.allow_children()?;
                for _ in 0..count {
                    let inner = self.cgroup(&cgroup)?;
                    inner.limit(LIMIT)?;
                    hogs.push(hog_in(&inner)?);
                    cgroups.push(inner);
                }
            }
            "several" | "group" => {
                cgroup.limit(LIMIT * count)?;
                if shape == "group" {
                    cgroup.write(&cgroup.file("memory.oom.group"), "1")?;
                }
                for _ in 0..count {
                    hogs.push(hog_in(&cgroup)?);
                }
            }
            _ => {
                cgroup.limit(LIMIT)?;
                let mut hog = hog_in(&cgroup)?;
                if shape == "thread" {
                    hog.go_on_in_thread(false)?;
                }
                hogs.push(hog);
            }
        }
        let began = Instant::now();
        for hog in &mut hogs {
            // Another hog's growth may have killed it already.
            let _ignored = hog.grow("anon");
        }
        let mut deaths = Vec::new();
        for (at, hog) in hogs.iter_mut().enumerate() {
            hog.killed()?;
            let of = cgroups.get(at).or(cgroups.first()).unwrap_or(&cgroup);
            let victim = Victim { cgroup: path(of), pid: hog.pid().into() };
            deaths.push(Death { victim, shape, between: (began, Instant::now()) });
        }
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).extend(deaths);
        // The inner cgroups come first.
        cgroups.push(cgroup);
        Ok(cgroups)
    }

    fn cgroup(&self, parent: &Cgroup) -> Result<Cgroup> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        parent.child(format!("soak-{number}").as_bytes())
    }
}

fn hog_in(cgroup: &Cgroup) -> Result<Hog> {
    let mut hog = Hog::start()?;
    hog.join(&cgroup.procs())?;
    Ok(hog)
}

/// The path as in a line.
pub(super) fn path(cgroup: &Cgroup) -> String {
    String::from_utf8_lossy(&cgroup.place().path).into_owned()
}
