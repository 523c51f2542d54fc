//! A run: its set-up, its loop, and how it ends.

pub mod notify;
pub mod pipeline;
pub mod protection;
pub(crate) mod session;
pub mod signals;
