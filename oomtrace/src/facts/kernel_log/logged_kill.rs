//! A kill in the kernel log.

use crate::facts::kernel_log::{Killed, OomReport, RecordMeta};

/// A kill in the kernel log.
#[derive(Clone, Debug)]
pub struct LoggedKill {
    /// Number and time, by the log's clock.
    pub meta: RecordMeta,
    /// Its `Killed process` line.
    pub killed: Killed,
    /// The report of its run; `None` if the kernel suppressed it.
    pub report: Option<OomReport>,
    /// It is the chosen process, not one that died with its group.
    pub chosen: bool,
}
