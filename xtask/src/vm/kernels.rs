//! The kernels that guests boot, and the two programs that a guest also needs: QEMU and busybox.
//!
//! Takes a kernel's name (`6.12`) and returns the path of its image in the cache, fetched once. If everything
//! is cached, no network is used. A kernel that cannot be fetched is an error, and is never left out
//! silently.

use std::{
    cell::OnceCell,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use tempfile::TempDir;

use super::{build_kernel, debian::Apt, tools::installed};

/// The architecture of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// A PC.
    #[value(name = "x86_64")]
    X86_64,
    /// QEMU's `virt` board.
    Arm64,
}

impl Arch {
    /// Whether its programs run on this machine.
    pub fn is_this_machine(self) -> bool {
        match self {
            Self::X86_64 => cfg!(target_arch = "x86_64"),
            Self::Arm64 => cfg!(target_arch = "aarch64"),
        }
    }

    /// Debian's name for it.
    fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The emulator and its package.
    fn qemu(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// The kernels of this architecture.
    ///
    /// Since 6.19 `linux-image-*` is a stub and the image is in `linux-binary-*`. Before a version is signed
    /// there is only `linux-binary-unsigned-*`.
    pub fn kernels(self) -> &'static [Kernel] {
        const fn kernel(name: &'static str, v1: V1, packages: &'static [&'static str]) -> Kernel {
            Kernel { name, v1, packages, flavour: "cloud" }
        }
        match self {
            Self::X86_64 => {
                const {
                    &[
                        kernel("5.10", V1::Packaged, &["linux-image-5.10.0-"]),
                        kernel("6.1", V1::Packaged, &["linux-image-6.1.0-"]),
                        kernel("6.12", V1::Built, &["linux-image-6.12."]),
                        Kernel { flavour: "rt", ..kernel("6.12-rt", V1::Nowhere, &["linux-image-6.12."]) },
                        kernel("6.16", V1::Nowhere, &["linux-image-6.16."]),
                        kernel("6.18", V1::Nowhere, &["linux-image-6.18."]),
                        kernel("7.0", V1::Nowhere, &["linux-binary-7.0."]),
                        kernel("7.2", V1::Nowhere, &["linux-binary-7.2.", "linux-binary-unsigned-7.2."]),
                        kernel("7.3", V1::Nowhere, &["linux-binary-7.3.", "linux-binary-unsigned-7.3."]),
                    ]
                }
            }
            Self::Arm64 => const { &[kernel("6.12", V1::Nowhere, &["linux-image-6.12."])] },
        }
    }
}

/// A kernel that guests can boot.
pub struct Kernel {
    /// Its version.
    pub name: &'static str,
    /// Whether it has the memory controller of cgroup v1.
    pub v1: V1,
    /// Prefixes of its package's name, the best first.
    packages: &'static [&'static str],
    /// Which of Debian's builds: `cloud` is the smallest, `rt` has PREEMPT_RT.
    flavour: &'static str,
}

/// The memory controller of cgroup v1 is an option since 6.11 (`CONFIG_MEMCG_V1`), which Debian turns off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V1 {
    /// Debian's own kernel has it.
    Packaged,
    /// A kernel that is built from Debian's source has it: see `build_kernel.rs`.
    Built,
    /// No kernel of this version has it.
    Nowhere,
}

/// Everything that was fetched for guests of one architecture, in `~/.cache/oomtrace`.
pub struct Store {
    cache: PathBuf,
    arch: Arch,
    apt: OnceCell<Apt>,
}

impl Store {
    /// Opens the cache; fetches nothing yet.
    ///
    /// # Errors
    /// If there is no home directory.
    pub fn open(arch: Arch) -> Result<Self> {
        let cache = match env::var_os("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache),
            None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
        };
        Ok(Self { cache: cache.join("oomtrace"), arch, apt: OnceCell::new() })
    }

    /// The path of the image of kernel `name`, cached or not.
    pub fn image_path(&self, name: &str) -> PathBuf {
        let directory = match self.arch {
            Arch::X86_64 => name.to_owned(),
            Arch::Arm64 => format!("{name}-{}", self.arch.debian()),
        };
        self.cache.join("kernels").join(directory).join("vmlinuz")
    }

    /// The image of kernel `name`, fetched if it is not in the cache.
    ///
    /// # Errors
    /// If there is no such kernel, or it cannot be fetched.
    pub fn kernel(&self, name: &str) -> Result<PathBuf> {
        let image = self.image_path(name);
        if image.exists() {
            return Ok(image);
        }
        let package = self.newest(name)?;
        self.fetch(&package, &image, |unpacked| {
            let modules = fs::read_dir(unpacked.join("usr/lib/modules")).into_iter().flatten().flatten();
            let directories =
                [unpacked.join("boot")].into_iter().chain(modules.map(|version| version.path()));
            directories
                .filter_map(|directory| fs::read_dir(directory).ok())
                .flatten()
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .find(|path| {
                    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"))
                })
        })
        .with_context(|| format!("kernel {name} cannot be fetched"))?;
        Ok(image)
    }

