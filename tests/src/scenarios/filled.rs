//! What filled the victim's cgroup: its LRU lists and its tasks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{MIB, Outcome};
use crate::cgroup::{Cgroup, Version, mount_of};
use crate::counters::wall_clock_ns;
use crate::session::Session;

const LIMIT: u64 = 48 * MIB;
const THREADS: u64 = 500;
const TASKS_LIMIT: u64 = 700;

/// The switch of the multi-gen LRU.
const MULTI_GEN: &str = "/sys/kernel/mm/lru_gen/enabled";

/// Does something with a name; on a kernel with the multi-gen LRU, without and with it. Only a guest may change that.
pub(super) fn with_each_lru(
    session: &mut Session,
    act: fn(&mut Session, &[u8]) -> Result<()>,
) -> Result<Outcome> {
    let switch = Path::new(MULTI_GEN);
    if !session.guest() || !switch.exists() {
        act(session, b"mix")?;
        return Ok(Outcome::Passed);
    }
    let before = fs::read_to_string(switch)?;
    for (value, name) in [("0", &b"mix-lru"[..]), ("7", b"mix-multi-gen")] {
        fs::write(switch, value).with_context(|| format!("write {value} to {MULTI_GEN}"))?;
        act(session, name)?;
    }
    fs::write(switch, before.trim())?;
    Ok(Outcome::Passed)
}

/// Anon, tmpfs and locked memory, with hundreds of threads.
pub(super) fn by_a_mix(session: &mut Session) -> Result<Outcome> {
    with_each_lru(session, kill_a_mix)
}

fn kill_a_mix(session: &mut Session, name: &[u8]) -> Result<()> {
    let tasks = TaskCgroup::make(session, name)?;
    let cgroup = session.cgroup(name)?;
    cgroup.limit(LIMIT)?;
    let counted = tasks.limit(&cgroup)?;
    let mut hog = session.hog_in(&cgroup, b"hog-mix")?;
    if let Some(dir) = &counted {
        hog.join(&dir.join("cgroup.procs"))?;
    }
    // No other thread ends, and returns what it held back of the counters, while one is in the OOM killer.
    hog.ask("one-processor")?;
    hog.ask(&format!("threads {THREADS}"))?;
    hog.ask(&format!("shmem {}", 8 * MIB))?;
    hog.ask(&format!("mlock {}", 4 * MIB))?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    let now = counted.as_deref().map(|dir| number(dir, "pids.current")).transpose()?;
    hog.grow("anon")?;
    hog.killed()?;
    let threads = u64::from(facts.threads);
    ensure!(threads == THREADS + 1, "the hog has {threads} threads");
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    let lines = session.check(&[expected])?;
    let line = lines.first().context("no line")?;
    // Newer kernels lock pages on the LRU list late, but have them on one.
    let unevictable = line.number("victim.cgroup.lru.unevictable_bytes").context("no unevictable_bytes")?;
    ensure!(unevictable >= 4 * MIB, "{unevictable} bytes are unevictable: {}", line.text);
    let anon = line.number("victim.cgroup.lru.anon_bytes").context("no anon_bytes")?;
    ensure!(anon >= LIMIT / 2, "{anon} bytes on the lists of anon memory: {}", line.text);
    match (counted, now) {
        (Some(dir), Some(now)) => {
            ensure!(line.number("victim.cgroup.tasks.count") == Some(now), "not {now} tasks: {}", line.text);
            let limit = line.number("victim.cgroup.tasks.limit");
            ensure!(limit == Some(TASKS_LIMIT), "not the limit {TASKS_LIMIT}: {}", line.text);
            // Not every kernel has it.
            if let Ok(peak) = number(&dir, "pids.peak") {
                ensure!(
                    line.number("victim.cgroup.tasks.peak") == Some(peak),
                    "peak not {peak}: {}",
                    line.text
                );
            }
            let other = line.get("victim.cgroup.tasks.cgroup.id").is_some();
            ensure!(other == tasks.other_hierarchy(), "of which cgroup: {}", line.text);
        }
        _ => ensure!(line.get("victim.cgroup.tasks").is_none(), "nothing counts tasks here: {}", line.text),
    }
    Ok(())
}

