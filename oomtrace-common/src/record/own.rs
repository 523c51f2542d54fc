//! What a victim's own cgroups held when it was marked.

/// [`Tasks::present`] bits.
pub mod tasks_fact {
    /// `threads`.
    pub const THREADS: u32 = 1 << 0;
    /// `cgroup_id`.
    pub const CGROUP: u32 = 1 << 1;
    /// The cgroup has a parent: the kernel counts no tasks in the root cgroup.
    pub const COUNTED: u32 = 1 << 2;
    /// `count`.
    pub const COUNT: u32 = 1 << 3;
    /// `limit`.
    pub const LIMIT: u32 = 1 << 4;
    /// `peak`.
    pub const PEAK: u32 = 1 << 5;
    /// The cgroup is in the memory hierarchy. In another one a cgroup can have the same id.
    pub const IN_MEMORY_HIERARCHY: u32 = 1 << 6;
}

/// The victim's threads, and the tasks of its cgroup of the pids hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Tasks {
    /// Bits of [`tasks_fact`].
    pub present: u32,
    /// `signal->nr_threads`.
    pub threads: u32,
    /// `kernfs_node.id` of the cgroup that counts the tasks.
    pub cgroup_id: u64,
    /// `pids_cgroup.counter`.
    pub count: i64,
    /// `pids_cgroup.limit`; the kernel's `PIDS_MAX` if there is no limit.
    pub limit: i64,
    /// `pids_cgroup.watermark`.
    pub peak: i64,
}

/// The LRU lists of the victim's memory cgroup, without the cgroups below it: of all nodes and zones together. A sum may be
/// slightly negative, because the kernel changes the sizes one after the other.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Lru {
    /// 1 if all lists were read, else 0.
    pub present: u64,
    /// `LRU_INACTIVE_ANON` and `LRU_ACTIVE_ANON`.
    pub anon_pages: i64,
    /// `LRU_INACTIVE_FILE` and `LRU_ACTIVE_FILE`.
    pub file_pages: i64,
    /// `LRU_UNEVICTABLE`.
    pub unevictable_pages: i64,
}
