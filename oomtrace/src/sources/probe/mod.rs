//! The kernel side from user space: loads and attaches the eBPF programs, and reads their rings and counters.
//! Only this module uses aya.
//!
//! It takes a [`KernelLayout`] and the operator's options. It returns raw records, counters, and how each
//! hook is attached. It does not parse records.

mod attach;
pub mod bpffs;
mod early;
mod error;
mod fentry;
mod fill;
mod functions;
mod handover;
#[cfg(test)]
mod handshake;
mod kept;
mod load;
mod lock;
mod log;
mod missed;
mod object;
mod pages;
mod pin;
mod ring;
mod sampler;
mod signals;
mod takeover;
mod test_run;

use attach::Done;
pub use attach::HookChoice;
pub use early::Early;
pub use error::{PinError, ProbeError};
pub use fill::FillMeter;
use handover::Handover;
pub use kept::{COUNTERS, KILLS, Kept, TRACKS};
pub use missed::MissedRuns;
pub use pin::{DEFAULT_DIR, Generation, PinDir};
pub use ring::Ring;
pub use sampler::{ATTEMPTS as WALK_ATTEMPTS, PROGRAM as SAMPLER, Sampler, WalkError, WalkStep};
pub use signals::{SignalGroups, Signals};
pub use takeover::{Replaced, TakeOver};

use aya::maps::{MapData, PerCpuArray};
use oomtrace_common::{
    layout::{
        ABSENT, COMMAND_LINE_FULL, COMMAND_LINE_PROGRAM, FOLLOW_ALL, FOLLOW_FROM_OUTSIDE, KernelLayout,
    },
    pinned::Pinned,
};

use crate::{
    event::HookStatus,
    facts::Counters,
    host::{identity::UniqueId, process::CommandLineChoice},
    kernel::btf::Btf,
    sources::signal_kills::SignalChoice,
};

/// What to attach, and the sizes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which kind of function hook.
    pub hook: HookChoice,
    /// Bytes of the ring of kills: a power of two, at least a page.
    pub kill_ring_bytes: u32,
    /// Bytes of the ring of cgroup changes: a power of two, at least a page.
    pub cgroup_ring_bytes: u32,
    /// Which signals that end processes the programs report.
    pub signals: SignalChoice,
    /// How much of a victim's command line the programs copy.
    pub command_line: CommandLineChoice,
    /// Let the programs log each event.
    pub debug: bool,
}

impl Options {
    /// For a program that is attached to nothing: the other maps of the object are not used, and are gone when it is loaded.
    fn smallest() -> Self {
        Self {
            hook: HookChoice::None,
            kill_ring_bytes: 64 << 10,
            cgroup_ring_bytes: 64 << 10,
            signals: SignalChoice::Off,
            command_line: CommandLineChoice::None,
            debug: false,
        }
    }

    /// The settings of the programs: the kernel's layout, with the operator's choices.
    fn applied_to(&self, layout: &KernelLayout) -> KernelLayout {
        let command_line = match self.command_line {
            CommandLineChoice::Full => COMMAND_LINE_FULL,
            CommandLineChoice::Program => COMMAND_LINE_PROGRAM,
            CommandLineChoice::None => ABSENT,
        };
        let follow_kills = match self.signals {
            SignalChoice::Auto => FOLLOW_FROM_OUTSIDE,
            SignalChoice::All => FOLLOW_ALL,
            SignalChoice::Off => ABSENT,
        };
        KernelLayout { command_line, follow_kills, ..*layout }
    }
}

/// The attached programs. A drop detaches them, unless they are pinned.
pub struct Probe {
    attached: Attached,
    rings: Rings,
    counts: Counts,
    /// `None` if an earlier run attached the programs.
    sampler: Option<Result<Sampler, ProbeError>>,
}

/// Keeps the programs attached.
pub struct Attached {
    /// The links; none if they are pinned. The programs are detached with the last of them.
    _links: Vec<attach::Link>,
    hooks: Vec<HookStatus>,
    log: Option<aya_log::EbpfLogger<log::ToStderr>>,
}

