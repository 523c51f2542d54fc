//! From a cgroup to a container's name: a tree of state files for each grammar, as the
//! runtimes write them, and those that somebody wrote to deceive.
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
