//! The kernel's log as evidence: records of `/dev/kmsg` go in, reports of the OOM killer come out.
//!
//! ```text
//! record (bytes of one read) ─► line (what the kernel said) ─► report (one run of the killer)
//! ```
//!
//! The text is hostile: a comm and the names of cgroups hold what their makers chose, and the kernel puts them unquoted
//! between commas. So each line is read from its fixed ends inwards, and where two readings are possible none is
//! chosen. What user space writes to the log is told apart by its facility and never read.
//!
//! The killer's report is rate-limited (10 in 5 s): a kill without a report is normal. Formats: kernels 5.10 to 7.3.

mod chosen;
mod kills;
pub mod line;
mod logged_kill;
mod pieces;
pub mod record;
pub mod report;
pub mod saved;

pub use chosen::{Chosen, Split};
pub use kills::Kills;
pub use line::{AlreadyExiting, Invoked, Killed, OomDomain, OomLine, Usage, UsageKind};
pub use logged_kill::LoggedKill;
pub use pieces::Lines;
pub use record::{Caller, RecordMeta};
pub use report::{OomReport, Reports};

#[cfg(test)]
mod tests;