    /// The kernel `name` with the memory controller of cgroup v1: its name and its image, built first if
    /// necessary.
    ///
    /// # Errors
    /// If there is no such kernel, or it cannot be fetched or built.
    pub fn kernel_with_v1(&self, name: &str) -> Result<(String, PathBuf)> {
        match self.known(name)?.v1 {
            V1::Packaged => Ok((name.to_owned(), self.kernel(name)?)),
            V1::Built => {
                let built = format!("{name}-{}", build_kernel::NAME);
                let image = self.image_path(&built);
                build_kernel::build(&image, || self.unpacked(&format!("linux-source-{name}")))
                    .with_context(|| format!("kernel {built} cannot be built"))?;
                Ok((built, image))
            }
            V1::Nowhere => {
                let others = self.arch.kernels().iter().filter(|kernel| kernel.v1 != V1::Nowhere);
                let others: Vec<&str> = others.map(|kernel| kernel.name).collect();
                bail!(
                    "kernel {name} for {} has no memory controller for cgroup v1 (CONFIG_MEMCG_V1); these have: {}",
                    self.arch.debian(),
                    if others.is_empty() { "none".to_owned() } else { others.join(", ") }
                )
            }
        }
    }

    fn known(&self, name: &str) -> Result<&'static Kernel> {
        let known = self.arch.kernels().iter().find(|kernel| kernel.name == name);
        known.with_context(|| format!("no kernel {name} for {}; see --list", self.arch.debian()))
    }

    /// Unpacks a package into a temporary directory of the cache.
    fn unpacked(&self, package: &str) -> Result<TempDir> {
        eprintln!("vm: fetching {package}");
        let directory = tempfile::tempdir_in(&self.cache)?;
        self.apt()?.unpack(package, directory.path())?;
        Ok(directory)
    }

    /// Unpacks the newest package of kernel `name`, with its modules, into `directory`, which must not exist.
    ///
    /// # Errors
    /// If there is no such kernel, or it cannot be fetched.
    pub fn unpack_kernel(&self, name: &str, directory: &Path) -> Result<()> {
        let package = self.newest(name)?;
        eprintln!("vm: fetching {package}");
        self.apt()?.unpack(&package, directory)
    }

    /// The newest package of the kernel `name`.
    fn newest(&self, name: &str) -> Result<String> {
        let Kernel { packages: prefixes, flavour, .. } = self.known(name)?;
        let suffix = format!("-{flavour}-{}", self.arch.debian());
        let mut package = None;
        for prefix in *prefixes {
            package = self.apt()?.newest(prefix, &suffix)?;
            if package.is_some() {
                break;
            }
        }
        package.with_context(|| format!("no package {}*{suffix}", prefixes.join("* or ")))
    }

    /// The package of a cached kernel.
    pub fn package(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.image_path(name).with_file_name("package")).ok()
    }

    /// A busybox that needs no library.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub fn busybox(&self) -> Result<PathBuf> {
        let program = self.cache.join(format!("busybox-{}", self.arch.debian())).join("busybox");
        if !program.exists() {
            self.fetch("busybox-static", &program, |unpacked| {
                ["usr/bin/busybox", "bin/busybox"]
                    .into_iter()
                    .map(|path| unpacked.join(path))
                    .find(|path| path.exists())
            })?;
        }
        Ok(program)
    }

    /// The emulator.
    ///
    /// # Errors
    /// If it is missing and cannot be installed.
    pub fn qemu(&self) -> Result<PathBuf> {
        let (program, package) = self.arch.qemu();
        installed(program, &[package])
    }

    /// A directory of the cache.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.cache.join(name)
    }

    /// The architecture of the guests.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// A sysroot for Debian's own compiler on this machine, with the standard library of arm64.
    ///
    /// # Errors
    /// If Debian's compiler is missing, or the library of its exact version cannot be fetched.
    pub fn arm64_sysroot(&self) -> Result<PathBuf> {
        let compiler = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "rustc-web"]).output()?;
        ensure!(
            compiler.status.success(),
            "no standard library for arm64: run rustup target add aarch64-unknown-linux-gnu, or install rustc-web"
        );
        let version = String::from_utf8_lossy(&compiler.stdout).into_owned();
        let sysroot = self.cache.join(format!("sysroot-arm64-{version}"));
        if !sysroot.exists() {
            let package = format!("libstd-rust-web-dev={version}");
            let unpacked = self.unpacked(&package)?;
            fs::rename(unpacked.path().join("usr"), &sysroot)
                .with_context(|| format!("{package} is not laid out as expected"))?;
        }
        Ok(sysroot)
    }

    /// Unpacks `package` and keeps only the file that `choose` finds, as `destination`.
    fn fetch(
        &self,
        package: &str,
        destination: &Path,
        choose: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Result<()> {
        let directory = destination.parent().context("a path in the cache has a parent")?;
        fs::create_dir_all(directory)?;
        let unpacked = self.unpacked(package)?;
        let file = choose(unpacked.path()).with_context(|| {
            let wanted = destination.file_name().unwrap_or(OsStr::new("?")).display().to_string();
            format!("{package} has no {wanted}")
        })?;
        fs::write(destination.with_file_name("package"), package)?;
        // Renamed at the end, so that a file with the final name is always complete.
        fs::rename(file, destination)?;
        Ok(())
    }

    /// The private apt; its lists are fetched on first use.
    ///
    /// # Errors
    /// If the lists cannot be fetched.
    pub fn apt(&self) -> Result<&Apt> {
        if let Some(apt) = self.apt.get() {
            return Ok(apt);
        }
        let apt = Apt::update(&self.cache, self.arch.debian())?;
        Ok(self.apt.get_or_init(|| apt))
    }
}
