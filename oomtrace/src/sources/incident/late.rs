//! Victims that are still there when their run is complete: told at once, and once more a minute after the last kill.

use std::time::{Duration, Instant};

use super::{
    Log,
    evidence::reaper,
    threads::{self, Threads},
    victims::{End, Victim},
};
use crate::{
    event::{Reaper, Reason, Why},
    host::{clock, root::Root},
};

/// When they are told again, after the last kill of the run.
const AGAIN: Duration = Duration::from_secs(60);
/// The most processes that are watched for that: each has a descriptor. The oldest are given up first.
pub(super) const WATCHED_MAX: usize = 64;

/// What was found out about victims that are still there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) after_ns: u64,
    pub(super) still_there: u64,
    pub(super) pid: Option<u32>,
    pub(super) threads: Result<Threads, Why>,
    pub(super) reaper: Result<Reaper, Why>,
    /// It is told for the second time.
    pub(super) again: bool,
}

/// Victims of one run that are still there.
#[derive(Debug)]
pub(super) struct Late<T> {
    /// What the line says of the run.
    pub(super) run: T,
    pub(super) victims: Vec<Victim>,
    /// When the last victim of the run came.
    last: Instant,
    lost_before: u64,
    again: bool,
}

impl<T> Late<T> {
    /// Those of these victims that are still there; `None` if there are none.
    pub(super) fn of(run: T, victims: Vec<Victim>, last: Instant, lost_before: u64) -> Option<Self> {
        let victims: Vec<Victim> =
            victims.into_iter().filter(|victim| matches!(victim.end, End::Waits(_))).collect();
        (!victims.is_empty()).then_some(Self { run, victims, last, lost_before, again: false })
    }

    /// How long until they are told again.
    pub(super) fn due(&self) -> Duration {
        AGAIN.saturating_sub(self.last.elapsed())
    }

    /// Drops those that are gone, by their place. Returns whether any is left.
    pub(super) fn see(&mut self, mut is_gone: impl FnMut() -> bool) -> bool {
        self.victims.retain(|_| !is_gone());
        !self.victims.is_empty()
    }

    /// Looks at them.
    pub(super) fn look(&mut self, root: &Root, log: &Log) -> Option<Found> {
        let first = self.victims.iter().map(|victim| victim.marked_ns).min()?;
        let pid = self.victims.first().and_then(|victim| victim.tgid);
        let threads =
            pid.ok_or_else(|| Reason::NotReadInKernel.into()).and_then(|pid| threads::read(root, pid));
        // As long as it is there, no other process has its pid.
        let is_there = self.victims.first().is_some_and(Victim::is_there);
        let found = Found {
            after_ns: clock::boot_time().0.saturating_sub(first),
            still_there: u64::try_from(self.victims.len()).unwrap_or(u64::MAX),
            pid,
            threads: if is_there { threads } else { Err(Reason::ProcessGone.into()) },
            reaper: reaper(&self.victims, log, self.lost_before),
            again: self.again,
        };
        self.again = true;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn victim(end: End) -> Victim {
        let own = u32::try_from(getpid().as_raw_pid()).unwrap();
        Victim { tid: Some(own), tgid: Some(own), marked_ns: 1, end }
    }

    fn waits() -> End {
        End::Waits(pidfd_open(getpid(), PidfdFlags::empty()).unwrap())
    }

    #[test]
    fn those_that_are_still_there_are_told_twice() {
        let log: Log = Err("none".to_owned());
        let victims = vec![victim(End::Gone(2)), victim(waits()), victim(waits())];
        let now = Instant::now();
        let mut late = Late::of((), victims, now, 0).unwrap();
        assert!(late.due() > AGAIN / 2);
        let found = late.look(&Root::host(), &log).unwrap();
        assert_eq!((found.still_there, found.again, found.pid), (2, false, Some(std::process::id())));
        assert!(found.threads.unwrap().count >= 1 && found.reaper.is_err() && found.after_ns > 0);
        let mut first = true;
        assert!(late.see(|| std::mem::take(&mut first)));
        let found = late.look(&Root::host(), &log).unwrap();
        assert_eq!((found.still_there, found.again), (1, true));
        assert!(!late.see(|| true) && late.look(&Root::host(), &log).is_none());
        late.last = now.checked_sub(AGAIN).unwrap_or(now);
        assert!(late.due().is_zero());
        assert!(Late::of((), vec![victim(End::Gone(2))], now, 0).is_none());
    }
}