/// Where the controller is not enabled for the victim's cgroup, an ancestor's count is reported as the ancestor's.
pub(super) fn tasks_of_an_ancestor(session: &mut Session) -> Result<Outcome> {
    let tasks = TaskCgroup::make(session, b"ancestor")?;
    if tasks.other_hierarchy() {
        return super::not_applicable("tasks are counted in a hierarchy of their own");
    }
    let parent = session.cgroup(b"counting")?;
    parent.limit(2 * LIMIT)?;
    parent.allow_children()?;
    let Some(dir) = tasks.limit(&parent)? else {
        return super::not_applicable("no controller counts tasks on cgroup v2");
    };
    let cgroup = parent.child(b"child")?;
    cgroup.limit(LIMIT)?;
    let mut hog = session.hog_in(&cgroup, b"hog-child")?;
    let (facts, released) = (hog.facts()?, wall_clock_ns());
    let now = number(&dir, "pids.current")?;
    hog.grow("anon")?;
    hog.killed()?;
    let expected = session.killed_by_limit(facts, &cgroup, (&cgroup, LIMIT), released)?;
    let lines = session.check(&[expected])?;
    let line = lines.first().context("no line")?;
    ensure!(line.number("victim.cgroup.tasks.count") == Some(now), "not {now} tasks: {}", line.text);
    let place = parent.place();
    for (key, truth) in
        [("path", String::from_utf8_lossy(&place.path).into_owned()), ("id", place.id.to_string())]
    {
        let told = line.get(&format!("victim.cgroup.tasks.cgroup.{key}")).and_then(|value| value.as_str());
        ensure!(told == Some(truth.as_str()), "not of {truth}: {}", line.text);
    }
    Ok(Outcome::Passed)
}

fn number(dir: &Path, name: &str) -> Result<u64> {
    let file = dir.join(name);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    text.trim().parse().with_context(|| format!("{}: {text}", file.display()))
}

/// Where the tasks of a test are counted.
enum TaskCgroup {
    /// A cgroup of the hierarchy of its own that cgroup v1 has. A drop removes it.
    Own(PathBuf),
    /// The memory cgroups themselves.
    Shared,
    /// Nothing counts them, or only a guest may turn it on.
    None,
}

impl TaskCgroup {
    fn make(session: &Session, name: &[u8]) -> Result<Self> {
        if let Some(mount) = mount_of("cgroup", "pids")? {
            let name = String::from_utf8_lossy(name).into_owned();
            let dir = mount.join(format!("oomtrace-test-{}-{name}", std::process::id()));
            fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            return Ok(Self::Own(dir));
        }
        let mount = &session.hierarchy.mount;
        let known = |file: &str| fs::read_to_string(mount.join(file)).unwrap_or_default();
        let has = |file: &str| known(file).split_whitespace().any(|name| name == "pids");
        if session.hierarchy.version == Version::V1 || !has("cgroup.controllers") {
            return Ok(Self::None);
        }
        if !has("cgroup.subtree_control") {
            if !session.guest() {
                return Ok(Self::None);
            }
            fs::write(mount.join("cgroup.subtree_control"), "+pids").context("count tasks below the root")?;
        }
        let scratch = session.scratch().file("cgroup.subtree_control");
        fs::write(&scratch, "+pids").with_context(|| scratch.display().to_string())?;
        Ok(Self::Shared)
    }

    /// Limits the tasks. Returns the directory of what counts those of `cgroup`.
    fn limit(&self, cgroup: &Cgroup) -> Result<Option<PathBuf>> {
        let dir = match self {
            Self::Own(dir) => dir.clone(),
            Self::Shared => cgroup.dir().to_owned(),
            Self::None => return Ok(None),
        };
        let file = dir.join("pids.max");
        fs::write(&file, TASKS_LIMIT.to_string()).with_context(|| file.display().to_string())?;
        Ok(Some(dir))
    }

    fn other_hierarchy(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

impl Drop for TaskCgroup {
    fn drop(&mut self) {
        if let Self::Own(dir) = self {
            let _ignored = fs::remove_dir(dir);
        }
    }
}
