//! Real OOM kills, each compared field by field with what the kernel itself says of it.
//!
//! The same scenarios run on a host (`cargo test -p oomtrace-tests`, in cgroups of their own)
//! and in emulated guests (`oomtrace-scenarios`, started by an init script). What goes in is
//! the oomtrace binary; what comes out is a verdict for each scenario. Nothing of oomtrace's own
//! code is used: a mistake there must not be repeated here.

pub mod busy;
pub mod cgroup;
pub mod compare;
pub mod containers;
pub mod counters;
pub mod fuse;
pub mod hog;
pub mod kernel_log;
pub mod patience;
pub mod process;
pub mod scenarios;
pub mod schema;
pub mod session;
pub mod soak;
pub mod trace_event;
pub mod tracer;
pub mod verifier;
