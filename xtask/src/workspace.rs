//! The paths of this checkout, and how its programs are run: `cargo`, and what must be root.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The checkout. The environment is read at run time first: a shared target directory may hold another
/// checkout's xtask.
pub fn root() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(xtask).join("..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// The eBPF crate, which is a workspace of its own.
pub fn ebpf() -> PathBuf {
    root().join("oomtrace-ebpf")
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into()))
}

/// The user side's target. With an explicit `--target`, `RUSTFLAGS` do not reach build scripts.
pub fn host() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// The cargo that started this program, in the checkout.
pub fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.arg(subcommand).current_dir(root());
    cargo
}

/// A program as root, with sudo if necessary.
pub fn as_root(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}
