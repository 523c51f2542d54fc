//! Events to bytes: pure.
