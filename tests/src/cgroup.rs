//! Memory cgroups of the test, on cgroup v1 and v2, below one parent. No other cgroup is touched, except that
//! on v2 the root's `cgroup.subtree_control` gets `+memory` if it lacks it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::hog::Tidier;
use crate::patience::PATIENCE;
use crate::session::is_guest;

/// Which cgroup interface the memory controller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Memory has its own hierarchy.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Where a cgroup is, as the kernel names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Path below the root of the memory hierarchy.
    pub path: Vec<u8>,
    /// Inode of its directory.
    pub id: u64,
}

/// The memory hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Which interface.
    pub version: Version,
    /// Whether there is a memory controller. Without one only the whole machine can run out.
    pub memory: bool,
}

impl Hierarchy {
    /// Finds it in the list of mounts.
    pub fn find() -> Result<Self> {
        if let Some(mount) = mount_of("cgroup", "memory")? {
            return Ok(Self { mount, version: Version::V1, memory: true });
        }
        let mount = mount_of("cgroup2", "")?.ok_or_else(|| anyhow!("no cgroup hierarchy is mounted"))?;
        let controllers = fs::read_to_string(mount.join("cgroup.controllers"))?;
        let memory = controllers.split_whitespace().any(|name| name == "memory");
        ensure!(memory || is_guest(), "memory is neither a v1 hierarchy nor on cgroup2");
        Ok(Self { mount, version: Version::V2, memory })
    }

    /// The root cgroup.
    pub fn root(&self) -> Result<Place> {
        Ok(Place { path: b"/".to_vec(), id: fs::metadata(&self.mount)?.ino() })
    }
}

/// The mount point of a file system, by type and option.
pub fn mount_of(kind: &str, option: &str) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    Ok(mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (target, fs_type, options) = (words.next()?, words.next()?, words.next()?);
        let fits = fs_type == kind && (option.is_empty() || options.split(',').any(|word| word == option));
        fits.then(|| PathBuf::from(target))
    }))
}

/// The parent of all cgroups of a run, with the process that removes them after the run.
#[derive(Debug)]
pub struct Scratch {
    cgroup: Cgroup,
    // Dropped after the cgroup, so it removes what that left.
    _tidier: Tidier,
}

impl Scratch {
    /// `oomtrace-test-<pid>` directly below the root.
    pub fn make(hierarchy: &Hierarchy) -> Result<Self> {
        let name = format!("oomtrace-test-{}", std::process::id());
        if hierarchy.version == Version::V2 && hierarchy.memory {
            enable_memory(&hierarchy.mount)?;
        }
        let tidier = Tidier::over(&hierarchy.mount.join(&name))?;
        let cgroup = Cgroup::make(hierarchy.version, &hierarchy.mount, b"", OsStr::new(&name))?;
        if hierarchy.memory {
            cgroup.allow_children()?;
        }
        Ok(Self { cgroup, _tidier: tidier })
    }

    /// The cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}

/// A user's own cgroups, where systemd would put them: `/user.slice/user-UID.slice/user@UID.service`.
#[derive(Debug)]
pub struct UserCgroups {
    service: Cgroup,
    /// The cgroups above, which are removed if they are empty.
    slices: Vec<PathBuf>,
    _tidier: Tidier,
}

impl UserCgroups {
    /// Makes them.
    pub fn make(hierarchy: &Hierarchy, uid: u32) -> Result<Self> {
        let mut dir = hierarchy.mount.clone();
        let mut slices = Vec::new();
        for name in ["user.slice".to_owned(), format!("user-{uid}.slice")] {
            if hierarchy.version == Version::V2 {
                enable_memory(&dir)?;
            }
            dir.push(name);
            if !dir.exists() {
                fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
                slices.push(dir.clone());
            }
        }
        if hierarchy.version == Version::V2 {
            enable_memory(&dir)?;
        }
        let name = format!("user@{uid}.service");
        let tidier = Tidier::over(&dir.join(&name))?;
        let above = format!("/user.slice/user-{uid}.slice");
        let service = Cgroup::make(hierarchy.version, &dir, above.as_bytes(), OsStr::new(&name))?;
        service.allow_children()?;
        Ok(Self { service, slices, _tidier: tidier })
    }

    /// The cgroup of the user's manager.
    pub fn service(&self) -> &Cgroup {
        &self.service
    }
}

impl Drop for UserCgroups {
    fn drop(&mut self) {
        let _ignored = remove_tree(&self.service.dir);
        for slice in self.slices.iter().rev() {
            let _ignored = fs::remove_dir(slice);
        }
    }
}

fn enable_memory(dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.subtree_control");
    if fs::read_to_string(&file)?.split_whitespace().any(|name| name == "memory") {
        return Ok(());
    }
    fs::write(&file, "+memory").with_context(|| format!("write {}", file.display()))
}

/// A memory cgroup of the test. A drop removes it with all cgroups below it.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    place: Place,
    version: Version,
}

