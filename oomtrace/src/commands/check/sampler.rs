//! Whether all memory cgroups can be read at once, and what removed ones still hold.

use std::time::Instant;

use super::{Finding, State};
use crate::{
    cgroups::{
        file_thread::FileThread,
        tree::{CgroupTree, TreeLimits},
    },
    containers::Runtimes,
    event::CgroupVersion,
    facts::{Decoder, Removed, SampleFacts, removed},
    host::identity,
    kernel::Kernel,
    sources::{
        probe::{ProbeError, Sampler},
        sampling::{Reader, Round, Turn, Walk},
    },
};

const NAME: &str = "cgroup walk";

/// Nothing is said where there are no memory cgroups.
pub(super) fn finding(kernel: &Kernel, program: Result<Sampler, ProbeError>) -> Option<Finding> {
    if kernel.hierarchy.version == CgroupVersion::None {
        return None;
    }
    let finding = |state, detail| Some(Finding { name: NAME, state, detail });
    match samples(kernel, program) {
        Err(reason) => finding(State::Limited, format!("{reason}: what removed cgroups hold is not known")),
        Ok((samples, took)) => {
            let held = match removed(samples.iter().copied()) {
                None => "this kernel does not say which are removed".to_owned(),
                Some(Removed { cgroups, bytes }) => {
                    format!(
                        "{cgroups} removed ones still hold {} MiB, and no directory shows them",
                        bytes >> 20
                    )
                }
            };
            finding(State::Ok, format!("{} memory cgroups read in {took} µs; {held}", samples.len()))
        }
    }
}

fn samples(
    kernel: &Kernel,
    program: Result<Sampler, ProbeError>,
) -> Result<(Vec<SampleFacts>, u128), String> {
    let page = identity::page_bytes();
    let v1 = kernel.hierarchy.version != CgroupVersion::V2;
    let mount = kernel.hierarchy.mount.clone();
    let reader = FileThread::start().and_then(|thread| Reader::new(program, &thread, mount, v1, page));
    let mut reader = reader.map_err(|error| error.to_string())?;
    if let Some(why) = reader.status().reason {
        return Err(why);
    }
    // The program needs no names of cgroups.
    let tree = CgroupTree::new(Runtimes::none(), TreeLimits::default());
    let mut round = Round::default();
    let since = Instant::now();
    loop {
        match round.turn(&mut reader, &tree) {
            Turn::GoesOn | Turn::Waits => {}
            Turn::Done(found) => {
                let took = since.elapsed().as_micros();
                return Ok((Walk::new(&found, Decoder::new(page)).cgroups().collect(), took));
            }
            Turn::Failed(error) => return Err(error.to_string()),
        }
    }
}
