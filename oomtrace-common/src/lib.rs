//! What the eBPF programs and user space share: the records in the ring buffers ([`record`]), the kernel
//! offsets for the programs ([`layout`]), the counters ([`counter`]) and the early wakeup ([`early`]).
//!
//! Only integers and byte arrays: no `bool`, no `enum`, no implicit padding. So every bit pattern is valid,
//! and every byte that crosses was written. Sizes and offsets are asserted at compile time. A change to any
//! of them changes [`WIRE_VERSION`].
#![no_std]

pub mod counter;
pub mod early;
pub mod layout;
pub mod pinned;
pub mod record;

/// The version of everything in this crate. Pinned maps of another version are never read.
pub const WIRE_VERSION: u32 = 6;
