//! Builds a kernel with what Debian's kernels lack: the memory controller of cgroup v1.
//!
//! Takes Debian's kernel source and `memcg_v1.config`, the few options that a guest needs. Leaves an image in
//! the cache, which is built again only when that configuration changes. Needs a compiler and about 20
//! minutes of a processor, and installs missing tools.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::tools::{install, installed};

/// Suffix of such a kernel's name, here and in its `uname -r`.
pub const NAME: &str = "memcg-v1";

/// Lines of a `.config`. All other options are off.
const CONFIGURATION: &str = include_str!("memcg_v1.config");

/// The programs of a kernel build, and their packages.
const TOOLS: [(&str, &str); 7] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("pahole", "dwarves"),
    ("xz", "xz-utils"),
];

/// A library that the build needs, which has no program.
const LIBELF: &str = "/usr/include/libelf.h";

/// Makes `image`, unless it was already made with this configuration. `source` unpacks Debian's package.
///
/// # Errors
/// If a tool or the source is missing, the kernel does not accept an option, or its build fails.
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
    // An interrupted build continues where it stopped.
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
    eprintln!("vm: building a kernel with cgroup v1, once; {} shows the progress", log.display());
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    run(make().args(["bzImage", &format!("-j{jobs}")]))?;
    let release = fs::read_to_string(tree.join("include/config/kernel.release"))?;
    fs::write(directory.join("package"), format!("{}, built of Debian's source", release.trim()))?;
    // Renamed at the end, so that a file with the final name is always complete.
    fs::rename(tree.join("arch/x86/boot/bzImage"), image)?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// The options in the configuration, without comments and blank lines.
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
