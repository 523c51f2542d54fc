//! Builds the binary for each architecture: the machine's own, or arm64 on amd64.

use std::{fs, path::PathBuf};

use anyhow::{Result, bail, ensure};

use super::{architecture::Architecture, arm64};
use crate::{build, toolchain, workspace};

/// Builds the binary and returns its path.
pub fn binary(architecture: Architecture) -> Result<PathBuf> {
    let binary = match architecture {
        host if host.is_host() => build::binary()?,
        Architecture::Arm64 => arm64::binary()?,
        Architecture::Amd64 => {
            bail!("packages for amd64 are made on an amd64 machine: give --arch arm64 here")
        }
    };
    names_no_place(&fs::read(&binary)?)?;
    Ok(binary)
}

/// Fails if the binary contains a path of this machine: it would differ if it were built elsewhere.
fn names_no_place(binary: &[u8]) -> Result<()> {
    let places = [Some(workspace::root()), toolchain::cargo_home()];
    for place in places.into_iter().flatten() {
        let text = place.display().to_string();
        let found = binary.windows(text.len()).any(|window| window == text.as_bytes());
        ensure!(!found, "the binary names {text}: it would differ if it were built elsewhere");
    }
    Ok(())
}
