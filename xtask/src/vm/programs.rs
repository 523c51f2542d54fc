//! The programs that run in a guest, linked statically because a guest has no C library: `oomtrace` as it is
//! released, and the scenario program of `tests/`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    kernels::{Arch, Store},
    tools::installed,
};
use crate::workspace;

const SCENARIOS: &str = "oomtrace-scenarios";

/// With this flag the C library's usual target gives a static program.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// The static programs of a guest.
pub struct Programs {
    /// The tracer.
    pub oomtrace: PathBuf,
    /// The scenarios of `tests/`.
    pub scenarios: PathBuf,
}

impl Programs {
    /// Builds both.
    ///
    /// # Errors
    /// If the build fails, or something for building for another architecture is missing.
    pub fn build(store: &Store) -> Result<Self> {
        let target = match store.arch() {
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
            Arch::Arm64 => "aarch64-unknown-linux-gnu",
        };
        eprintln!("vm: building the static programs");
        for package in ["oomtrace", "oomtrace-tests"] {
            let mut cargo = match store.arch() {
                Arch::X86_64 => workspace::cargo("build"),
                Arch::Arm64 => cross_cargo(store, target)?,
            };
            if cargo.get_envs().all(|(name, _)| name != "RUSTFLAGS") {
                cargo.env("RUSTFLAGS", STATIC);
            }
            cargo.args(["--release", "--bins", "--target", target, "--package", package]);
            if package == "oomtrace-tests" {
                // The schema is not needed in a guest: on a host every line is checked against it.
                cargo.arg("--no-default-features");
            }
            let status = cargo.status().context("cargo cannot be run")?;
            ensure!(status.success(), "{package} cannot be built statically for {target}");
        }
        let directory = workspace::target_dir().join(target).join("release");
        Ok(Self { oomtrace: directory.join("oomtrace"), scenarios: directory.join(SCENARIOS) })
    }
}

/// The names of all scenarios: the first word of each line of `--list`, from `program` or from one built for
/// this machine.
///
/// # Errors
/// If the program cannot be run or lists none.
pub fn scenarios(program: Option<&Path>) -> Result<Vec<String>> {
    let mut command = match program {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = workspace::cargo("run");
            cargo.args(["--quiet", "--package", "oomtrace-tests", "--bin", SCENARIOS, "--"]);
            cargo
        }
    };
    let output = command.arg("--list").output().context("the scenario program cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    ensure!(
        output.status.success() && !names.is_empty(),
        "the scenario program lists no scenario: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(names)
}

/// A cargo that builds for another architecture: the toolchain in use if it has that target, else Debian's
/// with the standard library from Debian's arm64 package, which is not installed.
fn cross_cargo(store: &Store, target: &str) -> Result<Command> {
    let linker = installed("aarch64-linux-gnu-gcc", &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])?;
    let library = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(workspace::root())
        .output()
        .context("rustc cannot be run")?;
    let mut cargo = workspace::cargo("build");
    if !Path::new(String::from_utf8_lossy(&library.stdout).trim()).is_dir() {
        let sysroot = store.arm64_sysroot()?;
        cargo = Command::new("/usr/bin/cargo");
        cargo
            .arg("build")
            .current_dir(workspace::root())
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTFLAGS", format!("{STATIC} --sysroot={}", sysroot.display()));
    }
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", linker);
    Ok(cargo)
}
