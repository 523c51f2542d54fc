//! Facts to events: what a record cannot know is added here, from files of this host.
//!
//! Every reader takes a [`Root`](crate::root::Root), so that tests give it a tree of their own.

pub mod absent;
pub mod backfill;
pub mod clock;
pub mod containers;
pub mod enricher;
pub mod host;
pub mod kernel_log;
pub mod oom;
pub mod process;
pub mod tree;
pub mod unkilled;
