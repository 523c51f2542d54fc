//! `struct oom_control` in a kernel stack: what is one is found, and what only looks like one is not.
//!
//! `cargo test --release -p oomtrace --test on_stack -- --ignored` takes a million stacks for each test that takes some here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, reason = "not each test crate needs each record")]

mod impossible;
mod many;
#[path = "../records/mod.rs"]
mod records;
mod rules;
mod world;
