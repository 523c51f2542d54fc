//! Files that others may have put there: regular files of a bounded size, on file systems that answer by themselves.
//!
//! - `mounts`: which file systems those are.
//! - `walk`: a path, one name after the other, none of them opened before it is known what it is.
//! - `request`: what can be asked of such files, in this process or in another.
//! - [`readers`]: the processes that read what is a user's.

mod mounts;
pub mod readers;
mod request;
mod walk;

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

pub use request::serve;
use walk::{Found, refusal};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("not there")]
    Absent,
    /// It, or a directory on the way, is a symlink or leads out of the runtime's directory.
    #[error("a link, or out of the runtime's directory")]
    Astray,
    /// A FIFO, a device, a directory.
    #[error("not a regular file")]
    NotRegular,
    /// More bytes than are read.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// On a file system that may keep its reader waiting for ever.
    #[error("on a file system of type {0}, which may never answer")]
    Served(String),
    /// Its reader did not answer in time.
    #[error("its reader did not answer in time")]
    Late,
    /// As many readers wait for ever as may.
    #[error("{0} readers of files do not answer")]
    Stuck(usize),
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not what the runtime writes. serde's own words may quote all of a file that a user wrote.
    #[error("not what the runtime writes, at line {} column {}", .0.line(), .0.column())]
    Content(#[from] serde_json::Error),
}

/// A version of a file: another one differs in some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    pub file: (u64, u64),
    /// Its size.
    pub bytes: i64,
    /// When it was last written, in nanoseconds since 1970.
    pub written_ns: i128,
    /// When that, or its owner or mode, was last changed.
    pub changed_ns: i128,
}

/// A directory, and how files below it are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// Reached as the operator set it up: links are followed.
    pub base: PathBuf,
    /// What follows is below `base` and no link is followed.
    pub below: PathBuf,
    /// Somebody other than root may write there: mounts are not crossed either.
    pub foreign: bool,
}

impl Dir {
    /// `name` is there, or this directory if it is `.`; what it is, is not looked at.
    pub fn find(&self, name: &Path) -> Result<(), FileError> {
        self.open(name).map(drop)
    }

    /// The bytes of the regular file `name`, if they are `max` or fewer.
    pub fn read(&self, name: &Path, max: u64) -> Result<Vec<u8>, FileError> {
        read(&self.open(name)?, max)
    }

    /// At most `max` names in the directory `name`, those that are text.
    pub fn list(&self, name: &Path, max: usize) -> Result<Vec<String>, FileError> {
        let found = self.open(name)?;
        let dir = reopened(&found, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = rustix::fs::Dir::new(dir).map_err(refusal)?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        Ok(names.filter(|name| name != "." && name != "..").take(max).collect())
    }

    /// Which version of `name` is there.
    pub fn stamp(&self, name: &Path) -> Result<Stamp, FileError> {
        let stat = rustix::fs::fstat(&self.open(name)?.fd).map_err(refusal)?;
        let ns = |seconds: i64, ns: u64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Stamp {
            file: (stat.st_dev, stat.st_ino),
            bytes: stat.st_size,
            written_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        })
    }

    fn open(&self, name: &Path) -> Result<Found, FileError> {
        mounts::with(|mounts| {
            let base = walk::resolve(&self.base, mounts)?;
            walk::below(base, &self.below.join(name), self.foreign, mounts)
        })
    }
}

/// The regular file `path` of the host's own set-up, links followed: its bytes, if they are `max` or fewer.
pub fn file(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    read(&mounts::with(|mounts| walk::resolve(path, mounts))?, max)
}

/// What is at `path`, links followed, opened but to look at it; nothing on a file system that may not answer.
pub fn find(path: &Path) -> Result<OwnedFd, FileError> {
    Ok(mounts::with(|mounts| walk::resolve(path, mounts))?.fd)
}

/// `name` of the process whose directory of `/proc` is `process`: what the kernel writes, and not what it links to.
pub fn of_process(process: &Path, name: &OsStr, max: u64) -> Result<Vec<u8>, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = openat(CWD, process.join(name), flags, Mode::empty()).map_err(refusal)?;
    let mut bytes = Vec::new();
    File::from(file).take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read(found: &Found, max: u64) -> Result<Vec<u8>, FileError> {
    if found.kind != FileType::RegularFile {
        return Err(FileError::NotRegular);
    }
    let file = reopened(found, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let mut bytes = Vec::new();
    File::from(file).take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > max) {
        return Err(FileError::TooLarge(max));
    }
    Ok(bytes)
}

/// The very one that was looked at, whatever has its name by now.
fn reopened(found: &Found, flags: OFlags) -> Result<OwnedFd, FileError> {
    let same = format!("/proc/self/fd/{}", found.fd.as_raw_fd());
    openat(CWD, same, flags | OFlags::CLOEXEC, Mode::empty()).map_err(refusal)
}
