//! Real OOM kills, each compared field by field with what the kernel itself reports.
//!
//! The same scenarios run on a host (`cargo test -p oomtrace-tests`, in their own cgroups) and in emulated
//! guests (`oomtrace-scenarios`, started by an init script). They take the oomtrace binary and give a result
//! for each scenario. They use no code of oomtrace, so that a mistake there is not repeated here.

pub mod bpf;
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
pub mod storm;
pub mod trace_event;
pub mod tracer;
pub mod user;
pub mod verifier;
pub mod walk;
