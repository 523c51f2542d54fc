//! What a walk over the tree of memory cgroups has found.

use super::Lru;

/// How many edges of the tree one call walks, and so how many cgroups it finds at most.
pub const STEPS: usize = 16;

/// [`Cursor::state`]: the walk starts at the next call.
pub const WALK_STARTS: u32 = 0;
/// [`Cursor::state`]: the walk goes on at the next call.
pub const WALK_GOES_ON: u32 = 1;
/// [`Cursor::state`]: the walk is done.
pub const WALK_DONE: u32 = 2;
/// [`Cursor::state`]: the cgroup at which the walk stopped was freed between two calls, or something could not be read.
pub const WALK_LOST: u32 = 3;

/// [`Sample::present`] bits.
pub mod sample_fact {
    /// `usage_pages`.
    pub const USAGE: u32 = 1 << 0;
    /// `max_pages`.
    pub const MAX: u32 = 1 << 1;
    /// `peak_pages`.
    pub const PEAK: u32 = 1 << 2;
    /// `swap_pages`.
    pub const SWAP: u32 = 1 << 3;
    /// `max_events`.
    pub const MAX_EVENTS: u32 = 1 << 4;
    /// `oom_kills`.
    pub const OOM_KILLS: u32 = 1 << 5;
    /// `flags`.
    pub const FLAGS: u32 = 1 << 6;
}

/// Where a walk is. User space sets all to 0 to start one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Cursor {
    /// One of the `WALK_*` constants.
    pub state: u32,
    /// How many samples the last call has made, at most [`STEPS`].
    pub count: u32,
    /// The css of the cgroup that is next.
    pub css: u64,
    /// The css of the root.
    pub root: u64,
    /// 1 after the cgroups below it, 0 before.
    pub up: u64,
    /// Reads that failed since the start.
    pub failed: u64,
}

/// One memory cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Sample {
    /// `kernfs_node.id`.
    pub cgroup_id: u64,
    /// That of the cgroup above it; 0 for the root.
    pub parent_id: u64,
    /// `memory.usage`.
    pub usage_pages: u64,
    /// `memory.max`.
    pub max_pages: u64,
    /// `memory.watermark`.
    pub peak_pages: u64,
    /// `swap.usage` (v2), `memsw.usage` (v1).
    pub swap_pages: u64,
    /// `memory_events[MEMCG_MAX]`.
    pub max_events: u64,
    /// `memory_events[MEMCG_OOM_KILL]`.
    pub oom_kills: u64,
    /// Its LRU lists.
    pub lru: Lru,
    /// `css.flags`: see [`CSS_DYING`].
    pub flags: u32,
    /// Bits of [`sample_fact`].
    pub present: u32,
}

/// A bit of [`Sample::flags`]: the cgroup was removed, and is there only because of the memory that it still holds.
pub const CSS_DYING: u32 = 1 << 4;

/// What one call leaves: the next one goes on from there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Walked {
    /// Where the walk is.
    pub cursor: Cursor,
    /// The cgroups that this call has found.
    pub samples: [Sample; STEPS],
}

const _: () = {
    assert!(size_of::<Cursor>() == 40);
    assert!(size_of::<Sample>() == 104);
    assert!(size_of::<Walked>() == 40 + STEPS * 104);
};
