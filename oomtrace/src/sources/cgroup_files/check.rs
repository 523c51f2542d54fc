//! What another thread reads of some cgroups.

use std::{path::PathBuf, time::Instant};

use crate::{
    cgroups::{file_thread::Errand, memory_files::MemoryFiles},
    facts::{CgroupId, Limit},
};

/// Cgroups whose files are to be read, and what they said.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) mount: PathBuf,
    pub(super) v1: bool,
    pub(super) cgroups: Vec<Reading>,
    /// When it was asked for.
    pub(super) asked: Instant,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: CgroupId,
    pub(super) path: Vec<u8>,
    pub(super) found: Found,
}

/// What its files said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// v2: see [`counts`].
    pub(super) counts: Option<(u64, u64)>,
    /// v1: whether its tasks hang.
    pub(super) hangs: bool,
    /// v1: whether those of its parent do. Only read where its own hang.
    pub(super) parent_hangs: bool,
    /// Only read where it may have to be reported.
    pub(super) limit: Option<Limit>,
}

impl Reading {
    pub(super) fn of(id: CgroupId, path: Vec<u8>) -> Self {
        Self { id, path, found: Found::default() }
    }
}

impl Errand for Check {
    fn run(&mut self) {
        let files = |path: &[u8]| MemoryFiles::of(&self.mount, path, self.v1);
        for Reading { path, found, .. } in &mut self.cgroups {
            let own = files(path);
            if self.v1 {
                found.hangs = own.hangs();
                let parent = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at));
                found.parent_hangs = found.hangs && parent.is_some_and(|parent| files(parent).hangs());
            } else {
                found.counts = counts(&own);
            }
            let may_be_told = found.hangs || found.counts.is_some_and(|(ooms, _)| ooms > 0);
            found.limit = may_be_told.then(|| own.limit()).flatten();
        }
    }
}

/// `oom` of the cgroup alone, and `oom_kill` including the cgroups below. Before 5.2 `oom` also includes
/// those below.
pub(super) fn counts(files: &MemoryFiles) -> Option<(u64, u64)> {
    Some((files.own_ooms()?, files.oom_kills()?))
}
