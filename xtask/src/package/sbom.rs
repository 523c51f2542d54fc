//! The bills of materials (CycloneDX): one for the crates of the binary, one for the crates of its eBPF
//! object.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{packager, release::Release};
use crate::{stage::quietly, workspace};

/// Writes both bills.
pub fn write(release: &Release, out: &Path) -> Result<()> {
    for (name, target) in [("oomtrace", "all"), ("oomtrace-ebpf", "bpfel-unknown-none")] {
        let bill = bill(name, target, release)?;
        fs::write(out.join(format!("{name}-{}.cdx.json", release.version)), bill)?;
    }
    Ok(())
}

/// The bill of the crate in the directory of this name.
fn bill(name: &str, target: &str, release: &Release) -> Result<String> {
    const FILE: &str = "bill-of-materials";
    let root = workspace::root();
    let mut cyclonedx = packager("cargo-cyclonedx", release)?;
    cyclonedx
        .args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--target", target])
        .args(["--override-filename", FILE, "--manifest-path"])
        .arg(root.join(name).join("Cargo.toml"));
    let outcome = quietly(&format!("cargo-cyclonedx, {name}"), "some seconds", &mut cyclonedx);
    let text = fs::read_to_string(root.join(name).join(format!("{FILE}.json")));
    // cargo-cyclonedx writes one beside each crate of the workspace.
    for entry in fs::read_dir(&root)?.flatten() {
        let left = entry.path().join(format!("{FILE}.json"));
        if left.is_file() {
            fs::remove_file(&left).with_context(|| left.display().to_string())?;
        }
    }
    outcome?;
    Ok(text.context("cargo-cyclonedx left no bill")?.replace(&root.display().to_string(), "/oomtrace"))
}
