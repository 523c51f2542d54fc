//! Answers what the calendar clock was at the time of an event: takes a time of `CLOCK_BOOTTIME`, returns the
//! offset of `CLOCK_REALTIME` at that time.
//!
//! A line may be written hours after its event, and the clock may be set in between. The offset between the
//! two clocks changes only when the clock is set, not when its speed is adjusted. So if two samples agree,
//! the clock was not set between them. If they differ, it was set between them, at an unknown time.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use oomtrace_common::pinned::{self, Pinned};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::{
    facts::BootTime,
    host::clock::{self, ClockOffset},
};

/// A smaller change cannot be distinguished from the error of a sample.
const STEP_NS: u128 = 1_000_000;

/// Steps that are kept. For events before the oldest one the offset is not known.
const STEPS_MAX: usize = 16;

/// The clock was set once, after `after` and before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    after: BootTime,
    until: BootTime,
    before: ClockOffset,
}

/// The offset of the clock now, and before each step.
#[derive(Debug)]
pub struct Calendar {
    now: ClockOffset,
    looked: BootTime,
    steps: VecDeque<Step>,
    forgotten: bool,
    /// The clock of a replay: it is never sampled.
    fixed: bool,
}

impl Calendar {
    /// Starts now. It is not known whether the clock was set before.
    pub fn new() -> Self {
        Self::at(ClockOffset::sample(), clock::boot_time())
    }

    /// A clock that is never set.
    pub fn fixed(offset: ClockOffset) -> Self {
        Self { fixed: true, ..Self::at(offset, BootTime(0)) }
    }

    fn at(now: ClockOffset, looked: BootTime) -> Self {
        Self { now, looked, steps: VecDeque::new(), forgotten: false, fixed: false }
    }

    /// Continues an earlier run, if that left its state.
    pub fn resume(&mut self, kept: &Pinned) {
        let at = |index: usize| kept.get(index).copied().unwrap_or(0);
        if at(pinned::CLOCK_LOOKED) != 0 && !self.fixed {
            let offset = ClockOffset::from_ns(at(pinned::CLOCK_OFFSET).cast_signed().into());
            *self = Self::at(offset, BootTime(at(pinned::CLOCK_LOOKED)));
            self.look();
        }
    }

    /// Writes what the next run needs.
    pub fn keep(&self, kept: &mut Pinned) {
        // An offset that 64 bits cannot hold is not kept.
        let Ok(offset) = i64::try_from(self.now.ns()) else { return };
        for (index, value) in
            [(pinned::CLOCK_OFFSET, offset.cast_unsigned()), (pinned::CLOCK_LOOKED, self.looked.0)]
        {
            if let Some(entry) = kept.get_mut(index) {
                *entry = value;
            }
        }
    }

    /// Samples the clocks. More frequent samples tell more exactly when the clock was set.
    pub fn look(&mut self) {
        if !self.fixed {
            let before = clock::boot_time();
            let offset = ClockOffset::sample();
            self.looked_at(offset, before, clock::boot_time());
        }
    }

    /// Takes in a sample that lasted from `began` to `ended`. A step in that time may be before or after the
    /// clock was read.
    fn looked_at(&mut self, offset: ClockOffset, began: BootTime, ended: BootTime) {
        if offset.ns().abs_diff(self.now.ns()) >= STEP_NS {
            if self.steps.len() >= STEPS_MAX {
                self.steps.pop_front();
                self.forgotten = true;
            }
            self.steps.push_back(Step { after: self.looked, until: ended, before: self.now });
        }
        self.now = offset;
        self.looked = began;
    }

    /// The offset of the last sample.
    pub fn now(&self) -> ClockOffset {
        self.now
    }

    /// The offset at `time`, and whether it is certain. It is not if the clock was set at about that time.
    pub fn when(&self, time: BootTime) -> (ClockOffset, bool) {
        let mut offset = self.now;
        for step in self.steps.iter().rev() {
            if time > step.until {
                return (offset, true);
            }
            if time > step.after {
                return (offset, false);
            }
            offset = step.before;
        }
        (offset, !self.forgotten)
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Self::new()
    }
}

