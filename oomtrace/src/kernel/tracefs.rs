//! The kernel's tracing file system, read without mounting it anywhere: a mount of this
//! process's own that no path leads to, gone when its file descriptor is closed.

use std::{
    fs::File,
    io::{self, Read},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

/// The text of a file below the root of tracefs. At most 64 KiB of it.
///
/// # Errors
/// Without CAP_SYS_ADMIN, without tracefs, before kernel 5.2, or if there is no such file.
pub fn read(path: &str) -> io::Result<String> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let file = openat(&mount, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(64 << 10).read_to_string(&mut text)?;
    Ok(text)
}
