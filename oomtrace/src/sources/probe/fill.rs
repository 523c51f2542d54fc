//! How full a ring buffer is, without a system call: two pages of the kernel show both ends of the waiting
//! data.

use std::{
    os::fd::AsFd,
    ptr::null_mut,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

use crate::facts::RingFill;

/// Reads how full a ring is.
#[derive(Debug, Default)]
pub struct FillMeter(Option<Ends>);

#[derive(Debug)]
struct Ends {
    read: Page,
    written: Page,
    size: u64,
}

impl FillMeter {
    /// For a ring of this size. If its pages cannot be mapped, nothing is known.
    pub fn of(ring: &impl AsFd, size: u32) -> Self {
        let page = u64::try_from(page_size()).unwrap_or(4096);
        let ends = |(read, written)| Ends { read, written, size: size.into() };
        Self(Page::map(ring, 0).zip(Page::map(ring, page)).map(ends))
    }

    /// How full it is; `None` if that is not known.
    pub fn read(&self) -> Option<RingFill> {
        let Ends { read, written, size } = self.0.as_ref()?;
        // The first value can only be too old: then the ring looks fuller, up to its size.
        let used = read.number();
        Some(RingFill { used: written.number().saturating_sub(used).min(*size), size: *size })
    }
}

/// A page of the ring, to be read.
#[derive(Debug)]
struct Page(*mut std::ffi::c_void);

impl Page {
    fn map(ring: &impl AsFd, at: u64) -> Option<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        unsafe { mmap(null_mut(), page_size(), ProtFlags::READ, MapFlags::SHARED, ring, at) }.ok().map(Self)
    }

    /// The position that the page starts with.
    fn number(&self) -> u64 {
        // SAFETY: the page is mapped while `self` lives, and aligned as pages are. Others write it
        // atomically.
        unsafe { AtomicU64::from_ptr(self.0.cast()) }.load(Ordering::Acquire)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nothing borrows from it.
        let _stays_until_exit = unsafe { munmap(self.0, page_size()) };
    }
}
