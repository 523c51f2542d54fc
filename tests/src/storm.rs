//! A user's storm of kills and cgroups, with the longest files that are read, and a few kills of others
//! during it.
//!
//! Takes the program under test. Returns what it reported about each kill, how late, and how much memory it
//! used.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};

use crate::cgroup::Cgroup;
use crate::hog::Hog;
use crate::process::{first_in_first_out, status_kib};
use crate::session::start_hog;
use crate::tracer::{Hook, Line, Tracer};
use crate::user::User;

/// Cgroups that the user makes; a third of them has a kill.
const CGROUPS: usize = 3000;
/// Kills of others during the storm.
const OTHERS: usize = 10;
/// Processes of the user at a time.
const AT_ONCE: usize = 2;
/// The limits of the program under test: it does not read a larger file of a container or list of a user.
const FILE_BYTES: usize = 128 << 10;
const LIST_BYTES: usize = 128 << 10;
/// The most bytes of a name, an image or a label.
const TEXT_BYTES: usize = 1020;
/// A higher priority than the tracer's.
const READER_PRIORITY: libc::c_int = 2;
/// The limit of each victim of others.
const LIMIT: u64 = 8 << 20;

/// The result.
#[derive(Debug, Default)]
pub struct Outcome {
    /// ns from the kernel's mark to the line, for each kill of others before the storm.
    pub quiet_ns: Vec<i128>,
    /// The same during the storm.
    pub amid_ns: Vec<i128>,
    /// Kills of the user, and how many of them have a line.
    pub kills: (u64, u64),
    /// The counts of the `lost` lines, by reason.
    pub lost: BTreeMap<String, u64>,
    /// The largest memory of the tracer before the storm, and of the whole run, in KiB.
    pub memory_kib: (u64, u64),
}

/// Causes `quiet` kills of others, then some during a storm. Their cgroups are below `parent`.
///
/// # Errors
/// If a kill of others has no line with its container's name, or a kill of the user is neither reported nor
/// counted.
pub fn run(binary: &Path, dir: &Path, parent: &Cgroup, quiet: usize) -> Result<Outcome> {
    let others = Others::make(dir, parent)?;
    let user = User::make(dir)?;
    let lists = write_longest(&user)?;
    let root = format!("docker={}", others.root.display());
    let options = ["--runtime-root", &root];
    // The thread that reads the lines must not wait for the storm. It inherits this priority.
    let _ignored = first_in_first_out(READER_PRIORITY);
    let started = Tracer::start_prepared(binary, Hook::Auto, &options, |command| user.shown_to(command));
    first_in_first_out(0)?;
    let mut tracer = started?;
    let mut outcome = Outcome::default();
    for number in 0..quiet {
        outcome.quiet_ns.push(others.kill(&mut tracer, number)?);
    }
    outcome.memory_kib.0 = status_kib(tracer.pid(), "VmHWM")?;
    let (mut touching, _its_cgroup) = user.process("touching")?;
    touching.touch_for_ever(&lists)?;
    let mut raging =
        (0..AT_ONCE).map(|number| user.process(&format!("raging-{number}"))).collect::<Result<Vec<_>>>()?;
    let each = CGROUPS / OTHERS / AT_ONCE;
    for round in 0..OTHERS {
        for (number, (hog, _)) in raging.iter_mut().enumerate() {
            hog.rage(user.service().dir(), (round * AT_ONCE + number) * each, each)?;
        }
        outcome.amid_ns.push(others.kill(&mut tracer, quiet + round)?);
        for (hog, _) in &mut raging {
            outcome.kills.0 += u64::try_from(hog.raged()?)?;
        }
    }
    account(&mut tracer, &user, &mut outcome)?;
    outcome.memory_kib.1 = status_kib(tracer.pid(), "VmHWM")?;
    Ok(outcome)
}

/// Waits until each kill of the user has a line or is counted as lost.
fn account(tracer: &mut Tracer, user: &User, outcome: &mut Outcome) -> Result<()> {
    let above = String::from_utf8_lossy(&user.service().place().path).into_owned();
    let is_theirs = |line: &&Line| {
        let path = line.get("victim.cgroup.path").and_then(Value::as_str);
        line.kind() == "oom_kill" && path.is_some_and(|path| path.starts_with(&above))
    };
    let made = outcome.kills.0;
    (outcome.kills.1, outcome.lost) = tracer.wait_for("a line of each kill, or a count", |lines| {
        let told = u64::try_from(lines.iter().filter(is_theirs).count()).ok()?;
        let mut lost = BTreeMap::<_, u64>::new();
        for line in lines.iter().filter(|line| line.kind() == "lost") {
            let reason = line.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
            *lost.entry(reason).or_default() += line.number("count").unwrap_or(0);
        }
        let kills = lost.get("ring_full").copied().unwrap_or(0);
        (told + kills >= made).then_some((told, lost))
    })?;
    Ok(())
}

