//! A ring buffer of records, read directly from the kernel's memory (kernel/bpf/ringbuf.c).
//!
//! The kernel offers the data twice in a row, so that no record is split. Here it is mapped only once,
//! because mapped pages count as memory of this process. A record that continues at the start of the ring is
//! copied.

use std::{
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    sync::atomic::{Ordering, fence},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use oomtrace_common::record::{CgroupChange, OomKill};
use rustix::{io::Errno, mm::ProtFlags};

use crate::sources::probe::{ProbeError, error::chain, pages::Pages};

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
    written: Rc<Written>,
    /// Where a split record is joined.
    whole: Vec<u8>,
}

/// What the kernel writes.
struct Written {
    /// A page with the kernel's position, and the data after it.
    pages: Pages,
    /// The size of that page.
    page: usize,
    /// The size of the data, a power of two.
    bytes: usize,
}

/// How far this process has read. The kernel reads this.
struct Position {
    page: Rc<Pages>,
    at: usize,
}

/// Shows whether a ring has something to read, beside its reader.
pub(super) struct Look {
    read: Rc<Pages>,
    written: Rc<Written>,
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

    pub(super) fn look(&self) -> Look {
        Look { read: Rc::clone(&self.reader.read.page), written: Rc::clone(&self.reader.written) }
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
        let read = Rc::new(Pages::map(ring, 0, page, ProtFlags::READ | ProtFlags::WRITE)?);
        let pages = Pages::map(ring, page, page + bytes, ProtFlags::READ)?;
        let at = read.number().load(Ordering::Acquire);
        let whole = Vec::with_capacity(size_of::<OomKill>().max(size_of::<CgroupChange>()));
        let written = Rc::new(Written { pages, page, bytes });
        Ok(Self { read: Position { page: read, at }, written, whole })
    }

    fn next(&mut self) -> Option<Record<'_>> {
        let Written { pages, page, bytes } = &*self.written;
        let (offset, len) = loop {
            let header = self.written.complete(self.read.at)?;
            let len = usize::try_from(header & !DISCARDED).ok()?;
            if header & DISCARDED == 0 {
                break ((self.read.at + HEADER) & (bytes - 1), len);
            }
            self.read.pass(len);
        };
        let here = len.min(bytes - offset);
        let mut record = pages.bytes(page + offset, here)?;
        if here < len {
            self.whole.clear();
            self.whole.extend_from_slice(record);
            self.whole.extend_from_slice(pages.bytes(*page, len - here)?);
            record = &self.whole;
        }
        Some(Record { bytes: record, position: &mut self.read })
    }
}

impl Written {
    /// The first word of what is written at this position; `None` if nothing is, or if it is not complete. Then this
    /// process is woken when it is, because everything before it was read: by the kernel, or by the program that wrote it
    /// ([`oomtrace_common::early`]).
    fn complete(&self, at: usize) -> Option<u32> {
        if at == self.pages.number().load(Ordering::Acquire) {
            return None;
        }
        let header = self.pages.word(self.page + (at & (self.bytes - 1)))?.load(Ordering::Acquire);
        (header & BUSY == 0).then_some(header)
    }
}

impl Look {
    /// Whether there is something that the reader has not passed.
    pub(super) fn finds_any(&self) -> bool {
        self.written.complete(self.read.number().load(Ordering::Acquire)).is_some()
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
