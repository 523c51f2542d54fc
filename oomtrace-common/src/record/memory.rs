//! The memory of a victim.

/// [`Memory::present`] bits.
pub mod memory_fact {
    /// `total_vm_pages`.
    pub const TOTAL_VM: u64 = 1 << 0;
    /// `anon_pages`.
    pub const ANON: u64 = 1 << 1;
    /// `file_pages`.
    pub const FILE: u64 = 1 << 2;
    /// `shmem_pages`.
    pub const SHMEM: u64 = 1 << 3;
    /// `swap_entries`.
    pub const SWAP: u64 = 1 << 4;
    /// `pgtables_bytes`.
    pub const PGTABLES: u64 = 1 << 5;
}

/// The victim's `mm_struct`, read when it was marked. Counters may be slightly negative, as in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct Memory {
    /// Bits of [`memory_fact`].
    pub present: u64,
    /// `mm->total_vm`.
    pub total_vm_pages: u64,
    /// `MM_ANONPAGES`.
    pub anon_pages: i64,
    /// `MM_FILEPAGES`.
    pub file_pages: i64,
    /// `MM_SHMEMPAGES`.
    pub shmem_pages: i64,
    /// `MM_SWAPENTS`.
    pub swap_entries: i64,
    /// `mm->pgtables_bytes`.
    pub pgtables_bytes: u64,
}
