//! Turns facts into events: adds what a record does not contain, from files of this host.

pub mod absent;
pub mod enricher;
pub mod findings;
pub mod keys;
pub mod killer;
pub mod oom;
