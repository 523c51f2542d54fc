//! Where the OOM killer's state may be found.

/// How much of a kernel stack is copied at most. The deepest `oom_control` that was seen ends 776 bytes up, and
/// programs of others on the same tracepoint have put it 72 bytes further.
pub const STACK_LEN: usize = 1024;

/// A part of the kernel stack of the task that runs the OOM killer, if no function hook saw this run. It holds the
/// `oom_control`, and user space finds it there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Stack {
    /// Where it was: the address of its first byte.
    pub at: u64,
    /// The `task_struct` of the task that ran the killer.
    pub current: u64,
    /// The victim's.
    pub task: u64,
    /// The victim's `group_leader`.
    pub leader: u64,
    /// How many bytes there are, at most [`STACK_LEN`].
    pub len: u32,
    /// Always 0.
    pub reserved: u32,
}
