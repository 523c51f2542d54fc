//! The cgroup for the test kill: made, limited, and removed when it is dropped.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    cgroups::{hierarchy::MemoryHierarchy, memory_files},
    event::CgroupVersion,
    failure::{Code, Failure},
    stderr::say,
};

/// A memory cgroup with a small limit.
pub struct Scratch {
    dir: PathBuf,
    id: u64,
}

impl Scratch {
    /// Makes it directly below the root of the hierarchy.
    pub fn make(hierarchy: &MemoryHierarchy, limit_bytes: usize) -> Result<Self, Failure> {
        if hierarchy.version == CgroupVersion::None {
            let failure = Failure::message(
                Code::Unsupported,
                "this kernel has no memory cgroups: a kill that stays in one cannot be made",
            );
            return Err(failure.hint("boot with the memory controller enabled (cgroup_enable=memory)"));
        }
        let Some(mount) = &hierarchy.mount else {
            let failure = Failure::message(Code::Unsupported, "the memory cgroups are mounted nowhere");
            return Err(failure.hint("mount -t cgroup2 none /sys/fs/cgroup"));
        };
        let v2 = hierarchy.version == CgroupVersion::V2;
        if v2 {
            memory_is_delegated(mount)?;
        }
        let dir = mount.join(format!("oomtrace-simulate-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| cannot("make", &dir, &error))?;
        let mut scratch = Self { dir, id: 0 };
        scratch.id =
            fs::metadata(&scratch.dir).map_err(|error| cannot("look at", &scratch.dir, &error))?.ino();
        scratch.write(memory_files::limit_file(!v2), &limit_bytes.to_string())?;
        // With swap it would take long until the child is killed. On v1 this limit is for memory and swap
        // together.
        let with_swap = if v2 { 0 } else { limit_bytes };
        let _no_swap_accounting = scratch.write(memory_files::swap_limit_file(!v2), &with_swap.to_string());
        Ok(scratch)
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) -> Result<(), Failure> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
        let path = self.dir.join(file);
        fs::write(&path, text).map_err(|error| cannot("write", &path, &error))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A killed process may stay in it for a moment.
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        say(&format!("oomtrace: cannot remove {}: please rmdir it", self.dir.display()));
    }
}

fn memory_is_delegated(mount: &Path) -> Result<(), Failure> {
    let path = mount.join("cgroup.subtree_control");
    let text = fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))?;
    if text.split_ascii_whitespace().any(|controller| controller == "memory") {
        return Ok(());
    }
    let failure =
        Failure::message(Code::Unsupported, "the memory controller is not enabled below the root cgroup");
    Err(failure.hint(format!("echo +memory > {}", path.display())))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::message(Code::RunTime, format!("cannot {what} {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.with(Code::Privilege).hint("run it as root"),
        io::ErrorKind::ReadOnlyFilesystem => {
            failure.hint("the cgroup file system is mounted read-only here: run it on the host")
        }
        _ => failure,
    }
}
