//! The early wakeup: this process is awake before the record of a kill is there, and the kernel does not wake it a second time.
//! [`oomtrace_common::early`] says why no record is left lying.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use oomtrace_common::early::Wakeup;
use rustix::mm::ProtFlags;
use zerocopy::FromBytes;

use crate::{
    facts::BootTime,
    sources::probe::{ProbeError, Ring, pages::Pages, ring::Look},
};

/// The early wakeups of a ring of kills. Readable when there is one.
pub struct Early {
    wakeups: Ring,
    watch: Pages,
    kills: Look,
}

impl Early {
    pub(super) fn take(ebpf: &mut Ebpf, kills: &Ring) -> Result<Self, ProbeError> {
        let Some(Map::Array(watch)) = ebpf.take_map("WATCH") else {
            return Err(ProbeError::Ring { name: "WATCH", reason: "no such map".into(), os: None });
        };
        Self::of(Ring::take(ebpf, "WAKEUPS")?, &watch, kills)
    }

    /// From the programs' maps. Until [`Self::watch`] is called, the programs know that this process may sleep: an earlier one
    /// may have been killed while it was awake.
    pub(super) fn of(wakeups: Ring, watch: &MapData, kills: &Ring) -> Result<Self, ProbeError> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let watch =
            Pages::map(watch.fd().as_fd(), 0, rustix::param::page_size(), access).map_err(|errno| {
                ProbeError::Ring { name: "WATCH", reason: errno.to_string(), os: Some(errno.raw_os_error()) }
            })?;
        let early = Self { wakeups, watch, kills: kills.look() };
        early.may_sleep();
        early.not_before(BootTime(0));
        Ok(early)
    }

    /// Takes the wakeups that are there, and returns the latest. After there was one, the ring of kills must be looked at.
    pub fn taken(&mut self) -> Option<Wakeup> {
        let mut latest = None::<Wakeup>;
        while let Some(record) = self.wakeups.next() {
            let wakeup = Wakeup::read_from_bytes(&record).unwrap_or(Wakeup { entered_ns: 0, cpu: 0 });
            if latest.is_none_or(|latest| latest.entered_ns <= wakeup.entered_ns) {
                latest = Some(wakeup);
            }
        }
        latest
    }

    /// Looks at the ring of kills until there is something, or it is over. In this time no kill wakes this process. After it,
    /// the ring of kills must be looked at.
    pub fn watch(&self, mut is_over: impl FnMut() -> bool) {
        let [awake, _] = self.numbers();
        awake.store(1, Ordering::SeqCst);
        while !self.kills.finds_any() && !is_over() {
            std::hint::spin_loop();
        }
        self.may_sleep();
    }

    /// Wants no early wakeup before this time. It never shortens a pause that the program set: in a time namespace this process's
    /// clock may be behind the kernel's.
    pub fn not_before(&self, time: BootTime) {
        let [_, not_before] = self.numbers();
        not_before.fetch_max(time.0, Ordering::Relaxed);
    }

    /// From now on each kill wakes this process.
    fn may_sleep(&self) {
        let [awake, _] = self.numbers();
        awake.store(0, Ordering::SeqCst);
        // Must come before the ring is looked at: either its record is seen, or its program sees the word, and wakes this
        // process.
        fence(Ordering::SeqCst);
    }

    fn numbers(&self) -> &[AtomicU64; 2] {
        self.watch.two_numbers()
    }
}

impl AsFd for Early {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeups.as_fd()
    }
}
