//! Where facts come from while a run lasts.

pub mod cgroup_files;
pub mod earlier_kills;
pub mod probe;
pub mod verdict;
