//! A ring buffer of records, read directly from the kernel's memory (kernel/bpf/ringbuf.c).
//!
//! The kernel offers the data twice in a row, so that no record is split. Here it is mapped only once,
//! because mapped pages count as memory of this process. A record that continues at the start of the ring is
//! copied.

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
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::sources::probe::{ProbeError, error::chain};

/// Bit of the first word before a record: it is still being written.
const BUSY: u32 = 1 << 31;
/// Bit of the same word: the record must be skipped.
const DISCARDED: u32 = 1 << 30;
/// Bytes before each record.
const HEADER: usize = 8;

/// A ring buffer that the eBPF programs write and this process reads.
pub struct Ring {
    map: MapData,
    reader: Reader,
}

/// The memory of a ring.
struct Reader {
    read: Position,
    /// A page with the kernel's position, and the data after it.
    written: Pages,
    /// The size of that page.
    page: usize,
    /// The size of the data, a power of two.
    bytes: usize,
    /// Where a split record is joined.
    whole: Vec<u8>,
}

/// How far this process has read. The kernel reads this.
struct Position {
    page: Pages,
    at: usize,
}

/// The oldest record. A drop removes it from the ring.
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

    /// From a map that is a ring.
    pub(super) fn of(name: &'static str, map: MapData) -> Result<Self, ProbeError> {
        let error = |(reason, os)| ProbeError::Ring { name, reason, os };
        let bytes = map.info().map_err(|cause| error(chain(&cause)))?.max_entries();
        let reader = Reader::map(map.fd().as_fd(), usize::try_from(bytes).unwrap_or(0));
        let reader = reader.map_err(|errno| error((errno.to_string(), Some(errno.raw_os_error()))))?;
        Ok(Self { map, reader })
    }

    /// The oldest record. A drop removes it from the ring, so drop it after its line was written.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the ring, which an iterator's item cannot"
    )]
    pub fn next(&mut self) -> Option<Record<'_>> {
        self.reader.next()
    }

    /// Leaves a record in the ring: the next call returns it again.
    pub fn leave(record: Record<'_>) {
        // Its drop would remove it.
        std::mem::forget(record);
    }
}

