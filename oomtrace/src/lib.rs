//! oomtrace prints one line for each OOM kill on a Linux host: which process died, in which container, whose
//! limit fired.
//!
//! ```text
//! kernel hook ─► record in the ring ─► facts ─► enrich ─► event ─► encode ─► transport
//! ```
//!
//! Each arrow changes the type of the data.

pub mod accounting;
pub mod cgroups;
pub mod cli;
pub mod commands;
pub mod containers;
pub mod enrich;
pub mod environment;
pub mod event;
pub mod facts;
pub mod failure;
pub mod filter;
pub mod history;
pub mod host;
pub mod kernel;
pub mod outputs;
pub mod recorded;
pub mod run;
pub mod saved;
pub mod sources;
pub mod stderr;
