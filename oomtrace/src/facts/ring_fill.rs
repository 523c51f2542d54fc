//! How full a ring is.

/// Bytes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFill {
    /// That wait to be read.
    pub used: u64,
    /// That it holds.
    pub size: u64,
}
