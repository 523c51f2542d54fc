//! Reads the host's own files and clocks: identity, processes, the kernel log.
//!
//! Every reader takes a [`Root`](root::Root), so that tests can give it a directory of their own.

pub mod calendar;
pub mod clock;
pub mod files;
pub mod identity;
pub mod kernel_log;
pub mod meminfo;
pub mod process;
pub mod protection;
pub mod root;
pub mod sysctl;
