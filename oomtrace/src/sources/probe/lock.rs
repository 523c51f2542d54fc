//! An exclusive lock on the directory of pins, for one process at a time. It ends with its process.

use std::{fs, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, Stat, flock, fstat, major, minor, open, stat},
    io::Errno,
};

use crate::sources::probe::PinError;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _fd: OwnedFd,
}

impl Lock {
    /// Takes the lock on `dir`.
    ///
    /// # Errors
    /// [`PinError::Busy`] if another process has it; [`PinError::Io`] if the directory cannot be opened.
    pub(super) fn take(dir: &Path) -> Result<Self, PinError> {
        let error = |errno: Errno| PinError::io("open", dir, errno.into());
        // A `detach` may remove the directory between the open and the lock. Then another one exists.
        loop {
            let fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(error)?;
            let locked = fstat(&fd).map_err(error)?;
            match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(PinError::Busy { dir: dir.to_owned(), pid: holder(&locked) });
                }
                Err(errno) => return Err(error(errno)),
            }
            let there = stat(dir).map_err(error)?;
            if (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino) {
                return Ok(Self { _fd: fd });
            }
        }
    }
}

/// The process that holds a lock on a file, from `/proc/locks`.
fn holder(stat: &Stat) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, &format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino))
}

/// The line of a waiting process has an arrow in its second column.
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, _, _, pid, of) =
            (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        (kind == "FLOCK" && of == file).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_holder_is_the_one_that_has_the_file_not_one_that_waits() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:2b:7 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:2b:8 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 00:2b:7 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 14 00:2b:7 0 EOF\n";
        assert_eq!(holder_in(locks, "00:2b:7"), Some(14));
        assert_eq!(holder_in(locks, "00:2b:9"), None);
    }

    #[test]
    fn a_second_one_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        match Lock::take(dir.path()) {
            Err(PinError::Busy { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => unreachable!("{other:?}"),
        }
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
