//! What the eBPF programs and the user side agree on: the records in the ring buffers
//! ([`record`]), the kernel offsets handed to the programs ([`layout`]) and the counters
//! they keep ([`counter`]).
//!
//! Integers and byte arrays only: no `bool`, no `enum`, no implicit padding, so that no
//! bit pattern is invalid and each byte that crosses is one that was written. Sizes and
//! offsets are asserted at compile time; a change to any of them is a change of
//! [`WIRE_VERSION`].
#![no_std]

pub mod counter;
pub mod layout;
pub mod pinned;
pub mod record;

/// The version of everything in this crate. Pinned maps of another version are never read.
pub const WIRE_VERSION: u32 = 2;
