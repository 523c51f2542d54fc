//! A kernel with what Debian's lack: the memory controller of cgroup v1.
//!
//! In: Debian's source of a kernel, and `memcg_v1.config`, the little that a guest asks of it. Out: an image in the cache, built
//! once, and once more when that configuration changes. Needs a compiler and some 20 minutes of a processor; installs the tools
//! that are missing, as the emulator is.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::tools::{install, installed};

/// What such a kernel is called behind its version, here and in its own `uname -r`.
pub const NAME: &str = "memcg-v1";

/// Lines of a `.config`; all else is off.
const CONFIGURATION: &str = include_str!("memcg_v1.config");

/// What a kernel's build runs, and the packages that have it.
const TOOLS: [(&str, &str); 7] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("pahole", "dwarves"),
    ("xz", "xz-utils"),
];

/// A library that it needs, and no program.
const LIBELF: &str = "/usr/include/libelf.h";

/// Makes `image`, unless it was made of this configuration before. `source` unpacks Debian's package.
///
/// # Errors
/// If a tool or the source cannot be had, the kernel has not all that is asked of it, or its build fails.
pub fn build(image: &Path, source: impl FnOnce() -> Result<TempDir>) -> Result<()> {
    let directory = image.parent().context("a path in the cache has a parent")?;
    let configuration = directory.join("config");
    if image.exists() && fs::read_to_string(&configuration).is_ok_and(|text| text == CONFIGURATION) {
        return Ok(());
    }
    ensure!(cfg!(target_arch = "x86_64"), "it is built on x86-64 only");
    for (program, package) in TOOLS {
        installed(program, &[package])?;
    }
    if !Path::new(LIBELF).exists() {
        install(LIBELF, &["libelf-dev"])?;
    }
    fs::create_dir_all(directory)?;
    if image.exists() {
        fs::remove_file(image)?;
    }
    fs::write(&configuration, CONFIGURATION)?;
    let log = directory.join("build.log");
    let output = File::create(&log)?;
    let run = |command: &mut Command| -> Result<()> {
        let status = command.stdout(output.try_clone()?).stderr(output.try_clone()?).status()?;
        ensure!(status.success(), "see the end of {}", log.display());
        Ok(())
    };
    // A build that was broken off goes on where it was.
    let tree = directory.join("tree");
    if !tree.exists() {
        let unpacked = source()?;
        let archive = fs::read_dir(unpacked.path().join("usr/src"))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.to_string_lossy().ends_with(".tar.xz"))
            .context("the source package has no archive")?;
        let whole = unpacked.path().join("tree");
        fs::create_dir(&whole)?;
        run(Command::new("tar").args(["--strip-components=1", "-xf"]).arg(archive).arg("-C").arg(&whole))?;
        fs::rename(&whole, &tree)?;
    }
    let make = || {
        let mut make = Command::new("nice");
        make.args(["-n", "10", "make"]).current_dir(&tree);
        make
    };
    run(make().arg("allnoconfig").arg(format!("KCONFIG_ALLCONFIG={}", configuration.display())))?;
    let taken = fs::read_to_string(tree.join(".config"))?;
    let refused: Vec<&str> = asked().filter(|line| taken.lines().all(|taken| taken != *line)).collect();
    ensure!(refused.is_empty(), "its configuration does not take {}", refused.join(", "));
    eprintln!("vm: building a kernel with cgroup v1, once; {} tells how far it is", log.display());
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    run(make().args(["bzImage", &format!("-j{jobs}")]))?;
    let release = fs::read_to_string(tree.join("include/config/kernel.release"))?;
    fs::write(directory.join("package"), format!("{}, built of Debian's source", release.trim()))?;
    // Last and in one step: what exists under its final name is whole.
    fs::rename(tree.join("arch/x86/boot/bzImage"), image)?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// What is asked of the configuration: its lines but for comments and blanks.
fn asked() -> impl Iterator<Item = &'static str> {
    CONFIGURATION.lines().filter(|line| line.contains("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_asked_too_and_a_comment_is_not() {
        assert!(asked().any(|line| line == "CONFIG_MEMCG_V1=y"));
        assert!(asked().any(|line| line == "# CONFIG_EXPERT is not set"));
        assert!(asked().all(|line| line.starts_with("CONFIG_") || line.ends_with(" is not set")));
    }

    #[test]
    fn such_a_kernel_says_so_itself() {
        assert!(asked().any(|line| line == format!("CONFIG_LOCALVERSION=\"-{NAME}\"")));
    }
}
