//! oomtrace tells of every OOM kill on a Linux host, one line each: who died, in which
//! container, whose limit fired.
//!
//! ```text
//! kernel hook ─► record in the ring ─► decode ─► enrich ─► render ─► sink
//! ```
//!
//! Each arrow is one change of type, and no module looks back.

pub mod cli;
pub mod commands;
pub mod decode;
pub mod enrich;
pub mod event;
pub mod failure;
pub mod kernel;
pub mod losses;
pub mod notify;
pub mod pipeline;
pub mod probe;
pub mod reconcile;
pub mod render;
pub mod root;
pub mod signals;
pub mod sink;
pub mod stderr;
pub mod steady;
pub mod verdict;
