//! The early wakeup: `out_of_memory` wakes the reader before there is a record, so that the reader is awake when the victim is
//! marked. The record is then committed without a wakeup, which is most of what a mark costs.
//!
//! No record may be left lying. The reader says in [`Watch::awake`] that it looks at the ring of kills all the time. Before it
//! sleeps it clears the word and then looks once more; the program commits the record and then reads the word once more. So
//! either the reader sees the record, or the program sees that the reader may sleep, and wakes it.

/// The one value of the array `WATCH`, which user space maps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// 1 while the reader looks at the ring of kills all the time, else 0. The reader writes it.
    pub awake: u64,
    /// No early wakeup before this time, `CLOCK_BOOTTIME` ns. Both sides write it.
    pub not_before_ns: u64,
}

/// A record of the ring `WAKEUPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Wakeup {
    /// When the OOM killer was entered, `CLOCK_BOOTTIME` ns; 0 if this only wakes a reader that went to sleep.
    pub entered_ns: u64,
    /// The processor on which it was entered.
    pub cpu: u64,
}

const _: () = assert!(size_of::<Watch>() == 16 && size_of::<Wakeup>() == 16);
