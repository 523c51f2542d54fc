//! Reads samples from the cgroups' files, where the kernel refuses the program. A cgroup takes about 40 µs. Another thread reads them,
//! some at a time.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    time::Duration,
};

use oomtrace_common::record::sample::{Sample, sample_fact};
use zerocopy::FromZeros;

use crate::{
    cgroups::{
        file_thread::{Client, Errand, FileThread},
        memory_files::MemoryFiles,
        tree::CgroupTree,
    },
    facts::Limit,
    sources::sampling::reader::Step,
};

/// How many cgroups are read in a step.
pub(super) const STEP: usize = 16;
/// How long a step may take at the end of a run, where nothing wakes the loop for it.
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Has the files of the cgroups read that the tree knows.
#[derive(Debug)]
pub struct Files {
    client: Client<Batch>,
    mount: PathBuf,
    v1: bool,
    page_bytes: u64,
    /// The place in the tree that is next.
    next: usize,
    /// Which walk: what was read for an earlier one is not of this one.
    walk: u32,
    ending: bool,
}

impl Files {
    /// Of the cgroups below `mount`, read by `thread`.
    pub(super) fn new(thread: &FileThread, mount: PathBuf, v1: bool, page_bytes: u64) -> io::Result<Self> {
        let client = thread.client()?;
        Ok(Self { client, mount, v1, page_bytes: page_bytes.max(1), next: 0, walk: 0, ending: false })
    }

    pub(super) fn begin(&mut self) {
        self.next = 0;
        self.walk = self.walk.wrapping_add(1);
    }

    /// The run ends: steps are waited for.
    pub(super) fn ending(&mut self) {
        self.ending = true;
    }

    pub(super) fn step(&mut self, tree: &CgroupTree, mut take: impl FnMut(&Sample)) -> Step {
        let back = if self.ending { self.client.wait(LAST_WAIT) } else { self.client.take_back() };
        if let Some(batch) = back.filter(|batch| batch.walk == self.walk) {
            // One that was removed since has no file.
            batch.samples.iter().filter(|sample| sample.present != 0).for_each(&mut take);
        }
        if self.client.is_busy() {
            return Step::Waits;
        }
        let batch = self.batch(tree);
        if batch.paths.is_empty() {
            return Step::Done;
        }
        self.client.send(batch);
        if self.ending { Step::GoesOn } else { Step::Waits }
    }

    /// The next cgroups to read.
    fn batch(&mut self, tree: &CgroupTree) -> Batch {
        let Self { walk, ref mount, v1, page_bytes, .. } = *self;
        let (paths, samples) = (Vec::new(), Vec::new());
        let mut batch = Batch { walk, mount: mount.clone(), v1, page_bytes, paths, samples };
        for (at, id, parent) in tree.live_from(self.next) {
            self.next = at + 1;
            let Some(path) = tree.path_of(id) else { continue };
            batch.paths.push(path);
            let parent_id = parent.map_or(0, |parent| parent.0);
            batch.samples.push(Sample { cgroup_id: id.0, parent_id, ..Sample::new_zeroed() });
            if batch.paths.len() >= STEP {
                break;
            }
        }
        batch
    }
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

/// Some cgroups, and what their files said.
#[derive(Debug)]
struct Batch {
    walk: u32,
    mount: PathBuf,
    v1: bool,
    page_bytes: u64,
    paths: Vec<Vec<u8>>,
    /// Of each path, with its ids.
    samples: Vec<Sample>,
}

impl Errand for Batch {
    fn run(&mut self) {
        let Self { mount, v1, page_bytes, paths, samples, .. } = self;
        for (path, sample) in paths.iter().zip(samples) {
            read(&MemoryFiles::of(mount, path, *v1), *page_bytes, sample);
        }
    }
}

/// Adds what the files of a cgroup say.
fn read(files: &MemoryFiles, page_bytes: u64, sample: &mut Sample) {
    let mut present = 0;
    let mut fact = |to: &mut u64, value: Option<u64>, bit: u32| {
        if let Some(value) = value {
            *to = value;
            present |= bit;
        }
    };
    let pages = |bytes: u64| bytes / page_bytes;
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
}
