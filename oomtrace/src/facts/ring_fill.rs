//! How full a ring is.

/// Used bytes and size of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFill {
    /// Bytes that wait to be read.
    pub used: u64,
    /// The size in bytes.
    pub size: u64,
}
