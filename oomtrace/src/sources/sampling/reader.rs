//! Where the samples of a walk come from.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use oomtrace_common::record::sample::Sample;

use crate::{
    cgroups::{file_thread::FileThread, tree::CgroupTree},
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

/// What a step of a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There are more.
    GoesOn,
    /// Another thread reads them.
    Waits,
    /// All were found.
    Done,
    /// It must begin again.
    Lost,
}

impl From<WalkStep> for Step {
    fn from(step: WalkStep) -> Self {
        match step {
            WalkStep::GoesOn => Self::GoesOn,
            WalkStep::Done => Self::Done,
            WalkStep::Lost => Self::Lost,
        }
    }
}

impl Reader {
    /// How many cgroups are read from their files in a step.
    pub const FILES_STEP: usize = files::STEP;

    /// With the program, if it is loaded, else by `thread`. `mount` is where the memory cgroups are mounted; `None` if there are none.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn new(
        program: Result<Sampler, ProbeError>,
        thread: &FileThread,
        mount: Option<PathBuf>,
        v1: bool,
        page_bytes: u64,
    ) -> io::Result<Self> {
        let Some(mount) = mount else { return Ok(Self::Nothing) };
        let files = Files::new(thread, mount, v1, page_bytes)?;
        let mut sampler = match program {
            Ok(sampler) => Box::new(sampler),
            Err(error) => return Ok(Self::Files(files, error.to_string())),
        };
        // A kernel can load it and refuse to run it.
        Ok(match sampler.begin().and_then(|()| sampler.step(|_| {})) {
            Ok(_) => Self::Program(sampler, files),
            Err(error) => Self::Files(files, error.to_string()),
        })
    }

    /// Becomes readable when a step that waited is done.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Program(_, files) | Self::Files(files, _) => Some(files.as_fd()),
            Self::Nothing => None,
        }
    }

    /// The run ends: no step waits any more.
    pub(super) fn ending(&mut self) {
        if let Self::Program(_, files) | Self::Files(files, _) = self {
            files.ending();
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

    pub(super) fn step(&mut self, tree: &CgroupTree, take: impl FnMut(&Sample)) -> Result<Step, WalkError> {
        match self {
            Self::Program(sampler, _) => sampler.step(take).map(Step::from),
            Self::Files(files, _) => Ok(files.step(tree, take)),
            Self::Nothing => Err(WalkError::NoCgroups),
        }
    }
}
