//! A ring buffer of records, read where the kernel writes it (kernel/bpf/ringbuf.c).
//!
//! The kernel offers its data twice in a row, so that no record is ever cut. Here it is mapped once, because what is mapped
//! counts as memory of this process: a record that goes on at the start of the ring is copied.

use std::{
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use oomtrace_common::record::{CgroupChange, OomKill};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::sources::probe::{ProbeError, error::chain};

/// Of the first word before a record: it is still being written.
const BUSY: u32 = 1 << 31;
/// Of the same word: nobody shall read it.
const DISCARDED: u32 = 1 << 30;
/// Bytes before each record.
const HEADER: usize = 8;

/// A ring buffer that the eBPF programs write and this process reads.
pub struct Ring {
    map: MapData,
    read: Position,
    /// A page with how far the kernel has written, and the data after it.
    written: Pages,
    /// Bytes of that page.
    page: usize,
    /// Bytes of the data: a power of two.
    bytes: usize,
    /// Where a record is put together that is cut.
    whole: Vec<u8>,
}

/// How far this process has read. The kernel looks at it.
struct Position {
    page: Pages,
    at: usize,
}

/// The oldest record. It leaves the ring when it is dropped.
pub struct Record<'a> {
    bytes: &'a [u8],
    position: &'a mut Position,
}

impl Ring {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, ProbeError> {
        let Some(Map::RingBuf(map)) = ebpf.take_map(name) else {
            return Err(ProbeError::Ring { name, reason: "no such map".into(), os: None });
        };
        Self::of(name, map)
    }

    /// Of a map that is a ring.
    pub(super) fn of(name: &'static str, map: MapData) -> Result<Self, ProbeError> {
        let error = |(reason, os)| ProbeError::Ring { name, reason, os };
        let refused = |errno: rustix::io::Errno| error((errno.to_string(), Some(errno.raw_os_error())));
        let bytes = map.info().map_err(|cause| error(chain(&cause)))?.max_entries();
        let (bytes, page) = (usize::try_from(bytes).unwrap_or(0), rustix::param::page_size());
        if !bytes.is_power_of_two() || bytes < page {
            return Err(error((format!("it has {bytes} bytes"), None)));
        }
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let read = Pages::map(map.fd().as_fd(), 0, page, both).map_err(refused)?;
        let written = Pages::map(map.fd().as_fd(), page, page + bytes, ProtFlags::READ).map_err(refused)?;
        let at = read.number().load(Ordering::Acquire);
        let whole = Vec::with_capacity(size_of::<OomKill>().max(size_of::<CgroupChange>()));
        Ok(Self { map, read: Position { page: read, at }, written, page, bytes, whole })
    }

    /// The oldest record. It leaves the ring when it is dropped, so drop it after its line was written.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the ring, which an iterator's item cannot"
    )]
    pub fn next(&mut self) -> Option<Record<'_>> {
        let (offset, len) = loop {
            if self.read.at == self.written.number().load(Ordering::Acquire) {
                return None;
            }
            let offset = self.read.at & (self.bytes - 1);
            let header = self.written.word(self.page + offset)?.load(Ordering::Acquire);
            if header & BUSY != 0 {
                // The kernel wakes when it is written: it sees that all before it was read.
                return None;
            }
            let len = usize::try_from(header & !DISCARDED).ok()?;
            if header & DISCARDED == 0 {
                break ((offset + HEADER) & (self.bytes - 1), len);
            }
            self.read.pass(len);
        };
        let here = len.min(self.bytes - offset);
        let mut bytes = self.written.bytes(self.page + offset, here)?;
        if here < len {
            self.whole.clear();
            self.whole.extend_from_slice(bytes);
            self.whole.extend_from_slice(self.written.bytes(self.page, len - here)?);
            bytes = &self.whole;
        }
        Some(Record { bytes, position: &mut self.read })
    }

    /// Leaves a record in the ring: it is the next one again.
    pub fn leave(record: Record<'_>) {
        // What takes it out is its drop.
        std::mem::forget(record);
    }
}

impl Position {
    /// Goes on behind a record of so many bytes.
    fn pass(&mut self, len: usize) {
        self.at = self.at.wrapping_add((HEADER + len).next_multiple_of(8));
        self.page.number().store(self.at, Ordering::Release);
        // Before anybody looks for the next one: either it is seen there, or who writes it sees this number, and wakes.
        fence(Ordering::SeqCst);
    }
}

impl std::ops::Deref for Record<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.position.pass(self.bytes.len());
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// Pages of a ring, gone when they are dropped.
struct Pages {
    at: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn map(ring: BorrowedFd<'_>, from: usize, len: usize, access: ProtFlags) -> rustix::io::Result<Self> {
        let from = u64::try_from(from).unwrap_or(u64::MAX);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, ring, from) }?;
        Ok(Self { at: NonNull::new(at.cast()).ok_or(rustix::io::Errno::NOMEM)?, len })
    }

    /// The number that the first page starts with: a position.
    fn number(&self) -> &AtomicUsize {
        // SAFETY: the mapping has at least a page, and lives as long as `self`. Who writes the number writes it in one go.
        unsafe { self.at.cast::<AtomicUsize>().as_ref() }
    }

    /// The first word before a record: its length, and what is with it.
    fn word(&self, from: usize) -> Option<&AtomicU32> {
        (from % HEADER == 0 && from.checked_add(HEADER)? <= self.len).then_some(())?;
        // SAFETY: within the mapping, which lives as long as `self`, and aligned. The kernel writes the word in one go.
        Some(unsafe { self.at.add(from).cast::<AtomicU32>().as_ref() })
    }

    /// `len` bytes of a record, if all of them are in the mapping.
    fn bytes(&self, from: usize, len: usize) -> Option<&[u8]> {
        (from.checked_add(len)? <= self.len).then_some(())?;
        // SAFETY: within the mapping, which lives as long as `self`. The kernel changes no record that is written until
        // this process has passed it, for which it needs the ring that the bytes are borrowed from.
        Some(unsafe { std::slice::from_raw_parts(self.at.add(from).as_ptr(), len) })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; all borrows of it have ended with their owner.
        let _stays_until_exit = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}
