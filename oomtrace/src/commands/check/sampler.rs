//! Whether all memory cgroups can be read at once, and what removed ones still hold.

use std::time::Instant;

use super::{Finding, State};
use crate::{
    event::CgroupVersion,
    facts::{Decoder, Removed, SampleFacts, removed},
    kernel::Kernel,
    sources::probe::Sampler,
};

const NAME: &str = "cgroup walk";

/// As many as a run keeps the names of, those of removed ones included.
const MOST: usize = (64 + 32) << 10;

/// Nothing is said where there are no memory cgroups.
pub(super) fn finding(kernel: &Kernel) -> Option<Finding> {
    if kernel.hierarchy.version == CgroupVersion::None {
        return None;
    }
    let finding = |state, detail| Some(Finding { name: NAME, state, detail });
    match samples(kernel) {
        Err(reason) => finding(State::Limited, format!("{reason}: what removed cgroups hold is not known")),
        Ok((samples, took)) => {
            let held = match removed(&samples) {
                None => "this kernel does not say which are removed".to_owned(),
                Some(Removed { cgroups, bytes }) => {
                    format!("{cgroups} removed ones, in no directory, still hold {bytes} bytes")
                }
            };
            finding(State::Ok, format!("{} memory cgroups read in {took} µs; {held}", samples.len()))
        }
    }
}

fn samples(kernel: &Kernel) -> Result<(Vec<SampleFacts>, u128), String> {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let decoder = Decoder::new(page);
    let mut sampler = Sampler::load(&kernel.resolved.layout).map_err(|error| error.to_string())?;
    let mut samples = Vec::new();
    let since = Instant::now();
    sampler
        .walk(MOST, &mut samples, Vec::clear, |samples, sample| samples.push(decoder.sample(sample)))
        .map_err(|error| error.to_string())?;
    Ok((samples, since.elapsed().as_micros()))
}
