//! Facts to events: what a record cannot know is added here, from files of this host.

pub mod absent;
pub mod enricher;
pub mod keys;
pub mod oom;
