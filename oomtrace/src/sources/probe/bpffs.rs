//! The file system for pins: finds it, or mounts it at the usual place.

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

/// The usual mount point.
pub const USUAL: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`.
const MAGIC: i64 = 0xcafe_4a11;
/// The source name of a mount that oomtrace made. `detach` recognises it by this.
const SOURCE: &str = "oomtrace";

/// Makes `dir` on a bpffs, and mounts one if necessary. Returns a message if it did.
///
/// # Errors
/// [`PinError::NoBpffs`] if there is none and none can be mounted.
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
        // Another process may have made it just now. It is checked below.
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

/// Checks that only this user or root can have put something into `dir`. Everybody can write a bpffs unless
/// it was mounted with another mode.
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

/// Checks that only this user and root can replace `dir`: each part of its path is a directory of theirs, and
/// none a symbolic link.
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

/// Who can make something with that name, as a part of a sentence.
fn whose_place(part: &Path) -> String {
    let above = part.parent().and_then(|above| Some((above, fs::metadata(above).ok()?)));
    above.map_or_else(String::new, |(above, meta)| {
        format!("; {} belongs to user {} (mode {:04o})", above.display(), meta.uid(), meta.mode() & 0o7777)
    })
}

/// Unmounts the bpffs at the usual place if oomtrace mounted it and it is empty.
pub(super) fn unmount_ours() -> Result<(), PinError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|error| PinError::io("read", Path::new("/proc/self/mounts"), error))?;
    // Of several mounts at one place, the last one is visible.
    let ours = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == Some(USUAL))
        .is_some_and(|line| line.starts_with(&format!("{SOURCE} {USUAL} bpf ")));
    // The kernel may have put files there. Their names contain a dot, which only the kernel can create.
    let of_the_kernel = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().contains(&b'.');
    let empty = || {
        fs::read_dir(USUAL).is_ok_and(|entries| {
            entries.into_iter().all(|entry| entry.is_ok_and(|entry| of_the_kernel(&entry)))
        })
    };
    if !ours || !empty() {
        return Ok(());
    }
    unmount(USUAL, UnmountFlags::empty())
        .map_err(|errno| PinError::io("unmount", Path::new(USUAL), errno.into()))
}

/// Whether a path is on a bpffs.
pub fn is_bpffs(path: &Path) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "the type depends on the machine")]
    statfs(path).is_ok_and(|stat| stat.f_type as i64 & 0xffff_ffff == MAGIC)
}

/// The longest existing prefix of a path.
fn nearest(path: &Path) -> PathBuf {
    let or_here =
        |path: &'_ Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    path.ancestors()
        .map(or_here)
        .find(|path| path.symlink_metadata().is_ok())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// Like [`fs::remove_dir`], but a missing directory is no error, and one in use stays.
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
