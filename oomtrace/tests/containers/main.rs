//! From a cgroup to a container's name: state files as the runtimes write them, and state files that are made
//! to deceive.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests"
)]

mod grammars;
mod host;
mod hostile;
mod shares;
mod times;
mod users;
