//! What the event loop waits for.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::{outputs::transport::Wait, run::session::Ended};

/// How often an output is tried again of which nothing tells when it may work.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Tells when there is something to read.
pub(super) fn wakeups(source: &impl AsFd) -> Result<AsyncFd<OwnedFd>, Ended> {
    register(source, Interest::READABLE)
}

/// Tells when a pipe has no reader any more.
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

/// Ends when the pipe has no reader any more; never where there is no such pipe.
pub(super) async fn reader_gone(pipe: Option<&AsyncFd<OwnedFd>>) {
    match pipe {
        Some(pipe) => drop(pipe.ready(Interest::ERROR).await),
        None => std::future::pending().await,
    }
}

/// What an output waits for, held apart from it.
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

/// Ends when it is worth another try to write; never if nothing waits to be written.
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