impl Cgroup {
    fn make(version: Version, parent_dir: &Path, parent_path: &[u8], name: &OsStr) -> Result<Self> {
        let dir = parent_dir.join(name);
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let id = fs::metadata(&dir)?.ino();
        let path = [parent_path, b"/", name.as_bytes()].concat();
        Ok(Self { dir, place: Place { path, id }, version })
    }

    /// A cgroup below this one, by a name of any bytes but `/` and newline.
    pub fn child(&self, name: &[u8]) -> Result<Self> {
        Self::make(self.version, &self.dir, &self.place.path, OsStr::from_bytes(name))
    }

    /// Allows limits for the cgroups below it, which must be made after this.
    pub fn allow_children(&self) -> Result<()> {
        match self.version {
            Version::V2 => enable_memory(&self.dir),
            // Before 5.11, a v1 cgroup accounts for its children only after this.
            Version::V1 => {
                let _ignored = fs::write(self.file("memory.use_hierarchy"), "1");
                Ok(())
            }
        }
    }

    /// Lets a user make cgroups in it and enter them, like systemd's `Delegate=`. Its limit still belongs to root.
    pub fn hand_over(&self, uid: u32) -> Result<()> {
        for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            let file = self.dir.join(name);
            if file.exists() {
                std::os::unix::fs::chown(&file, Some(uid), Some(uid))
                    .with_context(|| format!("hand over {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The file through which a process enters.
    pub fn procs(&self) -> PathBuf {
        self.file("cgroup.procs")
    }

    /// The file that holds its limit.
    pub fn limit_file(&self) -> PathBuf {
        self.file(match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        })
    }

    /// Limits its memory. Its swap has no limit.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        self.write(&self.limit_file(), &bytes.to_string())
    }

    /// Limits its swap to `bytes`. `memory` is its memory limit, which is already set. Returns false if the
    /// kernel does not account for swap.
    pub fn limit_swap(&self, memory: u64, bytes: u64) -> Result<bool> {
        let (file, value) = match self.version {
            Version::V1 => (self.file("memory.memsw.limit_in_bytes"), memory + bytes),
            Version::V2 => (self.file("memory.swap.max"), bytes),
        };
        if !file.exists() {
            return Ok(false);
        }
        self.write(&file, &value.to_string()).map(|()| true)
    }

    /// Writes one of its files.
    pub fn write(&self, file: &Path, value: &str) -> Result<()> {
        fs::write(file, value).with_context(|| format!("write {value} to {}", file.display()))
    }

    /// A number in one of its files; `None` where this kernel has no such file, or it says `max`.
    pub fn number(&self, name: &str) -> Option<u64> {
        fs::read_to_string(self.file(name)).ok()?.trim().parse().ok()
    }

    /// Bytes charged now.
    pub fn usage(&self) -> Result<u64> {
        let name = match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        self.number(name).with_context(|| format!("read {name}"))
    }

    /// The largest charge so far; `None` before 5.19 on v2.
    pub fn peak(&self) -> Option<u64> {
        self.number(match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        })
    }

    /// The kernel's counts of memory events: all of `memory.events` on v2; on v1 what `memory.oom_control` has.
    pub fn events(&self) -> Result<BTreeMap<String, u64>> {
        let file = self.file(match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        });
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let counts = text.lines().filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        let wanted = |name: &str| self.version == Version::V2 || name == "oom_kill";
        Ok(counts.filter(|(name, _)| wanted(name)).collect())
    }

    /// Removes it now.
    pub fn remove(self) -> Result<()> {
        remove_tree(&self.dir)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            use std::io::Write;
            let _ignored = writeln!(std::io::stderr(), "{error:#}");
        }
    }
}

/// Removes a cgroup and those below it, and kills the processes that are left in them.
pub(crate) fn remove_tree(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match remove_once(dir) {
            Ok(()) => return Ok(()),
            // A dying process leaves its cgroup a moment after its parent was notified.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error).with_context(|| format!("remove {}", dir.display())),
        }
    }
}

fn remove_once(dir: &Path) -> std::io::Result<()> {
    // The common case, an empty cgroup, needs one call.
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    for pid in text.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()).filter(|pid| *pid > 0) {
        // SAFETY: takes numbers; the process was in our own cgroup a moment ago.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    fs::remove_dir(dir)
}
