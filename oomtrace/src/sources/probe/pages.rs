//! Memory that the kernel and this process share: the pages of a map.

use std::{
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize},
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// Mapped pages of a map. A drop unmaps them.
pub(super) struct Pages {
    at: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// `len` bytes of this map, from this byte of it on: at least a page.
    pub(super) fn map(
        map: BorrowedFd<'_>,
        from: usize,
        len: usize,
        access: ProtFlags,
    ) -> rustix::io::Result<Self> {
        let from = u64::try_from(from).unwrap_or(u64::MAX);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, map, from) }?;
        Ok(Self { at: NonNull::new(at.cast()).ok_or(Errno::NOMEM)?, len })
    }

    /// The position at the start of the first page.
    pub(super) fn number(&self) -> &AtomicUsize {
        // SAFETY: the mapping has at least a page, and lives as long as `self`. The position is written
        // atomically.
        unsafe { self.at.cast::<AtomicUsize>().as_ref() }
    }

    /// The two numbers at the start of the first page.
    pub(super) fn two_numbers(&self) -> &[AtomicU64; 2] {
        // SAFETY: the mapping has at least a page, and lives as long as `self`. The numbers are written
        // atomically.
        unsafe { self.at.cast::<[AtomicU64; 2]>().as_ref() }
    }

    /// The word at this byte, if it is aligned as headers are and in the mapping.
    pub(super) fn word(&self, from: usize) -> Option<&AtomicU32> {
        const ALIGNED: usize = 8;
        (from.is_multiple_of(ALIGNED) && from.checked_add(ALIGNED)? <= self.len).then_some(())?;
        // SAFETY: within the mapping, which lives as long as `self`, and aligned. The kernel writes the word
        // atomically.
        Some(unsafe { self.at.add(from).cast::<AtomicU32>().as_ref() })
    }

    /// `len` bytes of a record, if all of them are in the mapping.
    pub(super) fn bytes(&self, from: usize, len: usize) -> Option<&[u8]> {
        (from.checked_add(len)? <= self.len).then_some(())?;
        // SAFETY: within the mapping, which lives as long as `self`. The kernel does not change a complete
        // record until this process has passed it, and for that it needs the ring that the bytes are borrowed
        // from.
        Some(unsafe { std::slice::from_raw_parts(self.at.add(from).as_ptr(), len) })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; all borrows of it have ended with their owner.
        let _stays_until_exit = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}
