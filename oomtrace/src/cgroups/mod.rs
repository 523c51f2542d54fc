//! The memory cgroups of this host: where they are mounted, which ones exist, and who owns each.

pub mod file_thread;
pub mod hierarchy;
pub mod memory_files;
pub mod tree;
