//! `cargo xtask package --check`: tests the packages as a user installs them.

mod guest;
mod rpm_root;
mod twice;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{architecture::Architecture, release::Release};
use crate::{setup, stage::Stages, toolchain::says, workspace};

/// Runs every test whose title contains `name`, even after one fails.
pub fn run(architectures: &[Architecture], out: &Path, name: &str) -> Result<()> {
    setup::ensure(setup::PACKAGE_TESTS)?;
    let release = Release::read()?;
    let mut stages = Stages::default();
    let mut ran = 0;
    let mut stage = |title: &str, test: &dyn Fn() -> Result<()>| {
        if title.contains(name) {
            ran += 1;
            stages.call(title, test);
        }
    };
    stage("lintian", &|| {
        passes(Command::new("lintian").args(["--fail-on", "error,warning"]).args(with_extension(out, "deb")?))
    });
    stage("rpmlint", &|| rpmlint(&workspace::root().join("packaging/rpm/rpmlint.toml"), out));
    stage("checksums", &|| {
        passes(Command::new("sha256sum").args(["--quiet", "-c", "SHA256SUMS"]).current_dir(out))
    });
    for architecture in architectures {
        let tarball =
            out.join(format!("oomtrace-{}-linux-{}.tar.gz", release.version, architecture.debian()));
        stage(&format!("tarball, {}", architecture.debian()), &|| starts(*architecture, &tarball, &release));
    }
    stage("rpm --root: install, verify, upgrade, remove", &|| rpm_root::run(out, &release));
    stage("guest: apt install, upgrade, purge; the image in Podman and containerd", &|| {
        guest::run(out, &release)
    });
    stage("the same bytes from another directory", &|| twice::run(architectures));
    ensure!(ran > 0, "no test of packages has {name} in its title");
    stages.finish()
}

fn passes(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(status.success(), "{:?}: {status}", command.get_program());
    Ok(())
}

/// The files in `out` with this extension.
fn with_extension(out: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(out)? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    ensure!(!files.is_empty(), "no .{extension} in {}", out.display());
    Ok(files)
}

/// rpmlint has no option that makes a warning an error.
fn rpmlint(configuration: &Path, out: &Path) -> Result<()> {
    let output =
        Command::new("rpmlint").arg("-c").arg(configuration).args(with_extension(out, "rpm")?).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("0 errors, 0 warnings"), "{text}");
    Ok(())
}

/// Starts the binary of the tarball and checks its version, under emulation for another architecture.
fn starts(architecture: Architecture, tarball: &Path, release: &Release) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut tar = Command::new("tar");
    tar.args(["--strip-components=1", "-C"]).arg(directory.path()).arg("-xf").arg(tarball);
    passes(&mut tar).with_context(|| tarball.display().to_string())?;
    let binary = directory.path().join("bin/oomtrace");
    let mut command = if architecture.is_host() {
        Command::new(&binary)
    } else {
        let mut emulator = Command::new(format!("qemu-{}-static", architecture.kernel()));
        emulator.arg(&binary);
        emulator
    };
    let said = says(command.arg("--version")).context("it does not start")?;
    ensure!(said.trim() == format!("oomtrace {}", release.version), "it says {said}");
    Ok(())
}
