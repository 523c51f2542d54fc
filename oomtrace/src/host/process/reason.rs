//! Why a fact of a process is absent.

use std::{io, time::Duration};

/// Why a fact is absent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Too many command lines are being read already.
    #[error("{0} reads of earlier victims' /proc/PID/cmdline do not answer")]
    Pending(usize),
    /// It took longer than the caller waits.
    #[error("/proc did not answer in {0:?}")]
    TooSlow(Duration),
    /// Without a start time, a later process with the same id would look the same.
    #[error("start time not known, so the process cannot be told from a later one with its pid")]
    StartUnknown,
    /// No process has this id any more.
    #[error("process already gone")]
    Gone,
    /// The process exists, but has no memory any more.
    #[error("memory already released")]
    Released,
    /// The command line is empty: it was overwritten, or released with the memory.
    #[error("/proc/PID/cmdline is empty")]
    Empty,
    /// Another process has the id now.
    #[error("pid already in use by another process")]
    AnotherProcess,
    /// `/proc` counts start times in ticks of 10 ms, so a later process with the same id may have the same
    /// start time.
    #[error("started at most 10 ms before its mark, so it cannot be told from a later process with its pid")]
    StartedJustBefore,
    /// The ids of `/proc` belong to another pid namespace than the kernel's.
    #[error("/proc here is of another pid namespace: its pids are not the host's")]
    OtherPidNamespace,
    /// A file of `/proc` could not be parsed.
    #[error("/proc/PID/stat not understood")]
    Unreadable,
    /// The kernel returned an error.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The operator does not want it.
    #[error("left out by --command-line none")]
    NotWanted,
    /// Nothing reads it, or it is not certain to which process it would belong.
    #[error("not read")]
    NotRead,
    /// The reading thread has ended.
    #[error("the /proc reader has ended")]
    Ended,
}

impl From<rustix::io::Errno> for Reason {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::SRCH => Self::Gone,
            other => Self::Io(other.kind()),
        }
    }
}
