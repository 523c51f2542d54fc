//! Waits for processes to end, with a descriptor for each: it becomes readable when the last thread is gone,
//! and its memory with it.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{
    enrich::enricher::LastVictim,
    event::{Reason, Why},
    host::{clock, identity, process, root::Root},
};

/// For so long no other process can have got a victim's pid: there are at least 300 others first.
const NOT_REUSED_NS: u64 = 20_000_000;
/// If it is looked for later than this and is gone, it is not known when it went.
const LOOKED_LATE_NS: u64 = 5_000_000_000;

/// A victim, and what is known of its end.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) tid: Option<u32>,
    pub(super) tgid: Option<u32>,
    pub(super) marked_ns: u64,
    pub(super) end: End,
}

/// The end of a process.
#[derive(Debug)]
pub(super) enum End {
    /// It is still there.
    Waits(OwnedFd),
    /// It was gone at this time, in ns since boot.
    Gone(u64),
    /// It cannot be known.
    Unknown(Why),
}

impl Victim {
    /// Starts to wait for a process.
    pub(super) fn watch(victim: &LastVictim, root: &Root) -> Self {
        let end = match watched(victim, root) {
            Ok(end) => end,
            Err(why) => End::Unknown(why),
        };
        Self { tid: victim.tid, tgid: victim.tgid, marked_ns: victim.marked.0, end }
    }

    /// A process that is not waited for.
    pub(super) fn unknown(victim: &LastVictim, why: impl Into<Why>) -> Self {
        Self { tid: victim.tid, tgid: victim.tgid, marked_ns: victim.marked.0, end: End::Unknown(why.into()) }
    }

    /// Whether it is this thread, or a thread of this process.
    pub(super) fn is(&self, id: u32) -> bool {
        self.tid == Some(id) || self.tgid == Some(id)
    }
}

impl Victim {
    /// Whether it is waited for, and still there now.
    pub(super) fn is_there(&self) -> bool {
        let End::Waits(descriptor) = &self.end else { return false };
        let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
    }
}

fn watched(victim: &LastVictim, root: &Root) -> Result<End, Why> {
    let pid = victim
        .tgid
        .and_then(|tgid| Pid::from_raw(i32::try_from(tgid).ok()?))
        .ok_or(Reason::NotReadInKernel)?;
    let late = || clock::boot_time().0.saturating_sub(victim.marked.0);
    let gone = || match late() {
        late if late > LOOKED_LATE_NS => Err(Reason::ProcessGone.into()),
        _ => Ok(End::Gone(clock::boot_time().0)),
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        // A process that is just being reaped still has its pid, but no task is its leader any more.
        Err(Errno::SRCH | Errno::INVAL) => return gone(),
        Err(errno) => return Err(Why::with(Reason::ProcUnreadable, format!("pidfd_open: {errno}"))),
    };
    if late() < NOT_REUSED_NS {
        return Ok(End::Waits(descriptor));
    }
    let tick_ns = 1_000_000_000 / identity::ticks_per_second().max(1);
    let started = victim.start.ok_or(Reason::StartTimeUnknown)?.0 / tick_ns;
    match process::started_ticks(root, victim.tgid.unwrap_or_default()) {
        Some(now) if now == started => Ok(End::Waits(descriptor)),
        // Another process has its pid, or none.
        _ => gone(),
    }
}
