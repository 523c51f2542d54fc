//! A ring buffer of records.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf, ring_buf::RingBufItem},
};

use crate::sources::probe::{ProbeError, error::chain};

/// A ring buffer that the eBPF programs write and this process reads.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, ProbeError> {
        let map =
            ebpf.take_map(name).ok_or(ProbeError::Ring { name, reason: "no such map".into(), os: None })?;
        RingBuf::try_from(map).map(Self).map_err(|error| {
            let (reason, os) = chain(&error);
            ProbeError::Ring { name, reason, os }
        })
    }

    /// One that was pinned.
    pub(super) fn reopened(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// The oldest record. It leaves the ring when it is dropped, so drop it after its line was written.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the ring, which an iterator's item cannot"
    )]
    pub fn next(&mut self) -> Option<RingBufItem<'_>> {
        self.0.next()
    }

    /// Leaves a record in the ring: it is the next one again.
    pub fn leave(record: RingBufItem<'_>) {
        // What takes it out is its drop.
        std::mem::forget(record);
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