impl Reader {
    fn map(ring: BorrowedFd<'_>, bytes: usize) -> rustix::io::Result<Self> {
        let page = rustix::param::page_size();
        if !bytes.is_power_of_two() || bytes < page {
            return Err(Errno::INVAL);
        }
        let read = Pages::map(ring, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let written = Pages::map(ring, page, page + bytes, ProtFlags::READ)?;
        let at = read.number().load(Ordering::Acquire);
        let whole = Vec::with_capacity(size_of::<OomKill>().max(size_of::<CgroupChange>()));
        Ok(Self { read: Position { page: read, at }, written, page, bytes, whole })
    }

    fn next(&mut self) -> Option<Record<'_>> {
        let (offset, len) = loop {
            if self.read.at == self.written.number().load(Ordering::Acquire) {
                return None;
            }
            let offset = self.read.at & (self.bytes - 1);
            let header = self.written.word(self.page + offset)?.load(Ordering::Acquire);
            if header & BUSY != 0 {
                // The kernel wakes this process when the record is complete, because everything before it was
                // read.
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
}

impl Position {
    /// Moves past a record of this length.
    fn pass(&mut self, len: usize) {
        self.at = self.at.wrapping_add((HEADER + len).next_multiple_of(8));
        self.page.number().store(self.at, Ordering::Release);
        // Must come before the next record is checked: either that is seen, or its writer sees this position
        // and wakes this process.
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

/// Mapped pages of a ring. A drop unmaps them.
struct Pages {
    at: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn map(ring: BorrowedFd<'_>, from: usize, len: usize, access: ProtFlags) -> rustix::io::Result<Self> {
        let from = u64::try_from(from).unwrap_or(u64::MAX);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, ring, from) }?;
        Ok(Self { at: NonNull::new(at.cast()).ok_or(Errno::NOMEM)?, len })
    }

    /// The position at the start of the first page.
    fn number(&self) -> &AtomicUsize {
        // SAFETY: the mapping has at least a page, and lives as long as `self`. The position is written
        // atomically.
        unsafe { self.at.cast::<AtomicUsize>().as_ref() }
    }

    /// The first word before a record: its length and its bits.
    fn word(&self, from: usize) -> Option<&AtomicU32> {
        (from.is_multiple_of(HEADER) && from.checked_add(HEADER)? <= self.len).then_some(())?;
        // SAFETY: within the mapping, which lives as long as `self`, and aligned. The kernel writes the word
        // atomically.
        Some(unsafe { self.at.add(from).cast::<AtomicU32>().as_ref() })
    }

    /// `len` bytes of a record, if all of them are in the mapping.
    fn bytes(&self, from: usize, len: usize) -> Option<&[u8]> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::{fs::File, os::unix::fs::FileExt};

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// Does in a file what the kernel does: the reader's position, a page with the writer's position, the
    /// data.
    struct Writer {
        ring: File,
        page: usize,
        bytes: usize,
        at: usize,
    }

    impl Writer {
        /// A ring of one page, in which `at` bytes were written and read before.
        fn new(at: usize) -> (Self, Reader) {
            let page = rustix::param::page_size();
            let ring = File::from(memfd_create("ring", MemfdFlags::CLOEXEC).unwrap());
            ring.set_len(u64::try_from(3 * page).unwrap()).unwrap();
            let writer = Self { ring, page, bytes: page, at };
            writer.put(0, &at.to_le_bytes());
            writer.put(page, &at.to_le_bytes());
            let reader = Reader::map(writer.ring.as_fd(), page).unwrap();
            (writer, reader)
        }

        fn put(&self, at: usize, bytes: &[u8]) {
            self.ring.write_all_at(bytes, u64::try_from(at).unwrap()).unwrap();
        }

        fn read(&self) -> usize {
            let mut number = [0; size_of::<usize>()];
            self.ring.read_exact_at(&mut number, 0).unwrap();
            usize::from_le_bytes(number)
        }

        fn header(&self, at: usize, len: usize, flags: u32) {
            let header = u32::try_from(len).unwrap() | flags;
            self.put(2 * self.page + at % self.bytes, &header.to_le_bytes());
        }

        /// Returns false if there is no room.
        fn write(&mut self, record: &[u8], flags: u32) -> bool {
            let next = self.at + (HEADER + record.len()).next_multiple_of(8);
            if next - self.read() > self.bytes {
                return false;
            }
            self.header(self.at, record.len(), flags);
            for (index, byte) in record.iter().enumerate() {
                self.put(2 * self.page + (self.at + HEADER + index) % self.bytes, &[*byte]);
            }
            self.at = next;
            self.put(self.page, &self.at.to_le_bytes());
            true
        }
    }

    proptest! {
        #[test]
        fn every_record_is_read_once_and_whole(
            start in 0..10_000usize,
            records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..900), 0..4u8), 1..60),
        ) {
            let (mut writer, mut reader) = Writer::new(start * 8);
            let mut waiting = std::collections::VecDeque::new();
            for (record, kind) in records {
                let discarded = kind == 0;
                if writer.write(&record, if discarded { DISCARDED } else { 0 }) && !discarded {
                    waiting.push_back(record);
                }
                if kind < 3 && let Some(record) = waiting.pop_front() {
                    let read = reader.next().unwrap();
                    prop_assert_eq!(&*read, &*record);
                    // It stays if it is only looked at.
                    Ring::leave(read);
                    prop_assert_eq!(&*reader.next().unwrap(), &*record);
                }
            }
            for record in waiting {
                prop_assert_eq!(&*reader.next().unwrap(), &*record);
            }
            prop_assert!(reader.next().is_none());
            prop_assert_eq!(writer.read(), writer.at);
        }
    }

    #[test]
    fn what_is_being_written_is_waited_for_and_so_is_what_comes_after() {
        let (mut writer, mut reader) = Writer::new(0);
        assert!(writer.write(b"half", BUSY) && writer.write(b"after", 0));
        assert!(reader.next().is_none());
        assert_eq!(writer.read(), 0);
        writer.header(0, 4, 0);
        assert_eq!(&*reader.next().unwrap(), b"half");
        assert_eq!(&*reader.next().unwrap(), b"after");
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_record_longer_than_the_ring_is_none() {
        let (mut writer, mut reader) = Writer::new(8);
        assert!(writer.write(b"x", 0));
        writer.header(8, 1 << 20, 0);
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_ring_has_a_power_of_two_bytes_and_at_least_a_page() {
        let (writer, _) = Writer::new(0);
        for bytes in [0, 2048, 4095, 3 * writer.page] {
            assert!(Reader::map(writer.ring.as_fd(), bytes).is_err(), "{bytes}");
        }
    }
}
