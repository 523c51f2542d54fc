//! A kill as the kernel's log has it.

use crate::facts::kernel_log::{Killed, OomReport, RecordMeta};

/// A kill that is in the kernel's log.
#[derive(Clone, Debug)]
pub struct LoggedKill {
    /// When, by the log's clock.
    pub meta: RecordMeta,
    /// Its `Killed process` line.
    pub killed: Killed,
    /// The report of the run it belongs to; `None` if the kernel left that out.
    pub report: Option<OomReport>,
    /// The one that was chosen, not one that died with its group.
    pub chosen: bool,
}
