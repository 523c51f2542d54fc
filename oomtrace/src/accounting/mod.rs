//! What was reported, what was lost, and what a run leaves for the next one.

pub mod gap_cgroups;
pub mod losses;
pub mod reconcile;
pub mod reconciliation;
