//! Reads samples from the cgroups' files, where the kernel refuses the program. A cgroup takes about 40 µs.

use std::path::PathBuf;

use oomtrace_common::record::sample::{Sample, sample_fact};
use zerocopy::FromZeros;

use crate::{
    cgroups::{memory_files::MemoryFiles, tree::CgroupTree},
    facts::Limit,
    sources::probe::WalkStep,
};

/// How many cgroups are read in a step.
pub(super) const STEP: usize = 16;

/// Reads the files of the cgroups that the tree knows.
#[derive(Debug)]
pub struct Files {
    mount: PathBuf,
    v1: bool,
    page_bytes: u64,
    /// The place in the tree that is next.
    next: usize,
}

impl Files {
    pub(super) fn new(mount: PathBuf, v1: bool, page_bytes: u64) -> Self {
        Self { mount, v1, page_bytes: page_bytes.max(1), next: 0 }
    }

    pub(super) fn begin(&mut self) {
        self.next = 0;
    }

    pub(super) fn step(&mut self, tree: &CgroupTree, mut take: impl FnMut(&Sample)) -> WalkStep {
        let mut read = 0;
        for (at, id, parent) in tree.live_from(self.next).take(STEP) {
            read += 1;
            self.next = at + 1;
            let Some(path) = tree.path_of(id) else { continue };
            let sample = Sample {
                cgroup_id: id.0,
                parent_id: parent.map_or(0, |parent| parent.0),
                ..self.sample(&path)
            };
            // One that was removed since has no file.
            if sample.present != 0 {
                take(&sample);
            }
        }
        if read < STEP { WalkStep::Done } else { WalkStep::GoesOn }
    }

    fn sample(&self, path: &[u8]) -> Sample {
        let files = MemoryFiles::of(&self.mount, path, self.v1);
        let mut sample = Sample::new_zeroed();
        let mut present = 0;
        let mut fact = |to: &mut u64, value: Option<u64>, bit: u32| {
            if let Some(value) = value {
                *to = value;
                present |= bit;
            }
        };
        let pages = |bytes: u64| bytes / self.page_bytes;
        let limit = files.limit().map(|limit| match limit {
            Limit::Unlimited => u64::MAX,
            Limit::Bytes(bytes) => pages(bytes),
        });
        fact(&mut sample.usage_pages, files.usage_bytes().map(pages), sample_fact::USAGE);
        fact(&mut sample.max_pages, limit, sample_fact::MAX);
        fact(&mut sample.peak_pages, files.peak_bytes().map(pages), sample_fact::PEAK);
        fact(&mut sample.swap_pages, files.swap_bytes().map(pages), sample_fact::SWAP);
        fact(&mut sample.max_events, files.max_events(), sample_fact::MAX_EVENTS);
        fact(&mut sample.oom_kills, files.oom_kills(), sample_fact::OOM_KILLS);
        sample.present = present;
        sample
    }
}
