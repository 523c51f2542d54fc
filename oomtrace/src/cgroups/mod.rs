//! The memory cgroups of this host: where they are mounted, which there are, and who owns each.

pub mod hierarchy;
pub mod memory_files;
pub mod tree;
