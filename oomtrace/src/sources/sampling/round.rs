//! One walk over the memory cgroups, turn by turn.

use oomtrace_common::record::sample::{STEPS, Sample};

use crate::{
    cgroups::tree::CgroupTree,
    facts::BootTime,
    host::clock,
    sources::{
        probe::{WALK_ATTEMPTS, WalkError},
        sampling::{Reader, SampleEvidence, reader::Step},
    },
};

/// The most bytes of a walk's samples. They stay allocated for the next walk.
const BYTES_MAX: usize = 4 << 20;
/// The most cgroups of a walk.
pub const SAMPLES_MAX: usize = BYTES_MAX / size_of::<Sample>();
/// Room for cgroups that are made until the next walk.
const ROOM: usize = 256;

/// A walk that is not complete, or none.
#[derive(Default)]
pub struct Round {
    samples: Vec<Sample>,
    /// Since when; `None` if it is to begin.
    began: Option<BootTime>,
    attempts: u32,
    /// Steps of this attempt.
    steps: usize,
}

/// What a turn came to.
pub enum Turn<'a> {
    /// There are more.
    GoesOn,
    /// There will be more when the reader's descriptor is readable.
    Waits,
    /// The walk is complete.
    Done(Found<'a>),
    /// It did not get to its end.
    Failed(WalkError),
}

/// All that a walk has found.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The cgroups.
    pub samples: &'a [Sample],
    /// Where they come from.
    pub evidence: SampleEvidence,
    /// No sample is older than this.
    pub began: BootTime,
    /// No sample is newer than this.
    pub ended: BootTime,
}

impl Round {
    /// One turn, which begins a walk if none runs. If the kernel refuses the program, the files are read from then on.
    pub fn turn(&mut self, reader: &mut Reader, tree: &CgroupTree) -> Turn<'_> {
        match self.step(reader, tree) {
            Ok(Step::GoesOn) => Turn::GoesOn,
            Ok(Step::Waits) => Turn::Waits,
            Ok(Step::Lost) if self.attempts < WALK_ATTEMPTS => {
                self.began = None;
                Turn::GoesOn
            }
            Ok(Step::Lost) => self.failed(WalkError::Changed),
            Ok(Step::Done) => self.done(reader.evidence()),
            Err(WalkError::Run(_)) if reader.turn_to_files() => {
                self.began = None;
                Turn::GoesOn
            }
            Err(error) => self.failed(error),
        }
    }

    fn step(&mut self, reader: &mut Reader, tree: &CgroupTree) -> Result<Step, WalkError> {
        if self.began.is_none() {
            self.samples.clear();
            self.steps = 0;
            self.attempts += 1;
            self.began = Some(clock::boot_time());
            reader.begin()?;
        }
        let samples = &mut self.samples;
        let mut is_full = false;
        let step = reader.step(tree, |sample| {
            is_full |= samples.len() >= SAMPLES_MAX;
            if !is_full {
                make_room(samples, 1);
                samples.push(*sample);
            }
        })?;
        self.steps += usize::from(step != Step::Waits);
        // Each cgroup is passed twice at most: on the way down and on the way up.
        if is_full || self.steps > 2 * SAMPLES_MAX / STEPS.min(Reader::FILES_STEP) + 1 {
            return Err(WalkError::TooMany(SAMPLES_MAX));
        }
        Ok(step)
    }

    fn done(&mut self, evidence: SampleEvidence) -> Turn<'_> {
        self.attempts = 0;
        let ended = clock::boot_time();
        let began = self.began.take().unwrap_or(ended);
        make_room(&mut self.samples, ROOM);
        Turn::Done(Found { samples: &self.samples, evidence, began, ended })
    }

    fn failed(&mut self, error: WalkError) -> Turn<'_> {
        self.attempts = 0;
        self.began = None;
        self.samples.clear();
        Turn::Failed(error)
    }
}

/// Makes room for `more` samples, and for half as many as there are. Never for more than the most.
pub(super) fn make_room(samples: &mut Vec<Sample>, more: usize) {
    if samples.capacity() - samples.len() < more {
        let wanted = (samples.len() + more).max(samples.len() * 3 / 2).clamp(ROOM, SAMPLES_MAX);
        samples.reserve_exact(wanted.saturating_sub(samples.len()));
    }
}
