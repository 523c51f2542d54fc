//! The image of all containers here: a static busybox, which has all it takes to run out of memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What takes more memory than any limit here: its buffer.
pub(crate) const EAT: &str = "dd if=/dev/zero of=/dev/null bs=256M count=1";
/// Its name in the image store.
pub(crate) const IMAGE: &str = "oomtrace-test:1";
/// The same in containerd's image store.
pub(crate) const CRI_IMAGE: &str = "docker.io/library/oomtrace-test:1";
/// The image of a pod's sandbox, which only sleeps.
pub(crate) const PAUSE: &str = "oomtrace-test:pause";

/// Makes the root file system as `DIR/rootfs.tar`.
pub(crate) fn rootfs(dir: &Path) -> Result<PathBuf> {
    let (root, tar) = (dir.join("rootfs"), dir.join("rootfs.tar"));
    for sub in ["bin", "gate", "proc", "sys", "dev", "etc", "tmp", "run"] {
        std::fs::create_dir_all(root.join(sub))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("copy /bin/busybox, of Debian's busybox-static: cargo xtask setup --containers")?;
    for applet in ["sh", "dd", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let status = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status()?;
    ensure!(status.success(), "tar: {status}");
    Ok(tar)
}

/// A script that does `then` once the test opens the gate `name`.
pub(crate) fn gated(name: &str, then: &str) -> String {
    format!("until [ -e /gate/{name} ]; do sleep 0.02; done; {then}")
}
