//! The kernel side as seen from user space: loads and attaches the eBPF programs, reads
//! their rings and counters. The only module that names aya.
//!
//! In: a [`KernelLayout`] and what the operator asked for. Out: raw records, counts, and how
//! each hook is attached. It does not look into a record.

mod attach;
mod bpffs;
mod error;
mod fentry;
mod lock;
mod log;
mod object;
mod pin;
mod ring;
mod takeover;

pub use attach::HookChoice;
pub use error::{PinError, ProbeError};
pub use pin::{DEFAULT_DIR, Generation, Kept, PinDir, set};
pub use ring::Ring;
pub use takeover::{Left, TakeOver};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, ring_buf::RingBufItem},
};
use oomtrace_common::layout::{ABSENT, KernelLayout};

use crate::{accounting::losses::Counters, event::HookStatus, kernel::btf::Btf};

/// What to attach, and how large.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which kind of function hook.
    pub hook: HookChoice,
    /// Bytes of the ring of kills: a power of two, at least a page.
    pub kill_ring_bytes: u32,
    /// Bytes of the ring of cgroup changes: a power of two, at least a page.
    pub cgroup_ring_bytes: u32,
    /// Let the programs log each event.
    pub debug: bool,
}

/// The attached programs. Dropped, they are gone, unless they are pinned.
pub struct Probe {
    /// Holds the programs and their links; `None` where an earlier run attached them.
    _ebpf: Option<Ebpf>,
    kills: Ring,
    cgroups: Ring,
    counters: PerCpuArray<MapData, u64>,
    hooks: Vec<HookStatus>,
    log: Option<aya_log::EbpfLogger<log::ToStderr>>,
    /// What the next run will know, where there may be one.
    kept: Option<Kept>,
}

impl Probe {
    /// Loads and attaches. All memory that the kernel side will ever use is taken here.
    ///
    /// # Errors
    /// By the stage that failed, with the kernel's own reason.
    pub fn attach(options: &Options, layout: &KernelLayout, btf: &Btf) -> Result<Self, ProbeError> {
        let mut ebpf = object::load(options, layout)?;
        let v1 = layout.task_memcg_in_oom != ABSENT;
        let hooks = attach::Attach { ebpf: &mut ebpf, btf, v1, pins: None }.all(options.hook)?;
        Ok(Self {
            log: options.debug.then(|| log::open(&mut ebpf)).transpose()?,
            kills: Ring::take(&mut ebpf, "KILLS")?,
            cgroups: Ring::take(&mut ebpf, "CGROUPS")?,
            counters: object::counters(&mut ebpf)?,
            _ebpf: Some(ebpf),
            hooks,
            kept: None,
        })
    }

    /// How each hook is attached.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    /// What is kept for the next run; `None` where nothing is pinned.
    pub fn kept(&mut self) -> Option<&mut Kept> {
        self.kept.as_mut()
    }

    /// The oldest kill, and what is to be kept once it is told.
    pub fn next_kill(&mut self) -> Option<(RingBufItem<'_>, Option<&mut Kept>)> {
        Some((self.kills.next()?, self.kept.as_mut()))
    }

    /// Whether a function hook reads what only the killer's own state knows.
    pub fn is_hooked(&self) -> bool {
        self.hooks.iter().any(|hook| hook.name == "oom_kill_process" && hook.attached != "none")
    }

    /// The ring of kills.
    pub fn kills(&mut self) -> &mut Ring {
        &mut self.kills
    }

    /// The ring of cgroup changes.
    pub fn cgroups(&mut self) -> &mut Ring {
        &mut self.cgroups
    }

    /// Both rings, to wait for either.
    pub fn rings(&self) -> (&Ring, &Ring) {
        (&self.kills, &self.cgroups)
    }

    /// Writes what the programs have logged to standard error, if they were asked to log.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<Counters, ProbeError> {
        let mut sums = Counters::default();
        for (index, sum) in (0..).zip(sums.0.iter_mut()) {
            let values =
                self.counters.get(&index, 0).map_err(|error| ProbeError::Counters(error.to_string()))?;
            *sum = values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value));
        }
        Ok(sums)
    }
}
