//! Finds what builds the eBPF object: a compiler and bpf-linker.
//!
//! Looks at `PATH`, `/usr/bin/rustc`, rustup and the cache directory. It installs nothing; `cargo xtask
//! setup` does.
//!
//! It is compiled twice, as a module of xtask and by `#[path]` into `oomtrace/build.rs`, so it uses only
//! `std`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The eBPF object is little-endian, like every machine that oomtrace runs on.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// The nightly that builds the eBPF object if Debian's compiler is not available. The date is fixed, so that
/// two machines build the same and a new nightly breaks nothing. bpf-linker can be built for its LLVM.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// Where the core library for eBPF comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    /// `rustc-web` with `libstd-rust-web-dev-bpf`, which has the core library already compiled.
    Debian,
    /// [`NIGHTLY`] of rustup, with `rust-src`: cargo compiles the core library.
    Nightly,
}

impl Compiler {
    /// Debian's compiler if it is complete, else the nightly.
    pub fn find() -> Option<Self> {
        let has = |compiler: Self, path: &str| {
            let sysroot = says(compiler.tool("rustc").args(["--print", "sysroot"]))?;
            Path::new(sysroot.trim_end()).join("lib/rustlib").join(path).is_dir().then_some(compiler)
        };
        has(Self::Debian, BPF_TARGET)
            .filter(|_| Path::new("/usr/bin/cargo").is_file())
            .or_else(|| has(Self::Nightly, "src/rust/library/core"))
    }

    /// This compiler's `rustc` or `cargo`.
    pub fn tool(self, name: &str) -> Command {
        match self {
            // By its full path, because rustup's proxies usually come first in `PATH`.
            Self::Debian => Command::new(Path::new("/usr/bin").join(name)),
            Self::Nightly => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", NIGHTLY, name]);
                rustup
            }
        }
    }
}

/// `bpf-linker`: the user's own, else the one that the set-up built.
pub fn linker() -> Option<PathBuf> {
    in_path("bpf-linker").or_else(|| made("bpf-linker"))
}

/// A program that the set-up built.
pub fn made(name: &str) -> Option<PathBuf> {
    let made = tools_dir()?.join("bin").join(name);
    made.is_file().then_some(made)
}

/// Where `cargo xtask setup` puts tools: `$XDG_CACHE_HOME/oomtrace/tools`, else under `~/.cache`.
pub fn tools_dir() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("oomtrace/tools"))
}

/// Compiler flags that remove this machine's paths, so that two builds are the same, byte for byte.
pub fn remapped(root: &Path) -> Vec<String> {
    let places = [(Some(root.to_owned()), "/oomtrace"), (cargo_home(), "/cargo")];
    let given = places.into_iter().filter_map(|(place, name)| Some((place?, name)));
    given.map(|(place, name)| format!("--remap-path-prefix={}={name}", place.display())).collect()
}

/// Where cargo keeps the sources of crates.
pub fn cargo_home() -> Option<PathBuf> {
    let usual = || Some(Path::new(&env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(usual)
}

/// The first file of this name in `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The standard output of a command, if it starts and succeeds.
pub fn says(command: &mut Command) -> Option<String> {
    // Without `RUSTUP_AUTO_INSTALL=0`, asking rustup about a toolchain may download it.
    let output = command.env("RUSTUP_AUTO_INSTALL", "0").stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok().filter(|_| output.status.success())
}
