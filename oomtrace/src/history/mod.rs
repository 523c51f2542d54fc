//! How the memory of each container, unit and limited cgroup went, in a fixed number of bytes each. Pure: the
//! samples come from outside.
//!
//! - `track`: the samples of one cgroup, in three resolutions.
//! - `tracks`: those of all cgroups, in bounded memory.
//! - `packed`: a size in two bytes.
//! - `slope`: how fast floors rise, with bounds.
//! - `shape`: one word for how a kill came about, where it is certain.
//! - `recurrence`: how often a service was killed, and how long its processes had lived.
//! - `near`: whether a limit comes near.
//!
//! All times that are not given are counted in intervals: the time between two samples, 10 s.

pub mod near;
mod packed;
pub mod recurrence;
pub mod shape;
pub mod slope;
mod track;
mod tracks;

pub use track::{Point, Sampled, Standing, TRACK_BYTES, Track};
pub use tracks::{Found, Tracks};
