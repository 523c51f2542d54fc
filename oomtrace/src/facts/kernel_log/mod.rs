//! The kernel log as evidence: turns records of `/dev/kmsg` into reports of the OOM killer.
//!
//! ```text
//! record (bytes of one read) ─► line (what the kernel said) ─► report (one run of the killer)
//! ```
//!
//! The text is hostile: others choose comms and names of cgroups, and the kernel prints them unquoted between
//! commas. So each line is parsed from its fixed ends inwards, and an ambiguous line is not split. Lines that
//! user space writes to the log have another facility and are ignored.
//!
//! The OOM killer's report is rate-limited (10 in 5 s), so a kill without a report is normal. Formats:
//! kernels 5.10 to 7.3.

mod chosen;
mod kills;
pub mod line;
mod logged_kill;
mod pieces;
pub mod record;
pub mod report;
pub mod run_report;
pub mod saved;

pub use chosen::{Chosen, Split};
pub use kills::Kills;
pub use line::{AlreadyExiting, Invoked, Killed, OomDomain, OomLine, Usage, UsageKind};
pub use logged_kill::LoggedKill;
pub use pieces::Lines;
pub use record::{Caller, RecordMeta};
pub use report::{OomReport, Reports};
pub use run_report::{ReaperLine, RunReport, RunReports};

#[cfg(test)]
mod tests;
