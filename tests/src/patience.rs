//! How a test waits for something that must happen.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long anything may take before a test gives up: emulated kernels are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `find` until it returns something.
///
/// # Errors
/// Those of `find`, and after [`PATIENCE`] that `what` did not come.
pub fn until<T>(what: &str, mut find: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what} did not come in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
