//! A run: its set-up, its loop, and its end.

pub(crate) mod beside;
pub mod notify;
pub mod reporter;
pub(crate) mod session;
pub(crate) mod setup;
pub mod signals;
pub(crate) mod warm;
