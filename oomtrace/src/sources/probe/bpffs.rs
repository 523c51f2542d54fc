//! The file system that pins live in: found, or mounted where it usually is.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::sources::probe::PinError;

/// Where a host has it.
pub const USUAL: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`.
const MAGIC: i64 = 0xcafe_4a11;
/// The name of a mount of ours, by which `detach` knows it again.
const SOURCE: &str = "oomtrace";

/// Sees to it that `dir` is on a bpffs, and makes it. Says so if it had to mount one.
///
/// # Errors
/// [`PinError::NoBpffs`] where there is none and none can be mounted.
pub(super) fn make(dir: &Path) -> Result<Option<String>, PinError> {
    let there = nearest(dir);
    let mut said = None;
    if !is_bpffs(&there) {
        if !dir.starts_with(USUAL) || dir == Path::new(USUAL) {
            return Err(PinError::NoBpffs { dir: dir.to_owned(), source: None });
        }
        let none = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(SOURCE, USUAL, "bpf", none, c"mode=0700")
            .map_err(|errno| PinError::NoBpffs { dir: dir.to_owned(), source: Some(errno.into()) })?;
        said = Some(format!("mounted a bpffs on {USUAL}; `oomtrace detach` unmounts it"));
    }
    is_ours(&there)?;
    let missing: Vec<&Path> = dir.ancestors().take_while(|above| **above != *there).collect();
    for dir in missing.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
        // Somebody may have made it just now: what is there is looked at below.
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PinError::io("make", dir, error));
            }
            _ => {}
        }
    }
    check(dir)?;
    Ok(said)
}

/// Whether what is in `dir` can only have been put there by this user or by root. A bpffs is writable by everybody
/// unless it was mounted otherwise.
///
/// # Errors
/// [`PinError::NoBpffs`] and [`PinError::NotOurs`].
pub(super) fn check(dir: &Path) -> Result<(), PinError> {
    if !is_bpffs(dir) {
        return Err(PinError::NoBpffs { dir: dir.to_owned(), source: None });
    }
    is_ours(dir)?;
    let meta = fs::symlink_metadata(dir).map_err(|error| PinError::io("look at", dir, error))?;
    if meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    let why = format!("can be written by others (mode {:04o})", meta.mode() & 0o7777);
    Err(PinError::NotOurs { dir: dir.to_owned(), why })
}

/// Whether nobody but this user and root can put another directory in the place of `dir`: each part of its path is a directory
/// of theirs, and none a symbolic link.
fn is_ours(dir: &Path) -> Result<(), PinError> {
    let dir = std::path::absolute(dir).map_err(|error| PinError::io("look at", dir, error))?;
    let parts: Vec<&Path> = dir.ancestors().collect();
    for part in parts.into_iter().rev() {
        let meta = fs::symlink_metadata(part).map_err(|error| PinError::io("look at", part, error))?;
        let owner = meta.uid();
        let why = if meta.is_symlink() {
            format!("is a symbolic link of user {owner}, which is not followed{}", whose_place(part))
        } else if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            format!("belongs to user {owner}{}", whose_place(part))
        } else if part != dir && meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
            format!("can be written by others (mode {:04o})", meta.mode() & 0o7777)
        } else {
            continue;
        };
        return Err(PinError::NotOurs { dir: part.to_owned(), why });
    }
    Ok(())
}

/// Who may make something of that name, as a part of a sentence.
fn whose_place(part: &Path) -> String {
    let above = part.parent().and_then(|above| Some((above, fs::metadata(above).ok()?)));
    above.map_or_else(String::new, |(above, meta)| {
        format!("; {} belongs to user {} (mode {:04o})", above.display(), meta.uid(), meta.mode() & 0o7777)
    })
}

/// Unmounts the bpffs on the usual place if it is ours and empty.
pub(super) fn unmount_ours() -> Result<bool, PinError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|error| PinError::io("read", Path::new("/proc/self/mounts"), error))?;
    // The last one mounted on a place is the one to be seen there.
    let ours = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == Some(USUAL))
        .is_some_and(|line| line.starts_with(&format!("{SOURCE} {USUAL} bpf ")));
    // The kernel may have put files there, with a dot in their names, which only it can do.
    let of_the_kernel = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().contains(&b'.');
    let empty = || {
        fs::read_dir(USUAL).is_ok_and(|entries| {
            entries.into_iter().all(|entry| entry.is_ok_and(|entry| of_the_kernel(&entry)))
        })
    };
    if !ours || !empty() {
        return Ok(false);
    }
    unmount(USUAL, UnmountFlags::empty())
        .map_err(|errno| PinError::io("unmount", Path::new(USUAL), errno.into()))?;
    Ok(true)
}

/// Whether a path is on a bpffs.
pub fn is_bpffs(path: &Path) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "the type depends on the machine")]
    statfs(path).is_ok_and(|stat| stat.f_type as i64 & 0xffff_ffff == MAGIC)
}

/// The longest beginning of a path that is there.
fn nearest(path: &Path) -> PathBuf {
    let or_here =
        |path: &'_ Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    path.ancestors()
        .map(or_here)
        .find(|path| path.symlink_metadata().is_ok())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// As [`fs::remove_dir`], where what is not there is no error and what is in use stays.
pub(super) fn remove_if_empty(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error)
            if !matches!(
                error.kind(),
                // Busy: the root of a mount.
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}
