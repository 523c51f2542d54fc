//! The only access to kernel memory.
//!
//! Reads have no branch: a failed read leaves zeros, and a read at an invalid address fails
//! too. So the verifier has a single path, and no loop forks at each fact.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use oomtrace_common::layout::{ABSENT, KernelLayout};

/// The kernel's layout: written by user space before the programs are loaded, then frozen.
#[unsafe(no_mangle)]
pub static LAYOUT: KernelLayout = KernelLayout::UNKNOWN;

/// A member of [`LAYOUT`], as user space wrote it.
macro_rules! layout {
    ($($member:tt)+) => {
        $crate::memory::written(&$crate::memory::LAYOUT.$($member)+)
    };
}
pub(crate) use layout;

/// The value that user space wrote before the program was loaded. The compiler must not assume it.
#[inline(always)]
pub fn written(member: &'static u32) -> u32 {
    // SAFETY: the reference is valid and aligned.
    unsafe { core::ptr::read_volatile(member) }
}

/// Reads kernel memory and counts the failures.
#[derive(Default)]
pub struct Reader {
    failed: u64,
}

impl Reader {
    /// Copies a `T` from `base + offset` to `to`. Returns 1 if it was read; 0 if not, or if this kernel has
    /// no such member.
    ///
    /// # Safety
    /// `to` must be writable, and any bytes must be a valid `T`.
    #[inline(always)]
    pub unsafe fn copy<T>(&mut self, to: *mut T, base: u64, offset: u32) -> u32 {
        if offset == ABSENT {
            return 0;
        }
        let from = base.wrapping_add(u64::from(offset)) as *const c_void;
        // SAFETY: `to` holds a T by this function's contract; the helper checks `from` itself.
        let status = unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from) };
        self.outcome(status)
    }

    /// The pointer at `base + offset`; 0 if it could not be read.
    #[inline(always)]
    pub fn pointer(&mut self, base: u64, offset: u32) -> u64 {
        let mut value = 0u64;
        // SAFETY: `value` is a local, any bytes are a u64.
        unsafe { self.copy(&raw mut value, base, offset) };
        value
    }

    /// The u64 at `base + offset`; 0 if it could not be read.
    #[inline(always)]
    pub fn u64(&mut self, base: u64, offset: u32) -> u64 {
        self.pointer(base, offset)
    }

    /// The u32 at `base + offset`; 0 if it could not be read.
    #[inline(always)]
    pub fn u32(&mut self, base: u64, offset: u32) -> u32 {
        let mut value = 0u32;
        // SAFETY: `value` is a local, any bytes are a u32.
        unsafe { self.copy(&raw mut value, base, offset) };
        value
    }

    /// Copies a NUL-terminated string of at most `size` bytes including the NUL. Returns its length with the
    /// NUL, or a negative number.
    ///
    /// # Safety
    /// `to` must have room for `size` bytes.
    #[inline(always)]
    pub unsafe fn string(&mut self, to: *mut u8, size: u32, from: u64) -> i64 {
        // SAFETY: `to` has room by this function's contract; the helper checks `from` itself.
        let status = unsafe { bpf_probe_read_kernel_str(to.cast(), size, from as *const c_void) };
        self.outcome(status);
        status
    }

    /// How many reads failed.
    #[inline(always)]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Counts a failed call of a helper, which returned a negative number. Returns 1 if it did not fail. This reads the sign bit,
    /// without a branch.
    #[inline(always)]
    pub fn outcome(&mut self, status: i64) -> u32 {
        let failed = (status as u64) >> 63;
        self.failed += failed;
        (failed ^ 1) as u32
    }
}
