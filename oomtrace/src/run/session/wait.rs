//! What the event loop waits for.

use std::{
    os::fd::{AsFd, OwnedFd},
    task::Poll,
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::{outputs::transport::Wait, run::session::Ended};

/// How often an output is tried again if nothing can wake the loop for it.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Becomes readable when the source has something to read.
pub(super) fn wakeups(source: &impl AsFd) -> Result<AsyncFd<OwnedFd>, Ended> {
    register(source, Interest::READABLE)
}

/// Becomes ready when a pipe has no reader any more.
pub(super) fn reader_of(pipe: &impl AsFd) -> Result<AsyncFd<OwnedFd>, Ended> {
    register(pipe, Interest::ERROR)
}

fn register(source: &impl AsFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, Ended> {
    let fd = source.as_fd().try_clone_to_owned().map_err(Ended::Io)?;
    // SAFETY: the AsyncFd owns the descriptor, which nothing else closes or replaces.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| Ended::Io(error.into()))
}

pub(super) fn on(kind: SignalKind) -> Result<Signal, Ended> {
    signal(kind).map_err(Ended::Io)
}

pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns when the pipe has no reader any more. Never returns if there is no pipe.
pub(super) async fn reader_gone(pipe: Option<&AsyncFd<OwnedFd>>) {
    match pipe {
        Some(pipe) => drop(pipe.ready(Interest::ERROR).await),
        None => std::future::pending().await,
    }
}

/// Ends at a moment, with one wakeup: a timer of tokio's that is a minute away wakes the loop three times.
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Result<Self, Ended> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|errno| Ended::Io(errno.into()))?;
        Ok(Self { timer: wakeups(&timer)?, set: None })
    }

    /// Sets it to this moment, or to none.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        if self.set == at {
            return;
        }
        self.set = at;
        // Zero would turn it off.
        let left = at.map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)));
        let left = left.and_then(|left| Timespec::try_from(left).ok()).unwrap_or_default();
        let once = Itimerspec { it_interval: Timespec::default(), it_value: left };
        let _always_allowed = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once);
    }

    /// Ends when the moment has come.
    pub(super) async fn rings(&mut self) {
        if let Ok(mut ready) = self.timer.readable().await {
            let _rang = rustix::io::read(self.timer.get_ref(), &mut [0; 8]);
            ready.clear_ready();
        }
        self.set = None;
    }
}

/// Ends when one of these is readable; never where there are none.
pub(super) async fn any_readable(descriptors: &[AsyncFd<OwnedFd>]) {
    std::future::poll_fn(|context| {
        let mut any = Poll::Pending;
        for descriptor in descriptors {
            if let Poll::Ready(Ok(mut ready)) = descriptor.poll_read_ready(context) {
                ready.clear_ready();
                any = Poll::Ready(());
            }
        }
        any
    })
    .await;
}

/// What an output waits for, as a value that does not borrow the output.
pub(super) enum Room {
    Reader(OwnedFd),
    Time,
}

impl Room {
    pub(super) fn of(wait: Wait<'_>) -> Self {
        match wait {
            Wait::Reader(fd) => fd.try_clone_to_owned().map_or(Self::Time, Self::Reader),
            Wait::Time => Self::Time,
        }
    }
}

/// Returns when a write may succeed again. Never returns if no line is waiting.
pub(super) async fn room_in_output(room: Option<Room>) {
    let reader = match room {
        None => std::future::pending().await,
        Some(Room::Time) => None,
        // SAFETY: the AsyncFd owns the descriptor, which nothing else closes or replaces.
        Some(Room::Reader(fd)) => unsafe { AsyncFd::register_with_interest(fd, Interest::WRITABLE) }.ok(),
    };
    match reader {
        Some(reader) => drop(reader.writable().await),
        None => tokio::time::sleep(TRY_AGAIN).await,
    }
}

/// Wakes the loop for the watchdog.
pub(super) async fn next_tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}
