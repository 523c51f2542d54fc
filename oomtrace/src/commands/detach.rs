//! `oomtrace detach`: removes what `run --pin` left.

use std::path::Path;

use crate::{failure::Failure, sources::probe::PinDir, stderr::say};

/// `oomtrace detach`.
///
/// # Errors
/// If a run is using the directory, or something cannot be removed.
pub fn detach(dir: &Path) -> Result<(), Failure> {
    if !PinDir::detach(dir)? {
        say(&format!("oomtrace: nothing is attached at {}", dir.display()));
    }
    Ok(())
}
