//! The programs that a guest runs, linked statically: a guest has no C library.
//!
//! In: an architecture. Out: paths of `oomtrace` as it is released, and of the scenario program of `tests/`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::kernels::Arch;

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
    /// If the build fails, or this machine cannot build for `arch`.
    pub fn build(arch: Arch) -> Result<Self> {
        let target = match arch {
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
            Arch::Arm64 => bail!(
                "oomtrace for arm64 is not built here: give --oomtrace and --scenarios, \
                 static programs for aarch64-unknown-linux-gnu"
            ),
        };
        eprintln!("vm: building the static programs");
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--target", target])
            .args(["--package", "oomtrace", "--package", "oomtrace-tests", "--bins"])
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .current_dir(workspace())
            .status()
            .context("cargo cannot be run")?;
        ensure!(status.success(), "the static programs cannot be built");
        let directory = target_directory().join(target).join("release");
        Ok(Self { oomtrace: directory.join("oomtrace"), scenarios: directory.join("oomtrace-scenarios") })
    }

    /// The names of all scenarios: the first word of each line of the program's `--list`.
    ///
    /// # Errors
    /// If the program cannot be run or has none.
    pub fn list(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.scenarios)
            .arg("--list")
            .output()
            .with_context(|| format!("{} cannot be run", self.scenarios.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names: Vec<String> =
            text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        ensure!(output.status.success() && !names.is_empty(), "the scenario program lists no scenario");
        Ok(names)
    }
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}
