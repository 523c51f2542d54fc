//! Follows the kernel log if no function hook runs. Other programs write to it too, so it is read when it
//! grows: less is left to read at the next kill.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{accounting::Account, enrich::enricher::Enricher, sources::Source};

/// Wakes the loop when the log grows.
pub struct FollowKernelLog(OwnedFd);

impl FollowKernelLog {
    /// Follows the log that this enricher reads; `None` if it reads none.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn of(enricher: &Enricher) -> io::Result<Option<Self>> {
        enricher.kernel_log().map(|log| log.as_fd().try_clone_to_owned().map(Self)).transpose()
    }
}

impl Source for FollowKernelLog {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn learn(&mut self, enricher: &mut Enricher, _: &mut Account) -> bool {
        !enricher.read_kernel_log()
    }
}
