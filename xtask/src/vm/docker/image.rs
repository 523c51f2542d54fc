//! Makes the disk of a guest with systemd, Docker and Podman from Debian's packages, once, and keeps it in
//! the cache.
//!
//! Uses the mirrors of this machine's apt sources. Leaves an ext4 image, and a kernel whose modules are in
//! that image. Takes a minute, needs root, and mounts no disk.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::KERNEL;
use crate::vm::{
    kernels::Store,
    tools::{installed, output},
};

/// The release of Debian. It has systemd 252, Docker 20.10 and Podman 4.3.
const SUITE: &str = "bookworm";
/// Each of these is needed: for users' services (`dbus-user-session`, `libpam-systemd`), for users'
/// containers (`uidmap`, `rootlesskit`), for pods (`catatonit`), as killers of user space (`earlyoom`, `systemd-oomd`).
const PACKAGES: [&str; 16] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "kmod",
    "busybox-static",
    "docker.io",
    "podman",
    "crun",
    "runc",
    "uidmap",
    "rootlesskit",
    "catatonit",
    "earlyoom",
    "systemd-oomd",
];
/// The packages take half a gigabyte of this. The rest is for images and containers.
const SIZE: &str = "2500M";
/// Units that would wait: terminals for devices that only udev reports, others for a network. And killers of user space: only the
/// cases that are about them start them.
const MASKED: [&str; 9] = [
    "serial-getty@.service",
    "getty@.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "podman-auto-update.timer",
    "podman-restart.service",
    "earlyoom.service",
    "systemd-oomd.service",
    "systemd-oomd.socket",
];
const UNIT: &str = include_str!("guest.service");

/// What a guest boots.
pub struct Image {
    /// The disk.
    pub root: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// Versions of the important packages, one on each line.
    pub versions: String,
}

impl Image {
    /// The image, made first if the cache has none of this recipe.
    ///
    /// # Errors
    /// If it cannot be made, for example without root or without a mirror.
    pub fn of(store: &Store) -> Result<Self> {
        let home = store.directory("docker-guest");
        let (root, kernel) = (home.join("root.ext4"), home.join("vmlinuz"));
        let recipe = format!("{SUITE} {KERNEL} {PACKAGES:?} {SIZE} {MASKED:?}\n{UNIT}\n{HOOK}");
        if !fs::read_to_string(home.join("recipe")).is_ok_and(|known| known == recipe) {
            // The recipe is written last. Without it, the image is not complete.
            let _may_not_exist = fs::remove_dir_all(&home);
            fs::create_dir_all(&home)?;
            build(store, &home, &root, &kernel)?;
            fs::write(home.join("recipe"), recipe)?;
        }
        let versions =
            fs::read_to_string(home.join("versions")).context("the image has no list of versions")?;
        Ok(Self { root, kernel, versions })
    }
}

/// A user with his own containers, whose systemd is started at boot.
const HOOK: &str = r#"chroot "$1" useradd --create-home --uid 1000 --shell /bin/sh ann && mkdir -p "$1/var/lib/systemd/linger" && touch "$1/var/lib/systemd/linger/ann""#;

fn build(store: &Store, home: &Path, root: &Path, kernel: &Path) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a root file system can only be made by root");
    let mmdebstrap = installed("mmdebstrap", &["mmdebstrap"])?;
    eprintln!("vm: making the disk of a guest with Docker; its log is {}/log", home.display());
    let scratch = tempfile::tempdir_in(home)?;
    let (tree, package) = (scratch.path().join("root"), scratch.path().join("kernel"));
    let sources = scratch.path().join("sources.list");
    fs::write(&sources, store.apt()?.sources(SUITE)?)?;
    let log = fs::File::create(home.join("log"))?;
    let status = Command::new(mmdebstrap)
        .args(["--mode=root", "--variant=apt", "--format=directory"])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .args(["doc", "man", "locale"].map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")))
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(format!("--customize-hook={HOOK}"))
        .args([SUITE.as_ref(), tree.as_os_str(), sources.as_os_str()])
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("mmdebstrap cannot be run")?;
    ensure!(status.success(), "mmdebstrap: {status}; see {}/log", home.display());

    store.unpack_kernel(KERNEL, &package)?;
    let modules = tree.join("usr/lib/modules");
    fs::create_dir_all(&modules)?;
    let unpacked = ["usr/lib/modules", "lib/modules"].map(|path| package.join(path));
    let unpacked = unpacked.iter().find(|path| path.is_dir()).context("the kernel has no modules")?;
    let version = only_entry(unpacked)?;
    output(Command::new("cp").arg("-a").arg(unpacked.join(&version)).arg(&modules))?;
    output(Command::new(installed("depmod", &["kmod"])?).arg("-b").arg(&tree).arg(&version))?;
    fs::copy(package.join("boot").join(format!("vmlinuz-{version}")), kernel)
        .context("the kernel's image")?;

    let etc = tree.join("etc");
    for name in MASKED {
        let link = etc.join("systemd/system").join(name);
        let _may_not_exist = fs::remove_file(&link);
        symlink("/dev/null", link)?;
    }
    fs::write(etc.join("systemd/system/guest.service"), UNIT)?;
    let wanted = etc.join("systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    symlink("../guest.service", wanted.join("guest.service"))?;
    fs::write(etc.join("hostname"), "guest\n")?;
    // These belong to this machine, and the guest has no network.
    for name in ["resolv.conf", "apt/sources.list"] {
        let _may_not_exist = fs::remove_file(etc.join(name));
    }
    let installed = output(
        Command::new("dpkg-query").arg(format!("--admindir={}", tree.join("var/lib/dpkg").display())).args([
            "-W",
            "-f",
            "${Package} ${Version}\n",
            "systemd",
            "docker.io",
            "containerd",
            "podman",
            "crun",
            "earlyoom",
            "systemd-oomd",
        ]),
    )?;
    fs::write(home.join("versions"), format!("linux {version}\n{installed}"))?;
    make(&tree, root, SIZE)
}

/// Makes an ext4 image of a directory, without a mount.
///
/// # Errors
/// If mke2fs cannot be run, or the directory is too large.
pub fn make(tree: &Path, image: &Path, size: &str) -> Result<()> {
    let mut mke2fs = Command::new(installed("mke2fs", &["e2fsprogs"])?);
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(tree).arg(image).arg(size);
    output(&mut mke2fs).map(drop)
}

fn only_entry(directory: &Path) -> Result<String> {
    let entry = fs::read_dir(directory)?.next().context("an empty directory")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
