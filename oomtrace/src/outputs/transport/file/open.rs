//! Opens and creates files. Nothing is followed that another user may have put there.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, fchmod, fchown, fstat, openat, stat},
    io::Errno,
    process::{getegid, geteuid},
};

use crate::outputs::transport::{SinkError, file::regular_size};

/// Who may read a new file. An existing file keeps its permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Its group, if it is not this process's.
    pub group: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: 0o600, group: None }
    }
}

/// How often another program may create or remove the file during an open.
const TRIES: usize = 8;

/// Opens a file for appending, or creates it.
pub(super) fn open(path: &Path, access: Access) -> Result<OwnedFd, SinkError> {
    // Without O_NONBLOCK a FIFO would block the open, and each line, until there is a reader.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK
        | OFlags::NOFOLLOW;
    let refused = |errno: Errno| refused(path, errno.into(), open_hint(path, errno));
    for _ in 0..TRIES {
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => return is_own(path, &fd).map(|()| fd),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(errno)),
        }
        let make = flags | OFlags::CREATE | OFlags::EXCL;
        match openat(CWD, path, make, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => return give(path, fd, access),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(refused(errno)),
        }
    }
    Err(refused(Errno::EXIST))
}

fn refused(path: &Path, source: io::Error, hint: &'static str) -> SinkError {
    SinkError::Open { path: path.to_owned(), hint, source }
}

/// Sets who may read a new file. If that fails, the file is removed.
fn give(path: &Path, fd: OwnedFd, access: Access) -> Result<OwnedFd, SinkError> {
    let group = access.group.map_or(Ok(()), |group| fchown(&fd, None, Some(Gid::from_raw(group))));
    match group.and_then(|()| fchmod(&fd, Mode::from_raw_mode(access.mode))) {
        Ok(()) => Ok(fd),
        Err(errno) => {
            let _left_behind = fs::remove_file(path);
            let hint = "--file-group takes a group of this process: SupplementaryGroups= in the unit; any other needs CAP_CHOWN";
            Err(refused(path, errno.into(), hint))
        }
    }
}

/// In a directory that others can write, a file of another user would show that user every line, and a file
/// with a second name might be any file of this user.
fn is_own(path: &Path, fd: &OwnedFd) -> Result<(), SinkError> {
    if others_may_write(path).is_none() {
        return Ok(());
    }
    let hint = "remove it, or choose a directory that only root may write";
    let there = fstat(fd).map_err(|errno| refused(path, errno.into(), hint))?;
    let regular = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
    let why = if there.st_uid != geteuid().as_raw() {
        format!("others may write its directory, and it belongs to user {}", there.st_uid)
    } else if regular && there.st_nlink != 1 {
        "others may write its directory, and it has another name besides".to_owned()
    } else {
        return Ok(());
    };
    Err(refused(path, io::Error::new(io::ErrorKind::PermissionDenied, why), hint))
}

/// Who else can replace the file with this name, as a sentence.
pub fn others_may_write(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let mut above = path.ancestors().skip(1);
    let dir = above.next()?;
    let whose = |dir: &Path, sticky_is_safe: bool| {
        let meta = fs::metadata(dir).ok()?;
        if meta.uid() != 0 && meta.uid() != geteuid().as_raw() {
            return Some(format!("{} belongs to user {}", dir.display(), meta.uid()));
        }
        let group = if meta.gid() == 0 || meta.gid() == getegid().as_raw() { 0 } else { 0o020 };
        let open = meta.mode() & (group | 0o002) != 0 && !(sticky_is_safe && meta.mode() & 0o1000 != 0);
        open.then(|| {
            format!("{} may be written by others (mode {:04o})", dir.display(), meta.mode() & 0o7777)
        })
    };
    // In a directory with the sticky bit nobody can remove or rename root's files, but anybody can create a
    // missing one.
    whose(dir, false).or_else(|| above.find_map(|dir| whose(dir, true)))
}

/// Creates an empty file that only its owner can read.
///
/// # Errors
/// If it cannot be created, or is a symbolic link.
pub fn create_private(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Whether the last byte of a regular file is not a newline. Other files are not checked. No path is opened,
/// because it may belong to another file now.
pub(super) fn ends_in_a_line(fd: &OwnedFd) -> io::Result<bool> {
    let Some(last) = regular_size(fd.as_fd()).and_then(|size| size.checked_sub(1)) else {
        return Ok(false);
    };
    let mut byte = [b'\n'];
    File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?.read_exact_at(&mut byte, last)?;
    Ok(byte != [b'\n'])
}

/// A hint for a file that cannot be opened.
fn open_hint(path: &Path, errno: Errno) -> &'static str {
    match errno {
        Errno::ISDIR => "it is a directory: name a file in it",
        // /proc and /sys exist and say this of each new file.
        Errno::NOENT => match path.parent() {
            Some(dir) if dir.is_dir() => "no file can be created in its directory: choose another place",
            _ => "its directory does not exist: make it first",
        },
        Errno::NOTDIR => "a part of its path is not a directory",
        Errno::ACCESS | Errno::PERM => "no permission: choose another place, or run as its owner",
        Errno::ROFS => "its file system is read-only: choose another place",
        Errno::LOOP => "it is a symbolic link, which is not followed: name the file itself",
        Errno::NXIO => match stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Fifo) => "this FIFO has no reader: start its reader first",
            Ok(FileType::Socket) => "it is a socket: name a file, or pipe standard output to its server",
            _ => "there is no such device",
        },
        _ => "choose another place",
    }
}
