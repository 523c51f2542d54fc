//! Reads the kernel's tracing file system where it is mounted, else through a private mount without a path,
//! which is gone when its file descriptor is closed.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

/// Where it may be mounted already. Mounting needs CAP_SYS_ADMIN, reading does not.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The text of a file below the root of tracefs, at most 64 KiB.
///
/// # Errors
/// If there is no tracefs, if it is not mounted and cannot be (CAP_SYS_ADMIN, kernel 5.2), or if there is no
/// such file.
pub fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let file = MOUNTS.iter().find_map(|mount| File::open(Path::new(mount).join(path)).ok());
    let file = file.map_or_else(|| unmounted(path), Ok)?;
    file.take(64 << 10).read_to_string(&mut text)?;
    Ok(text)
}

fn unmounted(path: &str) -> io::Result<File> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let file = openat(&mount, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(file.into())
}