/// The rings of the programs.
pub struct Rings {
    /// Kills.
    pub kills: Ring,
    /// Changes of cgroups.
    pub cgroups: Ring,
    /// Signals that end processes.
    pub signals: Signals,
    /// How often the program that follows signals was skipped, if the kernel says so.
    pub missed_signals: Option<MissedRuns>,
    /// Wakes this process before there is a kill; `None` for programs of an older build.
    pub early: Option<Early>,
}

/// The programs' counters, and the state for the next run.
pub struct Counts {
    counters: PerCpuArray<MapData, u64>,
    handover: Option<Handover>,
    /// Identifies this set of programs.
    stream: UniqueId,
}

impl Probe {
    /// Loads and attaches the programs. All memory of the kernel side is allocated here.
    ///
    /// # Errors
    /// By the stage that failed, with the kernel's reason.
    pub fn attach(options: &Options, layout: &KernelLayout, btf: &Btf) -> Result<Self, ProbeError> {
        let layout = &options.applied_to(layout);
        let mut ebpf = object::load(options, layout)?;
        let v1 = layout.task_memcg_in_oom != ABSENT;
        let Done { hooks, links, sampler } =
            attach::Attach::new(&mut ebpf, btf, v1, None).all(options.hook)?;
        let sampler = Some(sampler.and_then(|()| Sampler::of(&mut ebpf)));
        let log = options.debug.then(|| log::open(&mut ebpf)).transpose()?;
        let kills = Ring::take(&mut ebpf, "KILLS")?;
        let rings = Rings {
            early: Some(Early::take(&mut ebpf, &kills)?),
            kills,
            cgroups: Ring::take(&mut ebpf, "CGROUPS")?,
            signals: Signals::take(&mut ebpf)?,
            missed_signals: attach::missed_signals(&ebpf),
        };
        let counters = object::counters(&mut ebpf)?;
        let counts = Counts { counters, handover: None, stream: UniqueId::new() };
        // aya's object is dropped here: it holds the instructions of every program.
        Ok(Self { attached: Attached { _links: links, hooks, log }, rings, counts, sampler })
    }

    /// Identifies this set of programs. For taken-over programs, the id is that of the run that attached
    /// them.
    pub fn stream(&self) -> UniqueId {
        self.counts.stream
    }

    /// How each hook is attached.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.attached.hooks
    }

    /// Whether a function hook reads the OOM killer's own state.
    pub fn is_hooked(&self) -> bool {
        self.attached.hooks.iter().any(|hook| hook.name == "oom_kill_process" && hook.attached != "none")
    }

    /// What reads all memory cgroups: loaded with the other programs, or now, if an earlier run attached these.
    ///
    /// # Errors
    /// With the kernel's reason, if it refuses the program.
    pub fn sampler(&mut self, layout: &KernelLayout) -> Result<Sampler, ProbeError> {
        self.sampler.take().unwrap_or_else(|| Sampler::load(layout))
    }

    /// The rings of the programs, to be read by the caller.
    pub fn rings(&mut self) -> &mut Rings {
        &mut self.rings
    }

    /// The parts, each for its own user.
    pub fn into_parts(self) -> (Attached, Rings, Counts) {
        (self.attached, self.rings, self.counts)
    }
}

impl Attached {
    /// Prints what the programs have logged to standard error, if they were loaded with a log.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

impl Counts {
    /// Identifies the set of programs that count.
    pub fn stream(&self) -> UniqueId {
        self.stream
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn read(&self) -> Result<Counters, ProbeError> {
        let mut sums = Counters::default();
        for (index, sum) in (0..).zip(sums.0.iter_mut()) {
            let values =
                self.counters.get(&index, 0).map_err(|error| ProbeError::Counters(error.to_string()))?;
            *sum = values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
        }
        Ok(sums)
    }

    /// What an earlier run handed over; `None` if nothing is pinned.
    pub fn handed_over(&self) -> Option<&Pinned> {
        self.handover.as_ref().map(Handover::value)
    }

    /// Changes the state for the next run, if the programs are pinned.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hand_over(&mut self, change: impl FnOnce(&mut Pinned)) -> Result<(), ProbeError> {
        self.handover.as_mut().map_or(Ok(()), |handover| handover.change(change))
    }
}
