//! Events to lines, and lines to where they go.

pub mod encode;
pub mod transport;
