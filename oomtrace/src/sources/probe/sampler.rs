//! Walks over the tree of all memory cgroups with a program that is attached to nothing: it runs when it is told to
//! (`BPF_PROG_TEST_RUN`), a bounded number of cgroups a call. It reads no file and allocates nothing in the kernel.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, MapData},
    programs::RawTracePoint,
};
use oomtrace_common::{
    layout::KernelLayout,
    record::sample::{Sample, WALK_DONE, WALK_GOES_ON, Walked},
};
use zerocopy::FromZeros;

use crate::sources::probe::{
    Options, ProbeError, attach, error::chain, load::load_error, object, test_run::test_run,
};

/// The program, and the map with its state.
pub const PROGRAM: &str = "sample_cgroups";
const MAP: &str = "WALKED";

/// How often a walk starts again, if the cgroup at which it stopped is freed before it goes on.
pub const ATTEMPTS: u32 = 3;

/// How often the program runs in one step. One run walks few edges, because the verifier follows each of them: 64 take it 26 ms.
const CALLS: usize = 4;

/// What a step of a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkStep {
    /// There are more.
    GoesOn,
    /// All were found.
    Done,
    /// The cgroup at which it stopped was freed meanwhile: it must begin again.
    Lost,
}

/// A walk that did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The kernel refuses to run the program.
    #[error("the kernel refuses to run the program that reads memory cgroups")]
    Run(#[source] io::Error),
    /// The kernel refuses the map.
    #[error("the map of the program that reads memory cgroups: {0}")]
    Map(String),
    /// Cgroups were freed faster than they were read.
    #[error("the memory cgroups changed while they were read, {ATTEMPTS} times")]
    Changed,
    /// There are none.
    #[error("no memory cgroups")]
    NoCgroups,
    /// There are more than the caller has room for.
    #[error("there are more than {0} memory cgroups")]
    TooMany(usize),
}

/// The state of a walk.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Walked);

// SAFETY: integers without padding, of which every bit pattern is valid: `oomtrace_common` asserts both.
unsafe impl Pod for Value {}

/// Walks over the memory cgroups.
pub struct Sampler {
    program: OwnedFd,
    walked: Array<MapData, Value>,
}

impl Sampler {
    /// Loads the program. No other program of oomtrace is loaded or touched.
    ///
    /// # Errors
    /// With the kernel's reason, if it refuses the program.
    pub fn load(layout: &KernelLayout) -> Result<Self, ProbeError> {
        let mut ebpf = object::load(&Options::smallest(), layout)?;
        let program: &mut RawTracePoint = attach::program(&mut ebpf, PROGRAM)?;
        program.load().map_err(|error| load_error(PROGRAM, &error))?;
        Self::of(&mut ebpf)
    }

    /// The loaded program of an object.
    ///
    /// # Errors
    /// If it is not loaded.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        let map = ebpf.take_map(MAP).ok_or_else(|| ProbeError::Counters(format!("no map {MAP}")))?;
        let walked = Array::try_from(map).map_err(|error| ProbeError::Counters(chain(&error).0))?;
        let program: &mut RawTracePoint = attach::program(ebpf, PROGRAM)?;
        let fd = program.fd().map_err(|error| load_error(PROGRAM, &error))?;
        let program =
            fd.as_fd().try_clone_to_owned().map_err(|error| ProbeError::Counters(error.to_string()))?;
        Ok(Self { program, walked })
    }

    /// Begins a walk. [`Self::step`] goes on with it, and passes each cgroup before those below it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn begin(&mut self) -> Result<(), WalkError> {
        self.walked.set(0, Value(Walked::new_zeroed()), 0).map_err(|error| WalkError::Map(chain(&error).0))
    }

    /// Walks 64 edges of the tree and passes the cgroups that it found to `take`. This takes about 20 µs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn step(&mut self, mut take: impl FnMut(&Sample)) -> Result<WalkStep, WalkError> {
        for _ in 0..CALLS {
            match self.call(&mut take)? {
                WalkStep::GoesOn => {}
                end => return Ok(end),
            }
        }
        Ok(WalkStep::GoesOn)
    }

    fn call(&mut self, take: &mut impl FnMut(&Sample)) -> Result<WalkStep, WalkError> {
        test_run(self.program.as_fd(), &[]).map_err(WalkError::Run)?;
        let Value(walked) = self.walked.get(&0, 0).map_err(|error| WalkError::Map(chain(&error).0))?;
        if !matches!(walked.cursor.state, WALK_GOES_ON | WALK_DONE) {
            return Ok(WalkStep::Lost);
        }
        let count = usize::try_from(walked.cursor.count).unwrap_or(0);
        walked.samples.get(..count).unwrap_or_default().iter().for_each(take);
        Ok(if walked.cursor.state == WALK_DONE { WalkStep::Done } else { WalkStep::GoesOn })
    }
}
