//! Tests the .deb and the image in a guest with systemd, Podman and containerd: packaging/check/guest.sh.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::super::{image, release::Release};
use crate::{vm, workspace};

/// Runs the guest's script.
pub fn run(out: &Path, release: &Release) -> Result<()> {
    let disk = tempfile::tempdir()?;
    let path = |name: &str| disk.path().join(name);
    let package = out.join(format!("oomtrace_{}-1_amd64.deb", release.version));
    fs::copy(&package, path("first.deb")).with_context(|| package.display().to_string())?;
    let next = format!("{}-2", release.version);
    renumbered(&package, &next, &path("second.deb"))?;
    let archive = out.join(format!("oomtrace-{}-image.tar", release.version));
    fs::copy(&archive, path("image.tar")).with_context(|| archive.display().to_string())?;
    let texts = [
        ("second.version", &next),
        ("version", &release.version),
        ("image.name", &image::reference(release)),
    ];
    for (name, text) in texts {
        fs::write(path(name), format!("{text}\n"))?;
    }
    fs::copy(workspace::root().join("packaging/check/guest.sh"), path("guest.sh"))?;
    // Turn off kernel messages after the boot: reports of OOM kills would break the script's lines.
    fs::write(path("job"), "echo 1 >/proc/sys/kernel/printk\nexec sh /opt/guest.sh\n")?;

    let mut passed = 0;
    vm::docker::run_job(disk.path(), |line| {
        if line.starts_with("PASS ") || line.starts_with("FAIL ") {
            eprintln!("  {line}");
            passed += u32::from(line.starts_with("PASS "));
        }
    })?;
    ensure!(passed > 0, "the guest ran no step");
    Ok(())
}

/// The same package with another version number, for an upgrade.
fn renumbered(package: &Path, version: &str, to: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let tree = directory.path().join("tree");
    let status = Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree).status()?;
    ensure!(status.success(), "dpkg-deb -R: {status}");
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let line =
        text.lines().find(|line| line.starts_with("Version: ")).context("a package without a version")?;
    fs::write(&control, text.replace(line, &format!("Version: {version}")))?;
    let status = Command::new("dpkg-deb").args(["-b", "--root-owner-group"]).arg(&tree).arg(to).status()?;
    ensure!(status.success(), "dpkg-deb -b: {status}");
    Ok(())
}
