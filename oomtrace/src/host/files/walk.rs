//! Resolves a path name by name. Each name is opened only with `O_PATH`, and no mount that may not answer is
//! entered.
//!
//! `openat2` could do a part of this in one call, but systemd blocks it for services with
//! `RestrictSUIDSGID=`.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, openat, readlinkat, statx},
    io::Errno,
};

use crate::host::files::{FileError, mounts::Mounts};

/// The kernel's own limit.
const LINKS_MAX: usize = 40;
const DEPTH_MAX: usize = 64;

/// A file or directory that was found at a path.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) kind: FileType,
    mount: u64,
    /// Its path, without links.
    path: Vec<u8>,
}

impl Found {
    fn root() -> Result<Self, FileError> {
        let fd = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(refusal)?;
        let (kind, mount) = kind_and_mount(&fd)?;
        Ok(Self { fd, kind, mount, path: Vec::new() })
    }

    /// The child `name`, if this is a directory. A link is not followed.
    fn child(&self, name: &OsStr, mounts: &mut Mounts) -> Result<Self, FileError> {
        let path = [self.path.as_slice(), name.as_bytes()].join(&b'/');
        mounts.at(&path)?;
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, look, Mode::empty()).map_err(refusal)?;
        let (kind, mount) = kind_and_mount(&fd)?;
        Ok(Self { fd, kind, mount, path })
    }
}

/// What is at `path`. Links are followed.
pub(super) fn resolve(path: &Path, mounts: &mut Mounts) -> Result<Found, FileError> {
    let path = std::path::absolute(path)?;
    let mut above = Vec::new();
    let mut at = Found::root()?;
    let mut links = 0;
    let mut names: VecDeque<OsString> = parts(&path).collect();
    while let Some(name) = names.pop_front() {
        if name == ".." {
            at = above.pop().unwrap_or(at);
            continue;
        }
        let next = at.child(&name, mounts)?;
        if next.mount != at.mount {
            mounts.answers(next.mount)?;
        }
        if next.kind != FileType::Symlink {
            if above.len() >= DEPTH_MAX {
                return Err(FileError::Astray);
            }
            above.push(std::mem::replace(&mut at, next));
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(FileError::Astray);
        }
        let to = readlinkat(&next.fd, "", Vec::new()).map_err(refusal)?;
        let to = Path::new(OsStr::from_bytes(to.as_bytes()));
        if to.is_absolute() {
            above.clear();
            at = Found::root()?;
        }
        for part in parts(to).collect::<Vec<_>>().into_iter().rev() {
            names.push_front(part);
        }
    }
    Ok(at)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// What is at `path` below `base`. No link and no `..` is followed. If `base` is `foreign`, mounts are not
/// crossed.
pub(super) fn below(
    base: Found,
    path: &Path,
    foreign: bool,
    mounts: &mut Mounts,
) -> Result<Found, FileError> {
    let mut at = base;
    for part in path.components().filter(|part| *part != Component::CurDir) {
        let Component::Normal(name) = part else { return Err(FileError::Astray) };
        let next = at.child(name, mounts)?;
        if next.kind == FileType::Symlink || foreign && next.mount != at.mount {
            return Err(FileError::Astray);
        }
        if next.mount != at.mount {
            mounts.answers(next.mount)?;
        }
        at = next;
    }
    Ok(at)
}

/// The type of the open file and its mount. The kernel knows both, so the file system is not asked.
fn kind_and_mount(file: &OwnedFd) -> Result<(FileType, u64), FileError> {
    let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(file, c"", flags, wanted).map_err(refusal)?;
    Ok((FileType::from_raw_mode(u32::from(stat.stx_mode)), stat.stx_mnt_id))
}

pub(super) fn refusal(errno: Errno) -> FileError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => FileError::Absent,
        Errno::LOOP | Errno::XDEV => FileError::Astray,
        // Opening a socket, or a device without a driver, gives these.
        Errno::NXIO | Errno::NODEV => FileError::NotRegular,
        other => FileError::Io(other.into()),
    }
}
