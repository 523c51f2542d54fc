//! What a walk over the memory cgroups has found.

use oomtrace_common::record::sample::Sample;

use crate::{
    facts::{BootTime, Decoder, SampleFacts},
    sources::sampling::round::Found,
};

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleEvidence {
    /// The kernel's own counters. Removed cgroups that still hold memory are among them.
    Kernel,
    /// The cgroups' files. They do not show removed cgroups, nor the LRU lists.
    Cgroupfs,
}

/// All memory cgroups, each once and above those below it. Cgroups that were made or removed while it ran may be absent.
///
/// Not all are of the same moment: other processes run between two steps.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    samples: &'a [Sample],
    decoder: Decoder,
    /// Where they come from.
    pub evidence: SampleEvidence,
    /// No sample is older than this.
    pub began: BootTime,
    /// No sample is newer than this.
    pub ended: BootTime,
}

impl<'a> Walk<'a> {
    /// What a round has found.
    pub fn new(found: &Found<'a>, decoder: Decoder) -> Self {
        let Found { samples, evidence, began, ended } = *found;
        Self { samples, decoder, evidence, began, ended }
    }

    /// How many cgroups there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The cgroups.
    pub fn cgroups(&self) -> impl ExactSizeIterator<Item = SampleFacts> + Clone + 'a {
        let decoder = self.decoder;
        self.samples.iter().map(move |sample| decoder.sample(sample))
    }
}
