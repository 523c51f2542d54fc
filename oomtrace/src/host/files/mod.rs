//! Reads files that others may have written: only regular files of a limited size, on file systems that
//! answer without another program or machine.
//!
//! - `mounts`: which file systems those are.
//! - `walk`: follows a path name by name, and checks what each name is before it is opened.
//! - `request`: what can be asked about such files, in this process or in another.
//! - [`readers`]: the processes that read the files of users.

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
    /// The file does not exist.
    #[error("not there")]
    Absent,
    /// The file, or a directory of its path, is a symlink or is outside the runtime's directory.
    #[error("a symbolic link, or outside of the runtime's directory")]
    Astray,
    /// A FIFO, a device, a directory.
    #[error("not a regular file")]
    NotRegular,
    /// The file is larger than the limit.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// The file system may make its reader wait for ever.
    #[error("on a file system of type {0}, which may never answer")]
    Served(String),
    /// The reader process did not answer in time.
    #[error("its reader did not answer in time")]
    Late,
    /// Too many reader processes hang already.
    #[error("{0} readers of files do not answer")]
    Stuck(usize),
    /// An error of the system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The content is not what the runtime writes. serde's own message is not used: it may quote all of a
    /// user's file.
    #[error("not what the runtime writes, at line {} column {}", .0.line(), .0.column())]
    Content(#[from] serde_json::Error),
}

/// The version of a file. A changed file has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    pub file: (u64, u64),
    /// Its size.
    pub bytes: i64,
    /// Time of the last write, in nanoseconds since 1970.
    pub written_ns: i128,
    /// Time of the last change of content, owner or mode.
    pub changed_ns: i128,
}

/// A directory, and how the files below it are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// The path that the operator configured. Links are followed.
    pub base: PathBuf,
    /// The path below `base`. No link is followed.
    pub below: PathBuf,
    /// Somebody other than root may write there, so mounts are not crossed either.
    pub foreign: bool,
}

impl Dir {
    /// Checks that `name` exists, or this directory if it is `.`. Its type does not matter.
    pub fn find(&self, name: &Path) -> Result<(), FileError> {
        self.open(name).map(drop)
    }

    /// The content of the regular file `name`, if it has at most `max` bytes.
    pub fn read(&self, name: &Path, max: u64) -> Result<Vec<u8>, FileError> {
        read(&self.open(name)?, max)
    }

    /// At most `max` names in the directory `name`. Names that are not text are left out.
    pub fn list(&self, name: &Path, max: usize) -> Result<Vec<String>, FileError> {
        let found = self.open(name)?;
        let dir = reopened(&found, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = rustix::fs::Dir::new(dir).map_err(refusal)?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        Ok(names.filter(|name| name != "." && name != "..").take(max).collect())
    }

    /// The version of `name`.
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

/// The content of the regular file `path` of the host itself, if it has at most `max` bytes. Links are
/// followed.
pub fn file(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    read(&mounts::with(|mounts| walk::resolve(path, mounts))?, max)
}

/// Opens `path` only to look at it (`O_PATH`). Links are followed. Fails on a file system that may not
/// answer.
pub fn find(path: &Path) -> Result<OwnedFd, FileError> {
    Ok(mounts::with(|mounts| walk::resolve(path, mounts))?.fd)
}

/// Reads the file `name` in `process`, a process's directory of `/proc`. A link there is not followed.
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

/// Opens exactly the file that was found, even if its name belongs to another file now.
fn reopened(found: &Found, flags: OFlags) -> Result<OwnedFd, FileError> {
    let same = format!("/proc/self/fd/{}", found.fd.as_raw_fd());
    openat(CWD, same, flags | OFlags::CLOEXEC, Mode::empty()).map_err(refusal)
}