/// Containers of others. Docker has their files.
struct Others<'a> {
    parent: &'a Cgroup,
    root: PathBuf,
}

impl<'a> Others<'a> {
    fn make(dir: &Path, parent: &'a Cgroup) -> Result<Self> {
        let root = dir.join("docker");
        fs::create_dir_all(root.join("containers"))?;
        Ok(Self { parent, root })
    }

    /// Gets a process killed in a new container and expects a line with its name. Returns how late the line
    /// was, in ns.
    fn kill(&self, tracer: &mut Tracer, number: usize) -> Result<i128> {
        let (id, name) = (format!("{:0>64}", format!("a{number:x}")), format!("other-{number}"));
        let files = self.root.join("containers").join(&id);
        fs::create_dir(&files)?;
        let config = json!({"Name": format!("/{name}"), "Config": {"Image": "registry.example/shop:1"}});
        fs::write(files.join("config.v2.json"), config.to_string())?;
        let cgroup = self.parent.child(format!("docker-{id}.scope").as_bytes())?;
        cgroup.limit(LIMIT)?;
        let mut hog = start_hog(false, b"other")?;
        hog.join(&cgroup.procs())?;
        let pid = hog.pid();
        hog.grow("anon")?;
        hog.killed()?;
        let line = tracer.wait_for(&format!("a line of the kill in {name}"), |lines| {
            let of_pid =
                |line: &&Line| line.kind() == "oom_kill" && line.number("victim.pid") == Some(pid.into());
            lines.iter().find(of_pid).cloned()
        })?;
        ensure!(
            line.get("container.name") == Some(&json!(name)) && line.get("container.runtime.user").is_none(),
            "the kill in {name} has no such name: {}",
            line.text
        );
        late_ns(&line).with_context(|| line.text.clone())
    }
}

/// ns from the kernel's mark until the line was read.
fn late_ns(line: &Line) -> Option<i128> {
    let time: jiff::Timestamp = line.get("time")?.as_str()?.parse().ok()?;
    Some(line.read_at_ns - time.as_nanosecond())
}

/// Writes the files of each of the user's containers, as long as is read. Returns the lists of containers.
fn write_longest(user: &User) -> Result<Vec<PathBuf>> {
    let own = |path: &Path| {
        chown(path, Some(user.uid()), Some(user.uid())).with_context(|| path.display().to_string())
    };
    let text = |what: &str| Value::from(format!("{what:x<TEXT_BYTES$}"));
    let keys =
        ["project", "service", "container-number", "config-hash", "oneoff", "version", "image", "depends_on"];
    let labels: Map<String, Value> =
        keys.iter().map(|key| (format!("com.docker.compose.{key}"), text(key))).collect();
    let config = json!({"Name": text("name"), "Config": {"Image": text("image"), "Labels": labels}});
    let containers = user.home().join(".local/share/docker/containers");
    fs::create_dir_all(&containers)?;
    let (one, host) = (user.home().join("config"), user.home().join("hostconfig"));
    fs::write(&one, filled(&config, FILE_BYTES)?)?;
    fs::write(&host, filled(&json!({"CgroupParent": "user.slice"}), FILE_BYTES)?)?;
    own(&one)?;
    for number in 0..CGROUPS {
        let files = containers.join(Hog::id_of(number));
        fs::create_dir(&files)?;
        fs::hard_link(&one, files.join("config.v2.json"))?;
        fs::hard_link(&host, files.join("hostconfig.json"))?;
    }
    let mut lists = Vec::new();
    for store in ["overlay", "vfs", "btrfs", "zfs"] {
        let store = user.home().join(format!(".local/share/containers/storage/{store}-containers"));
        fs::create_dir_all(&store)?;
        for list in ["containers.json", "volatile-containers.json"] {
            let list = store.join(list);
            let mut entries = Vec::new();
            // No kill needs these entries, but the whole list is read.
            while entries.len() * 80 < LIST_BYTES - 4096 {
                entries.push(json!({"id": format!("{:0>64x}", 1_000_000 + entries.len())}));
            }
            let text = Value::from(entries).to_string();
            let room = LIST_BYTES.checked_sub(text.len()).context("a list that is too long")?;
            fs::write(&list, text + &" ".repeat(room))?;
            own(&list)?;
            lists.push(list);
        }
    }
    lists.push(one);
    Ok(lists)
}

/// Adds a member to the object, so that it has this many bytes.
fn filled(object: &Value, bytes: usize) -> Result<String> {
    let text = object.to_string();
    let room = bytes.checked_sub(text.len() + r#","x":"""#.len()).context("it is longer already")?;
    let inner = text.strip_suffix('}').ok_or_else(|| anyhow!("no object"))?;
    Ok(format!(r#"{inner},"x":"{}"}}"#, "x".repeat(room)))
}
