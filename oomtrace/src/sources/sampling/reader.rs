//! Where the samples of a walk come from.

use std::path::PathBuf;

use oomtrace_common::record::sample::Sample;

use crate::{
    cgroups::tree::CgroupTree,
    event::HookStatus,
    sources::{
        probe::{ProbeError, SAMPLER, Sampler, WalkError, WalkStep},
        sampling::{
            SampleEvidence,
            files::{self, Files},
        },
    },
};

/// How [`Reader::status`] names the way in which the program runs: it is attached to nothing.
const TEST_RUN: &str = "test_run";

/// Reads memory cgroups, some in each step.
pub enum Reader {
    /// With the program. The files are read if the kernel refuses to run it.
    Program(Box<Sampler>, Files),
    /// From their files, for this reason.
    Files(Files, String),
    /// There are none.
    Nothing,
}

impl Reader {
    /// How many cgroups are read from their files in a step.
    pub const FILES_STEP: usize = files::STEP;

    /// With the program, if it is loaded. `mount` is where the memory cgroups are mounted; `None` if there are none.
    pub fn new(
        program: Result<Sampler, ProbeError>,
        mount: Option<PathBuf>,
        v1: bool,
        page_bytes: u64,
    ) -> Self {
        let Some(mount) = mount else { return Self::Nothing };
        let files = Files::new(mount, v1, page_bytes);
        let mut sampler = match program {
            Ok(sampler) => Box::new(sampler),
            Err(error) => return Self::Files(files, error.to_string()),
        };
        // A kernel can load it and refuse to run it.
        match sampler.begin().and_then(|()| sampler.step(|_| {})) {
            Ok(_) => Self::Program(sampler, files),
            Err(error) => Self::Files(files, error.to_string()),
        }
    }

    /// How it reads, for the list of hooks.
    pub fn status(&self) -> HookStatus {
        let none = |reason: &str| ("none", Some(reason.to_owned()));
        let (attached, reason) = match self {
            Self::Program(..) => (TEST_RUN, None),
            Self::Files(_, why) => none(why),
            Self::Nothing => none("no memory cgroups"),
        };
        HookStatus { name: SAMPLER.to_owned(), attached: attached.to_owned(), reason }
    }

    /// What is not known because of how it reads.
    pub fn limit(&self) -> Option<String> {
        let Self::Files(_, why) = self else { return None };
        Some(format!(
            "the usage of all memory cgroups is read from their files ({why}): removed cgroups that still hold memory are not known"
        ))
    }

    /// Whether there are no memory cgroups.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Whether the kernel runs the program. Files do not have its lists of pages.
    pub fn is_program(&self) -> bool {
        matches!(self, Self::Program(..))
    }

    pub(super) fn evidence(&self) -> SampleEvidence {
        if self.is_program() { SampleEvidence::Kernel } else { SampleEvidence::Cgroupfs }
    }

    /// Reads the files from now on. Returns false if it does already, or cannot.
    pub(super) fn turn_to_files(&mut self) -> bool {
        match std::mem::replace(self, Self::Nothing) {
            Self::Program(_, files) => {
                *self = Self::Files(files, "the kernel refuses to run the program".to_owned());
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), WalkError> {
        match self {
            Self::Program(sampler, _) => sampler.begin(),
            Self::Files(files, _) => {
                files.begin();
                Ok(())
            }
            Self::Nothing => Err(WalkError::NoCgroups),
        }
    }

    pub(super) fn step(
        &mut self,
        tree: &CgroupTree,
        take: impl FnMut(&Sample),
    ) -> Result<WalkStep, WalkError> {
        match self {
            Self::Program(sampler, _) => sampler.step(take),
            Self::Files(files, _) => Ok(files.step(tree, take)),
            Self::Nothing => Err(WalkError::NoCgroups),
        }
    }
}