/// Becomes readable when the clock is set.
#[derive(Debug)]
pub struct ClockSet(OwnedFd);

impl ClockSet {
    /// Starts to watch the clock.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = Self(timerfd_create(TimerfdClockId::Realtime, flags)?);
        timer.arm()?;
        Ok(timer)
    }

    /// Takes in that the clock was set, and continues to watch.
    pub fn heard(&self) {
        // The read fails as cancelled or as empty. Both are fine.
        let _cancelled = rustix::io::read(&self.0, &mut [0; 8]);
        // If this fails, the next event finds the step.
        let _ignored = self.arm();
    }

    fn arm(&self) -> io::Result<()> {
        // The timer ends only when the clock is set.
        let never = Timespec { tv_sec: clock::FAR_FUTURE, tv_nsec: 0 };
        let when = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &when)?;
        Ok(())
    }
}

impl AsFd for ClockSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i128 = 3_600_000_000_000;

    fn offset(hours: i128) -> ClockOffset {
        ClockOffset::from_ns(1_700_000_000_000_000_000 + hours * HOUR)
    }

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    fn look(calendar: &mut Calendar, offset: ClockOffset, seconds: u64) {
        calendar.looked_at(offset, at(seconds), at(seconds));
    }

    /// Sampled at 10 s, 20 s and 30 s. The clock was set by an hour between the last two.
    fn set_once() -> Calendar {
        let mut calendar = Calendar::at(offset(0), at(10));
        look(&mut calendar, offset(0), 20);
        look(&mut calendar, offset(1), 30);
        calendar
    }

    #[test]
    fn an_event_is_under_the_clock_of_its_time() {
        let calendar = set_once();
        assert_eq!(calendar.when(at(5)), (offset(0), true));
        assert_eq!(calendar.when(at(20)), (offset(0), true));
        assert_eq!(calendar.when(at(31)), (offset(1), true));
        assert_eq!(calendar.now(), offset(1));
    }

    #[test]
    fn between_two_looks_it_is_not_known_which() {
        assert_eq!(set_once().when(at(25)), (offset(1), false));
    }

    #[test]
    fn looks_that_agree_have_no_step_between() {
        let mut calendar = Calendar::at(offset(0), at(10));
        // The error of a sample is not a step.
        look(&mut calendar, ClockOffset::from_ns(offset(0).ns() + 900_000), 1000);
        assert!(calendar.when(at(500)).1);
    }

    #[test]
    fn several_steps_and_more_than_are_remembered() {
        let mut calendar = Calendar::at(offset(0), at(0));
        for step in 1..=STEPS_MAX as u64 {
            look(&mut calendar, offset(step.into()), step * 10);
        }
        assert_eq!(calendar.when(at(0)), (offset(0), true));
        assert_eq!(calendar.when(at(20)), (offset(2), false));
        look(&mut calendar, offset(100), 1000);
        assert!(!calendar.when(at(0)).1);
        assert_eq!(calendar.when(at(1001)), (offset(100), true));
    }

    #[test]
    fn the_next_run_knows_the_clock_of_this_one() {
        let mut kept = [0; pinned::COUNT];
        let mut next = Calendar::new();
        next.resume(&kept);
        assert!(next.when(BootTime(1)).1, "an earlier run left nothing");
        // An hour off, and last sampled long ago.
        let before = ClockOffset::from_ns(ClockOffset::sample().ns() - HOUR);
        Calendar::at(before, BootTime(1000)).keep(&mut kept);
        next.resume(&kept);
        assert_eq!(next.when(BootTime(1000)), (before, true));
        assert!(!next.when(BootTime(1001)).1, "set at a time that nobody saw");
        assert!(next.when(BootTime(u64::MAX)).1);
    }

    #[test]
    fn a_timer_that_waits_for_a_step_is_quiet() {
        let quiet = ClockSet::new().and_then(|timer| {
            timer.heard();
            let mut poll = [rustix::event::PollFd::new(&timer.0, rustix::event::PollFlags::IN)];
            Ok(rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?)
        });
        assert!(quiet.is_ok_and(|ready| ready == 0));
    }
}
