//! The kernel side as seen from user space: loads and attaches the eBPF programs, reads
//! their rings and counters. The only module that names aya.
//!
//! In: a [`KernelLayout`] and what the operator asked for. Out: raw records, counts, and how
//! each hook is attached. It does not look into a record.

mod attach;
pub mod bpffs;
mod error;
mod fentry;
mod fill;
mod kept;
mod lock;
mod log;
mod missed;
mod object;
mod pin;
mod ring;
mod takeover;

pub use attach::HookChoice;
pub use error::{PinError, ProbeError};
pub use fill::FillMeter;
pub use kept::Kept;
pub use missed::MissedRuns;
use pin::Handover;
pub use pin::{DEFAULT_DIR, Generation, PinDir};
pub use ring::Ring;
pub use takeover::{Replaced, TakeOver};

use aya::maps::{MapData, PerCpuArray};
use oomtrace_common::{
    layout::{ABSENT, COMMAND_LINE_FULL, COMMAND_LINE_PROGRAM, KernelLayout},
    pinned::Pinned,
};

use crate::{
    event::HookStatus,
    facts::Counters,
    host::{identity::UniqueId, process::CommandLineChoice},
    kernel::btf::Btf,
};

/// What to attach, and how large.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which kind of function hook.
    pub hook: HookChoice,
    /// Bytes of the ring of kills: a power of two, at least a page.
    pub kill_ring_bytes: u32,
    /// Bytes of the ring of cgroup changes: a power of two, at least a page.
    pub cgroup_ring_bytes: u32,
    /// How much of a victim's command line the programs copy.
    pub command_line: CommandLineChoice,
    /// Let the programs log each event.
    pub debug: bool,
}

impl Options {
    /// What the programs are told: of this kernel, and of what the operator wants.
    fn applied_to(&self, layout: &KernelLayout) -> KernelLayout {
        let command_line = match self.command_line {
            CommandLineChoice::Full => COMMAND_LINE_FULL,
            CommandLineChoice::Program => COMMAND_LINE_PROGRAM,
            CommandLineChoice::None => ABSENT,
        };
        KernelLayout { command_line, ..*layout }
    }
}

/// The attached programs. Dropped, they are gone, unless they are pinned.
pub struct Probe {
    attached: Attached,
    rings: Rings,
    counts: Counts,
}

/// What keeps the programs attached.
pub struct Attached {
    /// The links; none where they are pinned. The programs go with the last of them.
    _links: Vec<attach::Link>,
    hooks: Vec<HookStatus>,
    log: Option<aya_log::EbpfLogger<log::ToStderr>>,
}

/// What the programs record.
pub struct Rings {
    /// Kills.
    pub kills: Ring,
    /// Changes of cgroups.
    pub cgroups: Ring,
    /// How often the program that follows signals was left out, where that can be asked.
    pub missed_signals: Option<MissedRuns>,
}

/// What the programs count, and what is handed to the next run.
pub struct Counts {
    counters: PerCpuArray<MapData, u64>,
    handover: Option<Handover>,
    /// Names this set of programs.
    stream: UniqueId,
}

impl Probe {
    /// Loads and attaches. All memory that the kernel side will ever use is taken here.
    ///
    /// # Errors
    /// By the stage that failed, with the kernel's own reason.
    pub fn attach(options: &Options, layout: &KernelLayout, btf: &Btf) -> Result<Self, ProbeError> {
        let layout = &options.applied_to(layout);
        let mut ebpf = object::load(options, layout)?;
        let v1 = layout.task_memcg_in_oom != ABSENT;
        let (hooks, links) = attach::Attach::new(&mut ebpf, btf, v1, None).all(options.hook)?;
        let log = options.debug.then(|| log::open(&mut ebpf)).transpose()?;
        let rings = Rings {
            kills: Ring::take(&mut ebpf, "KILLS")?,
            cgroups: Ring::take(&mut ebpf, "CGROUPS")?,
            missed_signals: attach::missed_signals(&ebpf),
        };
        let counters = object::counters(&mut ebpf)?;
        let counts = Counts { counters, handover: None, stream: UniqueId::new() };
        // aya's object goes here: it keeps the instructions of every program.
        Ok(Self { attached: Attached { _links: links, hooks, log }, rings, counts })
    }

    /// Names this set of programs: where pins are taken over, as the run did that attached them.
    pub fn stream(&self) -> UniqueId {
        self.counts.stream
    }

    /// How each hook is attached.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.attached.hooks
    }

    /// Whether a function hook reads what only the killer's own state knows.
    pub fn is_hooked(&self) -> bool {
        self.attached.hooks.iter().any(|hook| hook.name == "oom_kill_process" && hook.attached != "none")
    }

    /// What the programs record, for one who looks by himself.
    pub fn rings(&mut self) -> &mut Rings {
        &mut self.rings
    }

    /// Its parts, each for its own user.
    pub fn into_parts(self) -> (Attached, Rings, Counts) {
        (self.attached, self.rings, self.counts)
    }
}

impl Attached {
    /// Writes what the programs have logged to standard error, if they were asked to log.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

impl Counts {
    /// Names the set of programs that count.
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

    /// What an earlier run handed over; `None` where nothing is pinned.
    pub fn handed_over(&self) -> Option<&Pinned> {
        self.handover.as_ref().map(Handover::value)
    }

    /// Changes what the next run will find, where there may be one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hand_over(&mut self, change: impl FnOnce(&mut Pinned)) -> Result<(), ProbeError> {
        self.handover.as_mut().map_or(Ok(()), |handover| handover.change(change))
    }
}
