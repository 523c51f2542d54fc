//! Finds what builds the eBPF object and gives the `cargo` command that does it.
//!
//! In: the machine (`PATH`, `/usr/bin/rustc`, rustup, the cache directory). Out: a [`Toolchain`], or
//! [`Missing`] with the command that mends it. It installs nothing; `cargo xtask setup` does.
//!
//! Compiled twice: as a module of xtask, and by `#[path]` into `oomtrace/build.rs`. So: only `std`.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The eBPF object is little-endian, like every machine oomtrace runs on.
const BPF_TARGET: &str = "bpfel-unknown-none";

/// Debian's compiler. By its full path, because rustup's proxies usually come first in `PATH`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Variables the outer cargo sets, or the user sets for it, that would mislead the inner one.
const OUTER: [&str; 12] = [
    "CARGO",
    "DEBUG",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "TARGET",
];

/// `CARGO_*` variables that say where crates come from and how to talk: these hold for every cargo.
const SHARED: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];

/// What the machine lacks to build the eBPF object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No compiler with a core library for eBPF: neither Debian's nor a rustup nightly with `rust-src`.
    Core,
    /// No `bpf-linker` in `PATH` or in [`tools_dir`].
    Linker,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Core => "no Rust compiler for eBPF on this machine; run: cargo xtask setup",
            Self::Linker => "no bpf-linker on this machine; run: cargo xtask setup",
        })
    }
}

impl std::error::Error for Missing {}

/// Where the core library for eBPF comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    /// `rustc-web` with `libstd-rust-web-dev-bpf`: the core library is there, compiled.
    Debian,
    /// A rustup nightly with `rust-src`: cargo compiles the core library.
    Nightly,
}

impl Compiler {
    /// Debian's compiler if it is whole, else the nightly.
    pub fn find() -> Result<Self, Missing> {
        let sysroot_has = |rustc: &mut Command, path: &str| {
            sysroot(rustc).is_some_and(|sysroot| sysroot.join("lib/rustlib").join(path).is_dir())
        };
        if Path::new("/usr/bin/cargo").is_file() && sysroot_has(&mut Command::new(DEBIAN_RUSTC), BPF_TARGET) {
            Ok(Self::Debian)
        } else if sysroot_has(
            Command::new("rustup").args(["run", "nightly", "rustc"]),
            "src/rust/library/core",
        ) {
            Ok(Self::Nightly)
        } else {
            Err(Missing::Core)
        }
    }

    /// This compiler's `cargo`, with nothing of an outer cargo in its environment.
    pub fn cargo(self) -> Command {
        let mut cargo = match self {
            Self::Debian => Command::new("/usr/bin/cargo"),
            Self::Nightly => Command::new("rustup"),
        };
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let shared = SHARED.iter().any(|prefix| text.starts_with(prefix));
            let outer =
                OUTER.contains(&text.as_ref()) || text.starts_with("CARGO_") || text.starts_with("RUSTC_");
            if outer && !shared {
                cargo.env_remove(&name);
            }
        }
        match self {
            // aya-ebpf needs an unstable feature of the compiler, which Debian's takes on this word only.
            Self::Debian => cargo
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTDOC", "/usr/bin/rustdoc")
                .env("RUSTC_BOOTSTRAP", "1"),
            Self::Nightly => cargo.args(["run", "nightly", "cargo", "-Zbuild-std=core"]),
        };
        cargo
    }
}

/// Everything the eBPF object is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// Looks for a compiler and for `bpf-linker`, without starting more than two processes.
    pub fn find() -> Result<Self, Missing> {
        Ok(Self { compiler: Compiler::find()?, linker: linker().ok_or(Missing::Linker)? })
    }

    /// The `cargo build` of the eBPF crate at `manifest_dir`, for a kernel on `arch` (Rust's name of it),
    /// which leaves `oomtrace-ebpf` in `artifacts`. All profiles and checks of the user side share
    /// `target_dir`.
    pub fn build(&self, manifest_dir: &Path, arch: &str, target_dir: &Path, artifacts: &Path) -> Command {
        let mut cargo = self.compiler.cargo();
        cargo
            .current_dir(manifest_dir)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            // The layout of `pt_regs` is the kernel's, not the build host's.
            .env("CARGO_CFG_BPF_TARGET_ARCH", arch)
            .args(["build", "--quiet", "--release", "--locked", "--config"])
            .arg(format!("target.{BPF_TARGET}.rustflags=['--cfg=bpf_target_arch=\"{arch}\"']"))
            .arg("--target-dir")
            .arg(target_dir)
            // Copied under cargo's own lock, so that two builds in one target directory cannot swap objects.
            .args(["-Zunstable-options", "--artifact-dir"])
            .arg(artifacts);
        cargo
    }
}

/// Where `cargo xtask setup` puts tools: `$XDG_CACHE_HOME/oomtrace/tools`, else under `~/.cache`.
pub fn tools_dir() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("oomtrace/tools"))
}

/// `bpf-linker`: the user's own before the one that the set-up made.
pub fn linker() -> Option<PathBuf> {
    in_path("bpf-linker").or_else(|| {
        let made = tools_dir()?.join("bin/bpf-linker");
        made.is_file().then_some(made)
    })
}

/// The first file of this name in `PATH`.
pub fn in_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = name.as_ref();
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    // Without `RUSTUP_AUTO_INSTALL=0`, asking about a toolchain may download it.
    let asked = rustc.args(["--print", "sysroot"]).env("RUSTUP_AUTO_INSTALL", "0").stderr(Stdio::null());
    let output = asked.output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}
