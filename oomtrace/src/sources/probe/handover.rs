//! What one run of the tracer hands to the next: the map `PINNED`, read and written as a whole.

use aya::maps::{Array, MapData, MapError};
use oomtrace_common::pinned::{self, Pinned};

use crate::host::identity::UniqueId;
use crate::sources::probe::{ProbeError, error::chain};

/// The state that one run hands to the next.
pub(super) struct Handover {
    map: Array<MapData, Pinned>,
    value: Pinned,
}

impl Handover {
    /// Reads the map.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn of(map: Array<MapData, Pinned>) -> Result<Self, MapError> {
        let value = map.get(&0, 0)?;
        Ok(Self { map, value })
    }

    /// What was handed over.
    pub(super) fn value(&self) -> &Pinned {
        &self.value
    }

    /// Changes it: one system call, or none if nothing changes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Pinned)) -> Result<(), ProbeError> {
        let mut value = self.value;
        change(&mut value);
        if value != self.value {
            self.map.set(0, value, 0).map_err(|error| ProbeError::Counters(chain(&error).0))?;
            self.value = value;
        }
        Ok(())
    }

    /// Whether every program was attached and pinned.
    pub(super) fn is_complete(&self) -> bool {
        self.value.get(pinned::COMPLETE) == Some(&1)
    }

    /// Marks that every program is attached and pinned, and stores the id of the set.
    pub(super) fn complete(&mut self, stream: UniqueId) -> Result<(), ProbeError> {
        self.change(|value| {
            let entries = [(pinned::COMPLETE, 1)].into_iter().chain((pinned::STREAM..).zip(stream.halves()));
            for (index, to) in entries {
                if let Some(entry) = value.get_mut(index) {
                    *entry = to;
                }
            }
        })
    }

    /// The id that [`Self::complete`] stored.
    pub(super) fn stream(&self) -> UniqueId {
        let half = |index: usize| self.value.get(index).copied().unwrap_or(0);
        UniqueId::of([half(pinned::STREAM), half(pinned::STREAM + 1)])
    }
}
