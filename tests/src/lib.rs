//! Real kills.
