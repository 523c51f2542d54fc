//! Finds the programs of earlier runs. A run takes over its own programs; it replaces others, whose records
//! are still reported.

use oomtrace_common::layout::{ABSENT, KernelLayout};

use crate::{
    host::identity::UniqueId,
    kernel::btf::Btf,
    sources::probe::{
        Attached, Counts, Generation, MissedRuns, Options, PinDir, Probe, ProbeError, Rings, Sampler,
        Signals, attach, handover::Handover, object,
    },
};

/// The programs of this run, and those that they replace.
pub struct TakeOver {
    /// The programs, attached and pinned.
    pub probe: Probe,
    /// Whether an earlier run attached them.
    pub resumed: bool,
    /// Programs of earlier runs that these replace. They are detached already.
    pub replaced: Vec<Replaced>,
}

/// Replaced programs. Their records are still to be reported, and then they are removed.
pub struct Replaced {
    /// The pins.
    pub generation: Generation,
    /// Its rings; `None` if its records have another version, or are incomplete.
    pub probe: Option<Probe>,
    /// Kills whose records cannot be read.
    pub unreadable: u64,
}

impl Probe {
    /// As [`Probe::attach`], but the programs stay when this process ends. Takes over existing programs if
    /// possible.
    ///
    /// # Errors
    /// As [`Probe::attach`], and if nothing can be pinned.
    pub fn pinned(
        options: &Options,
        layout: &KernelLayout,
        btf: &Btf,
        dir: &PinDir,
    ) -> Result<TakeOver, ProbeError> {
        let layout = &options.applied_to(layout);
        let mine = dir.generation(options, layout);
        let mut others = dir.generations()?;
        let here = others.iter().position(|generation| *generation == mine).map(|at| others.remove(at));
        if let Some(probe) = here.as_ref().and_then(Self::reopened) {
            return Ok(TakeOver { probe, resumed: true, replaced: replace(others) });
        }
        if let Some(here) = here {
            others.extend(set_aside(here)?);
        }
        let attached = Self::attach_pinned(options, layout, btf, &mine);
        if attached.is_err() {
            // The reason is the error above. What cannot be removed now is removed by the next run.
            let _next_time = mine.remove();
        }
        Ok(TakeOver { probe: attached?, resumed: false, replaced: replace(others) })
    }

    fn attach_pinned(
        options: &Options,
        layout: &KernelLayout,
        btf: &Btf,
        pins: &Generation,
    ) -> Result<Self, ProbeError> {
        let mut ebpf = object::load(options, layout)?;
        pins.pin_maps(&ebpf)?;
        let v1 = layout.task_memcg_in_oom != ABSENT;
        let done = attach::Attach::new(&mut ebpf, btf, v1, Some(pins)).all(options.hook)?;
        let mut probe = Self::over(pins, done.hooks)?;
        probe.sampler = Some(done.sampler.and_then(|()| Sampler::of(&mut ebpf)));
        let stream = probe.counts.stream;
        if let Some(handover) = &mut probe.counts.handover {
            handover.complete(stream)?;
        }
        Ok(probe)
    }

    /// The programs of an earlier run, if they are complete.
    fn reopened(pins: &Generation) -> Option<Self> {
        let probe = Self::over(pins, attach::pinned(pins)?).ok()?;
        probe.is_complete().then_some(probe)
    }

    /// Whether every program was attached and pinned.
    fn is_complete(&self) -> bool {
        self.counts.handover.as_ref().is_some_and(Handover::is_complete)
    }

    fn over(pins: &Generation, hooks: Vec<crate::event::HookStatus>) -> Result<Self, ProbeError> {
        let maps = pins.open()?;
        Ok(Self {
            attached: Attached { _links: Vec::new(), hooks, log: None },
            rings: Rings {
                early: maps.early,
                kills: maps.kills,
                cgroups: maps.cgroups,
                signals: Signals::reopened(maps.signals, maps.signal_groups),
                missed_signals: pins.program(attach::SIGNALS).map(MissedRuns::of),
            },
            counts: Counts {
                stream: if maps.handover.is_complete() { maps.handover.stream() } else { UniqueId::new() },
                counters: maps.counters,
                handover: Some(maps.handover),
            },
            sampler: None,
        })
    }
}

/// Makes room for programs of the same name that cannot be taken over. An earlier run wanted to replace them:
/// it detached them, and ended before it had reported their records. These are still to be reported.
fn set_aside(here: Generation) -> Result<Option<Generation>, ProbeError> {
    let to_be_told = match Probe::over(&here, Vec::new()) {
        Ok(probe) => probe.is_complete(),
        Err(_) => count(&here) > 0,
    };
    if to_be_told {
        return Ok(Some(here.renamed()?));
    }
    // Its start was interrupted, so no run has reported a start with it.
    here.remove()?;
    Ok(None)
}

/// Detaches the replaced programs. After this only the new programs record.
fn replace(others: Vec<Generation>) -> Vec<Replaced> {
    others.into_iter().filter_map(replaced).collect()
}

fn replaced(generation: Generation) -> Option<Replaced> {
    let hooks = attach::pinned(&generation).unwrap_or_default();
    let whole = generation.is_readable().then(|| Probe::over(&generation, hooks).ok()).flatten();
    if whole.as_ref().is_some_and(|probe| !probe.is_complete()) && generation.remove().is_ok() {
        // Its start was interrupted. The programs that it wanted to replace stayed attached and have the
        // records.
        return None;
    }
    generation.detach();
    let unreadable = if whole.is_none() { count(&generation) } else { 0 };
    Some(Replaced { generation, probe: whole, unreadable })
}

/// How many records a ring holds.
fn count(generation: &Generation) -> u64 {
    let Ok(mut ring) = generation.ring("KILLS") else { return 0 };
    let mut count = 0;
    while ring.next().is_some() {
        count += 1;
    }
    count
}
